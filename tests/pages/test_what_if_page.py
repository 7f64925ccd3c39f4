"""The What-if page: it follows a slider, its link is the view, and it can be saved and shared."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.kernel import clock, database
from core.projects import services as projects
from core.simulation import predictor, trained_models, trainings
from core.simulation import services as simulation
from core.simulation.models import SimulationTraining
from core.simulation.schemas import WhatIf
from tests.browsing import PAGE_TIMEOUT_MS, Bud, looks, settle, shot

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

Tab = Callable[..., Page]


def _kpi(page: Page, label: str) -> Locator:
    return page.get_by_test_id("stMetric").filter(has_text=label)


def _value(page: Page, label: str) -> str:
    return _kpi(page, label).get_by_test_id("stMetricValue").inner_text()


def _move(page: Page, slider: str, key: str) -> None:
    thumb = page.get_by_role("slider", name=slider)
    thumb.focus()
    thumb.press(key)


def test_numbers_and_link_follow_a_slider(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "what-if?gpus=8&tp=2&model=qwen3-32b")
    before = _value(page, "TPOT")
    _move(page, "Requests in flight", "ArrowRight")
    expect(page).to_have_url(re.compile(r"concurrency=48"))
    expect(_kpi(page, "TPOT").get_by_test_id("stMetricValue")).not_to_have_text(before)
    after = _value(page, "TPOT")
    page.reload()
    settle(page)
    assert _value(page, "TPOT") == after
    expect(page.get_by_text("extrapolated").or_(page.get_by_text("nearby")).first).to_be_visible()


def test_a_separated_layout_keeps_the_gpus_and_outlives_a_visit_elsewhere(
    bud: Bud, member_page: Page
) -> None:
    page = member_page
    bud.open(page, "what-if?gpus=8&tp=2")
    page.get_by_text("Layout, cache and price").click()
    page.get_by_role("radio", name="Separate").click()
    expect(page).to_have_url(re.compile(r"prefill_workers=2.*decode_tp=2"))
    expect(_kpi(page, "Requests/s")).to_contain_text("8 devices")
    page.get_by_role("link", name="Jobs").first.click()
    expect(page).to_have_url(re.compile(r"/jobs"))
    page.get_by_role("link", name="What if").click()
    expect(page).to_have_url(re.compile(r"prefill_workers=2.*decode_tp=2"))
    expect(_kpi(page, "Requests/s")).to_contain_text("8 devices")


def test_a_workload_sets_the_sliders_and_says_where_it_comes_from(
    bud: Bud, member_page: Page
) -> None:
    page = member_page
    bud.open(page, "what-if")
    page.get_by_role("combobox", name="Workload").click()
    page.get_by_role("option", name="Summarising").click()
    expect(page).to_have_url(re.compile(r"isl=8192"))
    expect(page).to_have_url(re.compile(r"osl=1024"))
    expect(page.get_by_text("InferenceX, which most")).to_be_visible()


def test_a_link_opens_a_view_by_any_name(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(
        page,
        "what-if?model=meta-llama/Llama-3.1-70B-Instruct&hardware=H200&gpus=4&tp=4&show=Memory",
    )
    expect(page.get_by_role("heading", name="llama-3.1-70b on 4 × NVIDIA H200")).to_be_visible()
    expect(page.get_by_text("Memory of one device (GB)")).to_be_visible()
    for view, said in (
        ("Changes", "Not possible"),
        ("Cost", "Cost by cloud and region"),
        ("Decode step", "Where the time of a decode step goes"),
        ("Launch", "--tensor-parallel-size"),
    ):
        page.get_by_role("radio", name=view).click()
        expect(page.get_by_text(said).first).to_be_visible()
    expect(page.get_by_text("The engine refuses requests of over 2,732 tokens")).to_be_visible()
    settle(page)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("gpus=0", "The number of GPUs is 0"),
        ("isl=1000000000", "Input tokens is 1,000,000,000"),
        ("model=lama-3.1-8b", "The nearest are llama-3.1-8b"),
        ("gpus=many", "gpus cannot be read"),
        ("scenario=sim_gone", "There is no saved scenario"),
        ("model=deepseek-v3", "What would fit"),
    ],
)
def test_a_wrong_link_says_what_is_wrong(
    bud: Bud, member_page: Page, query: str, said: str
) -> None:
    page = member_page
    bud.open(page, f"what-if?{query}")
    expect(page.get_by_text(re.compile(re.escape(said))).first).to_be_visible()
    settle(page)


def test_a_scenario_is_saved_shared_renamed_and_deleted(
    bud: Bud, member_page: Page, project_id: str, tab: Tab
) -> None:
    page = member_page
    bud.open(page, "what-if?gpus=4&tp=2&model=qwen3-8b")
    page.locator(".st-key-save-predict button").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("textbox", name="Name").fill("Small and quick")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Members of this project")).to_be_visible()
    saved = simulation.list_scenarios(bud.actor, project_id)
    assert [each.name for each in saved] == ["Small and quick"]
    expect(page.get_by_text(f"scenario={saved[0].id}")).to_be_visible()

    other = tab()
    bud.log_in_as_new(other, "bea-what-if@example.org", project_id)
    bud.open(other, f"what-if?scenario={saved[0].id}")
    expect(other.get_by_role("heading", name="qwen3-8b on 4 ×")).to_be_visible()
    outsider = tab()
    theirs = projects.create_project(bud.actor, "what-if-others").id
    bud.log_in_as_new(outsider, "olga-what-if@example.org", theirs)
    bud.open(outsider, f"what-if?scenario={saved[0].id}")
    expect(outsider.get_by_text("There is no saved scenario")).to_be_visible()
    expect(outsider.get_by_role("button", name="Saved (0)")).to_be_visible()

    page.get_by_role("button", name="Saved (1)").click()
    page.locator(f".st-key-rename-{saved[0].id} button").first.click()
    dialog.get_by_role("textbox", name="Name").fill("Renamed")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Saved (1)").click()
    page.locator(f".st-key-delete-{saved[0].id} button").first.click()
    dialog.get_by_role("textbox", name="Name").fill("Renamed")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Saved (0)")).to_be_visible()


def test_a_report_and_its_numbers_are_downloaded(
    bud: Bud, member_page: Page, page: Page, tmp_path: Path
) -> None:
    bud.open(member_page, "what-if?model=gpt-oss-120b&gpus=8&tp=8")
    title = member_page.get_by_role("heading", name="gpt-oss-120b on 8 ×")
    expect(title).to_be_visible()
    with member_page.expect_download() as html:
        member_page.locator(".st-key-report-predict button").first.click()
    with member_page.expect_download() as table:
        member_page.locator(".st-key-report-csv-predict button").first.click()
    report = tmp_path / "report.html"
    html.value.save_as(report)
    with table.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["model"] == "gpt-oss-120b"
    assert rows[0]["predictor_version"]
    page.context.set_offline(True)
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name="gpt-oss-120b on 8 ×")).to_be_visible()
    shot(page, "what-if-report")


def test_scenarios_and_models_stand_side_by_side(
    bud: Bud, member_page: Page, project_id: str
) -> None:
    page = member_page
    made = simulation.save_scenario(
        bud.actor, project_id, "Two H200", WhatIf(hardware="h200_sxm", gpus=2)
    )
    bud.open(page, f"what-if?view=Compare&with={made.name}&models=qwen3-8b&models=qwen3-32b")
    expect(page.get_by_text("15 rows")).to_be_visible()
    expect(page.get_by_text("Latency against throughput")).to_be_visible()
    legend = page.locator(".js-plotly-plot .legendtext")
    expect(legend.filter(has_text="4. qwen3-32b")).to_be_visible()
    simulation.delete_scenario(bud.actor, made.id)
    bud.open(page, "what-if?view=Compare")
    models = page.get_by_role("combobox", name="The same with another model")
    models.fill("qwen3-32b")
    models.press("Enter")
    # What was typed, and not all that looks like it.
    expect(legend.filter(has_text="2. qwen3-32b")).to_be_visible()
    expect(legend.filter(has_text=re.compile(r"^3\. "))).to_have_count(0)
    bud.open(
        page, "what-if?view=Compare&models=qwen3-8b&models=qwen3-32b&models=llama-2-7b&models=glm-5"
    )
    expect(page.get_by_text("At most 4 scenarios stand side by side.")).to_be_visible()


def test_models_are_chosen_by_targets(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "what-if?view=Choose+a+model&gpus=8&max_tpot=20&licence=Permissive")
    meeting = _kpi(page, "Models that meet them").get_by_test_id("stMetricValue")
    some = int(meeting.inner_text())
    assert some > 0
    page.get_by_label("TPOT at most (ms)").fill("-1")
    page.get_by_label("TPOT at most (ms)").press("Enter")
    expect(page.get_by_text("A target is a number above 0.")).to_be_visible()
    page.get_by_label("TPOT at most (ms)").fill("0.01")
    page.get_by_label("TPOT at most (ms)").press("Enter")
    expect(meeting).to_have_text("0")
    expect(page.get_by_text("None meets every target. The nearest is")).to_be_visible()


def test_a_search_runs_as_a_job_and_its_best_is_loaded(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "what-if?view=Find+the+best&model=qwen3-8b")
    expect(page.get_by_text("No search yet")).to_be_visible()
    target = page.get_by_label("TTFT at most (ms)")
    target.fill("-5")
    target.press("Enter")
    page.locator(".st-key-search-go button").click()
    expect(page.get_by_text("A target for TTFT is a positive number")).to_be_visible()
    expect(page.get_by_text("No search yet")).to_be_visible()
    target.fill("5000")
    target.press("Enter")
    page.locator(".st-key-search-go button").click()
    expect(page.get_by_text("The targets are met.", exact=True)).to_be_visible(timeout=60_000)
    page.locator(".st-key-load-search-option button").click()
    expect(page.get_by_role("heading", name="qwen3-8b on")).to_be_visible()
    expect(page).not_to_have_url(re.compile("view=Find"))


def test_a_trace_is_replayed_as_a_job(bud: Bud, member_page: Page) -> None:
    page = member_page
    bud.open(page, "what-if?view=Replay&model=qwen3-8b&gpus=2")
    expect(page.get_by_text("No replay yet")).to_be_visible()
    page.get_by_role("button", name="Upload a trace").click()
    page.locator("input[type=file]").set_input_files(
        {
            "name": "mine.csv",
            "mimeType": "text/csv",
            "buffer": b"arrival_s,input_tokens,output_tokens\n0,500,20\n1,700,30\n9,90,8\n",
        }
    )
    page.locator(".st-key-replay-add button").click()
    expect(page.get_by_text("3 requests in")).to_be_visible()
    page.locator(".st-key-replay-go button").click()
    expect(_kpi(page, "Targets met")).to_be_visible(timeout=60_000)
    expect(_kpi(page, "Targets met")).to_contain_text("of 3")
    expect(page.get_by_text("Requests running and queued")).to_be_visible()


_MEASURED = (
    b"model,system,engine,precision,mode,isl,osl,concurrency,tp,pp,ep,dp,ttft_ms,tpot_ms\n"
    b"llama-3.1-8b,l40s,vllm,fp8,agg,1024,256,16,1,1,1,1,350,24.5\n"
    b"llama-3.1-8b,l40s,vllm,fp8,agg,1024,256,32,1,1,1,1,fast,30\n"
)


def _trained(bud: Bud) -> str:
    """A finished training, without its minute of work: the shipped model with one date changed."""
    shipped = predictor.trained()
    made = replace(shipped, about=replace(shipped.about, data_date="2026-11-29"))
    error = {"rows": 20, "shipped_mape": 33.3, "held_out_mape": 7.5}
    row = SimulationTraining(
        id="trn_browser",
        tenant_id=bud.actor.tenant_id,
        project_id="prj_default",
        name="lab.csv",
        job_id="job_none",
        rows=20,
        configurations=5,
        own=b"",
        trained=trained_models.packed(made),
        result=vars(made.about) | {"rows": {"own": 20}, "errors": {"tpot_ms": error}},
        created_by_name="a test",
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        tx.add(row)
    return row.id


def test_own_measurements_are_trained_on_and_used_until_one_goes_back(
    bud: Bud, admin_page: Page
) -> None:
    page = admin_page
    bud.open(page, "what-if?view=Train")
    expect(page.get_by_text("Nothing was trained here yet")).to_be_visible()
    train = page.locator(".st-key-training-go button")
    expect(train).to_be_disabled()
    page.locator("input[type=file]").set_input_files(
        {"name": "mine.csv", "mimeType": "text/csv", "buffer": _MEASURED}
    )
    expect(page.get_by_text("1 row cannot be used")).to_be_visible()
    expect(train).to_be_disabled()
    page.get_by_text("Leave out 1 row").click()
    train.click()
    expect(page.get_by_text("Calibrate the roofline")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    (cancelled,) = trainings.list_trainings(bud.actor, "prj_default")
    assert (cancelled.rows, cancelled.result) == (1, None)

    bud.open(page, f"what-if?view=Train&training={_trained(bud)}")
    expect(_kpi(page, "TPOT error, held out")).to_contain_text("shipped 33.3%")
    standing = _kpi(page, "Predicted with")
    expect(standing).to_contain_text("as shipped")
    page.locator(".st-key-training-use button").click()
    expect(standing).to_contain_text("yours")
    expect(_kpi(page, "Newest row of")).to_contain_text("2026-11-29")
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        looks(page, "what-if-train")
    page.locator(".st-key-training-back button").click()
    expect(standing).to_contain_text("as shipped")


@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_every_screen(bud: Bud, tab: Tab, project_id: str, width: int) -> None:
    page = tab(width)
    bud.log_in_as_new(page, f"wide-{width}@example.org", project_id)
    for view in ("Predict", "Choose+a+model"):
        bud.open(page, f"what-if?gpus=8&tp=2&view={view}")
        looks(page, f"what-if-{view.split('+')[0].lower()}")
