"""Leaderboards and Compare in a browser: the key question, its links, its downloads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from playwright.sync_api import Page, expect

from core.leaderboards import scores
from core.leaderboards import services as leaderboards
from core.leaderboards.schemas import Query
from core.registry import catalogue
from tests.browsing import PAGE_TIMEOUT_MS, Bud, looks, select_row, settle

expect.set_options(timeout=PAGE_TIMEOUT_MS)

Tab = Callable[..., Page]

USE = "Commercial chat product, 10 M users"
ALLOWED = re.compile(rf"\ballowed( with conditions)?\s*{USE}: ")
QUESTION = f"leaderboards?task=tools&open=true&max_b=10&allows={USE.replace(' ', '+')}"


def test_the_best_small_model_for_tools_that_a_business_may_use(
    bud: Bud, member_page: Page
) -> None:
    page = member_page
    bud.open(page, "leaderboards")
    page.get_by_role("radio", name="Tools and agents").click()
    expect(page).to_have_url(re.compile(r"task=Tools"))
    page.get_by_role("combobox", name="Licence allows").click()
    page.get_by_role("option", name=USE).click()
    page.get_by_label("At most (B)").fill("10")
    page.get_by_label("At most (B)").press("Enter")
    page.get_by_text("Open weights", exact=True).first.click()
    expect(page).to_have_url(re.compile(r"max_b=10.*open=true"))
    expect(page.get_by_text("is the best of")).to_be_visible()
    asked = Query(task="tools", use=USE, open_weights=True, parameters_to=10e9)
    best = str(leaderboards.combined(bud.actor, "prj_default", asked).table.iloc[0]["name"])
    expect(page.get_by_role("heading", name=best, exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name=f"1. {best}", exact=True)).to_be_visible()
    # Why: its figure with the source, and its licence.
    card = page.locator(".st-key-leaderboard-model")
    expect(card).to_contain_text(ALLOWED)
    with page.expect_download() as started:
        card.get_by_role("button", name="CSV", exact=True).last.click()
    text = Path(started.value.path()).read_text()
    assert "ShishirPatil/gorilla@" in text
    # The link is the view.
    page.reload()
    settle(page)
    expect(page.get_by_role("heading", name=best, exact=True)).to_be_visible()
    # Its licence answers for the same use, and back to the same view; then to What if.
    view = page.url
    page.get_by_role("link", name=re.compile("^All answers for ")).click()
    expect(page).to_have_url(re.compile(r"/licences\?.*id=.*for=Commercial"))
    expect(page.get_by_text("For this use: ")).to_be_visible()
    settle(page)
    page.go_back()
    expect(page).to_have_url(view)
    expect(page.get_by_role("heading", name=f"1. {best}", exact=True)).to_be_visible()
    settle(page)
    expect(page).to_have_url(view)
    bud.open(page, f"{QUESTION}&find=qwen3-8b")
    page.get_by_role("button", name="What if", exact=True).click()
    expect(page).to_have_url(re.compile(r"/what-if\?.*model=qwen3-8b"))


def test_from_a_row_to_compare_and_to_deploy(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, QUESTION)
    card = page.locator(".st-key-leaderboard-model")
    select_row(page, 1, card.get_by_role("heading", name=re.compile("^2. ")))
    card.get_by_role("button", name="Compare").click()
    # With the next in rank, for the use that was asked for.
    expect(page).to_have_url(re.compile(r"/compare\?models=.*&models=.*&for=Commercial"))
    expect(page.get_by_text("Scores by task").first).to_be_visible()
    cards = page.locator("[class*='st-key-compare-']").filter(has_text=f"{USE}: ")
    expect(cards).to_have_count(2)
    for number in range(2):
        expect(cards.nth(number)).to_contain_text(ALLOWED)
    expect(page.get_by_text("Board by board")).to_be_visible()
    bud.open(page, f"{QUESTION}&find=qwen3-8b")
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page).to_have_url(re.compile(r"/models"))
    expect(page.get_by_label("Hugging Face id")).to_have_value("Qwen/Qwen3-8B")
    page.go_back()
    expect(card.get_by_role("heading", name="1. Qwen3-8B", exact=True)).to_be_visible()


def test_deploy_of_a_model_without_a_repository_asks_for_one(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "leaderboards?task=tools&find=gemini-2.5-pro")
    expect(page.get_by_role("button", name="Deploy", exact=True)).to_be_disabled()
    # Nobody knows whether it is open, nor where its files are.
    bud.open(page, "leaderboards?task=speech&find=scribe_v2")
    expect(page.get_by_role("button", name="Deploy", exact=True)).to_be_disabled()
    model_id, name = _without_repository()
    bud.open(page, f"leaderboards?task=tools&find={model_id.rpartition('/')[2]}")
    card = page.locator(".st-key-leaderboard-model")
    expect(card.get_by_role("heading", name=f"1. {name}", exact=True)).to_be_visible()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("knows no repository of")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value(name)


def _without_repository() -> tuple[str, str]:
    """The id and name of a model of BFCL that is open, but whose repository nobody knows."""
    known = catalogue.models()
    on_board = pd.read_parquet(scores.DATA / "scores.parquet").query("board == 'BFCL'")["model_id"]
    is_open = known["hub_id"].isna() & known["open_weights"].fillna(False)
    found = known[is_open & known["id"].isin(on_board)].sort_values("id")
    # The longest id: a search for it finds it alone.
    row = found.loc[found["id"].str.len().idxmax()]
    return str(row["id"]), str(row["name"])


def test_a_view_without_models_names_what_is_asked(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "leaderboards?task=code&find=zzzzqq")
    expect(page.get_by_text("No model or maker of this task is called “zzzzqq”.")).to_be_visible()
    bud.open(page, "leaderboards?task=code&max_b=0")
    expect(page.get_by_text("No model of this task fits at most 0B parameters.")).to_be_visible()
    bud.open(page, "leaderboards?task=speech&chart=Trend")
    expect(page.get_by_text("Choose another task, or fewer filters.")).to_be_visible()


def test_weights_and_reports(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "leaderboards?task=code&w_aider-polyglot=0.0")
    expect(page.get_by_role("heading", name=re.compile("GPT-5"))).to_have_count(0)
    with page.expect_download() as started:
        page.get_by_role("button", name="Report", exact=True).click()
    html = Path(started.value.path()).read_text()
    assert "<script" not in html
    assert '"aider-polyglot":0.0' in html.replace("&quot;", '"')
    page.get_by_role("radio", name="Price").click()
    expect(page.get_by_text("Quality against price")).to_be_visible()


def test_boards_stand_as_published_and_wrong_links_say_so(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "leaderboards?task=tools")
    expect(page.get_by_role("button", name="tau2-bench")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="tau2-bench").click()
    expect(page).to_have_url(re.compile(r"\?(?=.*board=tau2-bench)(?=.*see=Boards)"))
    expect(page.get_by_role("heading", name="τ²-bench")).to_be_visible()
    bud.open(page, "leaderboards?see=Boards&board=llm-stats")
    expect(page.get_by_text("never combined").first).to_be_visible()
    settle(page)
    page.get_by_role("radio", name="Refresh").click()
    expect(page.get_by_text("For admins")).to_be_visible()
    bud.open(page, "leaderboards?task=cooking")
    expect(page.get_by_text("There is no task 'cooking'.")).to_be_visible()
    bud.open(page, "leaderboards?max_b=0.001&task=tools")
    expect(page.get_by_text("No model fits")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Compare models").click()
    expect(page.get_by_text("Choose two to six models")).to_be_visible()
    bud.open(page, "compare?models=nobody/nothing&models=qwen/qwen3-8b")
    expect(page.get_by_text("No board lists nobody/nothing.")).to_be_visible()
    expect(page.get_by_text("qwen/qwen3-8b")).to_be_visible()


def test_it_fits_wide_and_narrow_screens(bud: Bud, tab: Tab) -> None:
    page = tab()
    bud.log_in_as_admin(page)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        bud.open(page, QUESTION)
        looks(page, "leaderboards")
        bud.open(page, "compare?models=qwen/qwen3-8b&models=meta/llama-3.1-8b-instruct")
        looks(page, "compare")
