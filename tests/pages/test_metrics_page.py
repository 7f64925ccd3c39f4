"""Home and Metrics in a real browser: empty, then with the demo's thirty days."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.contracts.request_fact import DROPPED_FILE_NAME
from core.demo import services as demo
from core.deployments.schemas import DeploymentView
from core.kernel import clock, ids
from core.metrics import segments
from core.metrics.schemas import StoredFact
from tests.browsing import PAGE_TIMEOUT_MS, Bud, choose, looks, settle, shot

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

Tab = Callable[..., Page]


@pytest.fixture
def loaded(bud: Bud) -> str:
    """The demo project, loaded by another process than the dashboard's; its id."""
    return demo.load(bud.actor).project_id


def test_home_leads_from_nothing_to_the_first_call(bud: Bud, admin_page: Page) -> None:
    bud.open(admin_page, "?project=Default")
    expect(admin_page.get_by_text("First steps")).to_be_visible()
    expect(admin_page.get_by_text("Call it with curl")).to_be_visible()
    shot(admin_page, "home-empty-1440-light")
    admin_page.get_by_role("button", name="Deploy a model").first.click()
    settle(admin_page)
    expect(admin_page).to_have_url(re.compile(r"/deployments"))


def test_metrics_says_what_to_do_when_there_is_nothing(bud: Bud, member_page: Page) -> None:
    bud.open(member_page, "metrics?window=15m&outcome=Failed")
    expect(member_page.get_by_text("Nothing matches")).to_be_visible()


def test_what_a_full_disk_dropped_is_said(bud: Bud, admin_page: Page) -> None:
    path = segments.folder(bud.data_dir) / DROPPED_FILE_NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'{"dropped": 1234}')
    try:
        bud.open(admin_page, "metrics?project=Default&window=15m")
        expect(admin_page.get_by_text("1,234 requests are missing here")).to_be_visible()
    finally:
        path.unlink()


@pytest.mark.parametrize("width", [1440, 390])
def test_demo_on_home_and_metrics(bud: Bud, loaded: str, tab: Tab, width: int) -> None:
    page = tab(width)
    bud.log_in_as_admin(page)
    bud.open(page, "?project=Demo")
    expect(page.get_by_text("Demo data").first).to_be_visible()
    expect(page.get_by_text("Requests, 24 h")).to_be_visible()
    looks(page, "home")
    bud.open(page, "metrics?project=Demo&window=30d")
    expect(page.get_by_text("Latency", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(6, timeout=PAGE_TIMEOUT_MS)
    settle(page)
    looks(page, "metrics")
    page.get_by_text("Latest requests").last.scroll_into_view_if_needed()
    looks(page, "metrics-requests")


def test_a_link_carries_window_grouping_and_filters(
    bud: Bud, loaded: str, admin_page: Page
) -> None:
    bud.open(admin_page, "metrics?project=Demo&window=7d&by=Key&model=code-assist")
    expect(admin_page.get_by_role("heading", name="By key")).to_be_visible()
    expect(admin_page.locator(".js-plotly-plot")).to_have_count(6, timeout=PAGE_TIMEOUT_MS)
    admin_page.get_by_role("radio", name="30d").click()
    settle(admin_page)
    expect(admin_page).to_have_url(re.compile(r"window=30d"))
    expect(admin_page).to_have_url(re.compile(r"model=code-assist"))


def test_a_link_filters_by_a_deployment_without_requests(
    bud: Bud, member_page: Page, project_id: str, running: Callable[..., DeploymentView]
) -> None:
    page, view = member_page, running("quiet")
    _answered(bud, project_id, "busy", deployment_id="dep_gone", minutes_ago=2)
    chosen = page.get_by_role("combobox", name="Deployment")
    page.goto(f"{bud.url}/metrics?deployment={view.name}&live=true")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_text("Filters", exact=True).click()
    expect(chosen).to_have_value(view.name)
    _answered(bud, project_id, view.name, deployment_id=view.id, minutes_ago=1)
    requests = page.get_by_test_id("stMetric").filter(has_text="Requests")
    expect(requests).to_contain_text("1")
    page.reload()
    expect(requests).to_contain_text("1")
    expect(page).to_have_url(re.compile(f"deployment={view.name}"))
    # An id does as well, also of a deployment that is gone.
    for named in (view.id, "dep_gone"):
        page.goto(f"{bud.url}/metrics?deployment={named}")
        expect(requests).to_contain_text("1")
        expect(page).to_have_url(re.compile(f"deployment={named}"))


def test_filters_and_a_window_of_ones_own(bud: Bud, member_page: Page, project_id: str) -> None:
    page = member_page
    _answered(bud, project_id, "in-may", minutes_ago=200 * 24 * 60, key_id="key_a")
    _answered(bud, project_id, "in-may", minutes_ago=200 * 24 * 60, error_class="upstream_error")
    first = clock.now() - timedelta(days=201)
    last = clock.now() - timedelta(days=199)
    bud.open(page, "metrics")
    page.get_by_role("radio", name="custom").click()
    expect(page.get_by_text("From (UTC)")).to_be_visible()
    page.goto(
        f"{bud.url}/metrics?window=custom&from={first:%Y-%m-%dT%H:%M}&to={last:%Y-%m-%dT%H:%M}"
    )
    requests = page.get_by_test_id("stMetric").filter(has_text="Requests")
    expect(requests).to_contain_text("2")
    page.get_by_text("Filters", exact=True).click()
    choose(page, "Outcome", "Failed")
    expect(requests).to_contain_text("1")
    expect(page.get_by_test_id("stMetric").filter(has_text="Errors")).to_contain_text("100.0%")
    expect(page).to_have_url(re.compile("outcome=Failed"))
    shot(page, "metrics-custom-1440-light")
    page.reload()
    settle(page)
    expect(requests).to_contain_text("1")
    page.goto(
        f"{bud.url}/metrics?window=custom&from={last:%Y-%m-%dT%H:%M}&to={first:%Y-%m-%dT%H:%M}"
    )
    expect(page.get_by_text("The time window is empty.")).to_be_visible()


def _answered(bud: Bud, project_id: str, model: str, *, minutes_ago: float, **values: Any) -> None:
    """Write down a request of the past, as the gateway does."""
    fact = StoredFact(
        request_id=ids.new_id("req"),
        started_unix_s=clock.unix_s() - minutes_ago * 60,
        endpoint="/v1/chat/completions",
        project_id=project_id,
        model=model,
        status=502 if values.get("error_class") else 200,
        replica_id="rep_1",
        **values,
    )
    segments.write(bud.data_dir, ids.new_id("seg"), [fact])


def test_a_request_shows_without_a_reload_while_live(bud: Bud, admin_page: Page) -> None:
    bud.open(admin_page, "metrics?project=Default&live=true&window=15m")
    fact = StoredFact(
        request_id=ids.new_id("req"),
        started_unix_s=clock.unix_s(),
        endpoint="/v1/completions",
        project_id="prj_default",
        model="brand-new-model",
        error_class="upstream_error",
        error_message="It broke.",
        status=502,
    )
    segments.write(bud.data_dir, ids.new_id("seg"), [fact])
    expect(admin_page.get_by_text("What got no answer")).to_be_visible(timeout=20_000)


def _no_sideways_scroll(page: Page) -> None:
    wider = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider <= 0, f"the page is {wider} px wider than the screen"
