"""The Models page: the project's models, the catalogue with its facets, how models are added."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from core.registry import catalogue, versions
from core.registry import services as registry
from tests.browsing import PAGE_TIMEOUT_MS, Bud, looks, select_row, settle, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)
CHAT = "Commercial chat product, 10 M users"


def test_the_catalogue_is_searched_and_the_address_carries_it(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, f"models?view=Catalogue&use={quote(CHAT)}")
    models = page.get_by_test_id("stMetric").filter(has_text="Models")
    expect(models).to_contain_text(f"{len(catalogue.models()):,}")
    page.get_by_role("searchbox", name="Search").fill("qwen3")
    # Found while typing, without Enter.
    everything = catalogue.index().search("qwen3")
    expect(models).to_contain_text(f"{everything.total:,}")
    tools = page.locator(".st-key-facet-can").get_by_text("tools", exact=False)
    expect(tools).to_contain_text(str(everything.facets["tools"]["yes"]))
    tools.click()
    page.wait_for_url(re.compile("can=tools"))
    verdict = page.locator(".st-key-facet-verdict")
    verdict.get_by_text("allowed", exact=False).first.click()
    page.wait_for_url(re.compile("verdict=yes"))
    assert re.search(r"q=qwen3.*can=tools|can=tools.*q=qwen3", page.url)
    wanted = {"tools": ["yes"], "licence": ["apache-2.0", "mit"]}
    found = catalogue.index().search("qwen3", wanted)
    expect(models).to_contain_text(f"{found.total:,}")
    # The address alone brings the same view, in another tab.
    other = page.context.new_page()
    other.goto(page.url)
    settle(other)
    expect(other.get_by_test_id("stMetric").filter(has_text="Models")).to_contain_text(
        f"{found.total:,}"
    )
    expect(other.get_by_role("button", name="Clear 2 filters")).to_be_visible()
    heading = other.get_by_role("heading", name=str(found.models["name"].iloc[0]))
    select_row(other, 0, heading, column_px=90)
    expect(other.get_by_text(f"{CHAT}: allowed")).to_be_visible()


def test_a_favourite_a_view_and_the_rules_are_kept(
    admin_page: Page, bud: Bud, project_id: str
) -> None:
    page = admin_page
    project = f"project={Path(__file__).stem}"
    bud.open(page, f"models?{project}&view=Catalogue&q=qwen3-8b")
    favourites = page.locator(".st-key-facet-marked-yes")
    select_row(page, 0, favourites.get_by_text("My favourites 1"), column_px=26)
    page.get_by_role("button", name="Views (0)").click()
    page.get_by_label("Name of this view").fill("Eights")
    page.get_by_role("button", name="Save", exact=True).click()
    bud.open(page, f"models?{project}&view=Catalogue")
    page.get_by_role("button", name="Views (1)").click()
    page.get_by_role("button", name="Eights").click()
    expect(page.get_by_role("searchbox", name="Search")).to_have_value("qwen3-8b")
    bud.open(page, f"models?{project}")
    page.get_by_role("button", name="Rules").click()
    page.get_by_text("Approved versions only").click()
    wait_for("kept", lambda: versions.policy(bud.actor, project_id).approved_only)


def test_quick_clicks_on_stars_each_count(admin_page: Page, bud: Bud) -> None:
    page = admin_page
    bud.open(page, "models?view=Catalogue&q=llama")
    rows = page.get_by_test_id("stDataFrame").first.locator(".dvn-scroller")
    expect(rows).to_be_visible()
    settle(page)
    favourites = page.locator(".st-key-facet-marked-yes")
    before = int(favourites.inner_text().split()[-1])
    for row in range(4):
        rows.click(position={"x": 26, "y": 35 * row + 52})
        page.wait_for_timeout(120)
    expect(favourites).to_contain_text(f"My favourites {before + 4}")
    # And off again, in the same table.
    rows.click(position={"x": 26, "y": 35 * 1 + 52})
    expect(favourites).to_contain_text(f"My favourites {before + 3}")


def test_a_path_that_is_not_there_is_refused_with_a_remedy(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, "models")
    page.get_by_role("button", name="Add model").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_text("This machine").click()
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("No path was given.")).to_be_visible()
    dialog.get_by_role("textbox", name="Path").fill("/nowhere/model.gguf")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("There is nothing at /nowhere/model.gguf")).to_be_visible()
    expect(dialog.get_by_text("What to do:")).to_be_visible()
    # A member may use accounts at providers, and adds none.
    dialog.get_by_text("Hosted provider").click()
    expect(dialog.get_by_text("This project has no account at a provider yet")).to_be_visible()


def test_how_it_looks(tab: Callable[..., Page], bud: Bud) -> None:
    starter = registry.add_starter(bud.actor)
    page = tab()
    bud.log_in_as_admin(page)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        bud.open(page, "models?view=Catalogue&q=llama")
        expect(page.get_by_text("Click a name to open it")).to_be_visible()
        looks(page, "models-catalogue")
        bud.open(page, "models?view=Refresh")
        expect(page.get_by_text("BUD_REFRESH_CATALOGUE_DAYS is 0")).to_be_visible()
        expect(page.get_by_text("Nothing fetched yet")).to_be_visible()
        looks(page, "models-refresh")
        bud.open(page, f"model?id={starter.id}")
        expect(page.get_by_test_id("stMetric").filter(has_text="135M")).to_be_visible()
        looks(page, "model")
