"""The Gateway page in a browser: routes and their versions, limits, refusals, and a try.

The model servers are the double's; the gateway is real.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from core.access import services as access
from core.accounts import api_keys
from core.contracts import gateway_state
from core.deployments.schemas import DeploymentView
from core.kernel import clock, ids
from core.limits import services as limits
from core.metrics import segments
from core.metrics import services as metrics
from core.metrics.schemas import StoredFact, Window
from core.projects import services as projects
from core.routing import live, rules
from core.routing.schemas import Rules, TargetRule
from tests.browsing import PAGE_TIMEOUT_MS, Bud, choose, looks, select_row, settle, shot, wait_for
from tests.machine import needs

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

Running = Callable[..., DeploymentView]
WIDTHS = (1440, 390)
PROJECT = "project=test_gateway_page"


def _canary(share: float) -> Rules:
    return Rules(
        targets=(
            TargetRule(model="large", weight=100 - share),
            TargetRule(model="large-next", weight=share),
        )
    )


@pytest.fixture
def chat(bud: Bud, project_id: str, running: Running) -> str:
    """A route `chat` over two deployments that answer; a key of its project."""
    running("large", replicas=2)
    running("large-next")
    rules.set_rules(bud.actor, project_id, "chat", _canary(10))
    # The same one each time: a new key would have to reach the gateway first.
    secret = api_keys.playground_key(bud.actor, project_id).reveal()
    wait_for("chat answers", lambda: _ask(bud, secret, "chat") == 200)
    return secret


def _ask(bud: Bud, secret: str, model: str) -> int:
    request = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(
        f"{bud.gateway_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {secret}"},
        json=request,
        timeout=30,
        verify=False,
    ).status_code


def _sent(bud: Bud, project_id: str) -> int:
    return live.get_route(bud.actor, project_id, "chat").requests


def _looks(page: Page, name: str) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900 if width > 640 else 844})
        page.wait_for_timeout(200)  # the page finds its new place
        looks(page, name)
    page.set_viewport_size({"width": 1440, "height": 900})


def test_routes_are_seen_live_and_a_stopped_gateway_is_said(
    bud: Bud, member_page: Page, project_id: str, chat: str
) -> None:
    page = member_page
    bud.open(page, "gateway")
    expect(page.get_by_role("button", name="chat")).to_be_visible()
    expect(page.get_by_text("large 90.0% · large-next 10.0%")).to_be_visible()
    expect(page.get_by_test_id("stMetric").filter(has_text="Replicas up")).to_contain_text("3 of 3")
    sent = live.get_route(bud.actor, project_id, "chat").requests
    for _ in range(4):
        assert _ask(bud, chat, "chat") == 200
    wait_for("it is heard of", lambda: _sent(bud, project_id) >= sent + 4)
    # Polled: no reload.
    expect(page.get_by_text(f"{_sent(bud, project_id)} sent, 0 failed")).to_be_visible()
    _looks(page, "gateway-routes")
    page.get_by_role("button", name="chat").click()
    expect(page.get_by_role("heading", name="chat")).to_be_visible()
    expect(page.get_by_text("target: large-next × 10")).to_be_visible()
    expect(page).to_have_url(re.compile("route=chat"))
    shot(page, "gateway-route-1440-light")

    bud.stop("gateway")
    try:
        wait_for("no worker", lambda: not gateway_state.read(bud.data_dir, clock.unix_s()))
        expect(page.get_by_text("No gateway worker was heard of")).to_be_visible()
        in_flight = page.get_by_test_id("stMetric").filter(has_text="In flight")
        expect(in_flight).to_contain_text("—")
        page.get_by_role("button", name="All routes").click()
        expect(page.get_by_text("live figures —").first).to_be_visible()
        shot(page, "gateway-stopped-1440-light")
    finally:
        bud.start_gateway()


def test_a_change_is_shown_before_it_is_published_and_taken_back(
    bud: Bud, member_page: Page, project_id: str, chat: str
) -> None:
    page = member_page
    begun = rules.history(bud.actor, project_id, "chat")[0]
    bud.open(page, "gateway?route=chat&part=Edit")
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()
    weight = page.get_by_role("spinbutton", name="Weight of large-next")
    weight.fill("33")
    weight.press("Enter")
    page.get_by_role("button", name="Discard what I entered").click()
    expect(weight).to_have_value("10")
    weight.fill("50")
    weight.press("Enter")
    publish = page.get_by_role("button", name=f"Publish version {begun.version + 1}")
    expect(publish).to_be_visible()
    expect(page.get_by_text("+ target: large-next × 50")).to_be_visible()
    expect(page.get_by_text("- target: large-next × 10")).to_be_visible()
    total = page.get_by_role("spinbutton", name="Total (s)")
    for field, bad, told in (
        (weight, "-7", "Weight of large-next: -7 is out of range"),
        (total, "-3", r"Total \(s\): -3 is out of range.*Give 0.1 to 86,400"),
    ):
        good = field.input_value()
        field.fill(bad)
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(re.compile(told, re.DOTALL))
        expect(publish).to_be_disabled()
        field.fill(good or "30")
        field.press("Enter")
        expect(publish).to_be_enabled()
    expect(page.get_by_text("+ total: 30 s")).to_be_visible()
    _looks(page, "gateway-edit")
    # What was entered outlives a look elsewhere.
    page.get_by_role("radio", name="Now").click()
    expect(page.get_by_role("heading", name="Replicas")).to_be_visible()
    page.get_by_role("radio", name="Edit").click()
    expect(total).to_have_value("30")
    expect(page.get_by_text("+ target: large-next × 50")).to_be_visible()

    # Somebody else publishes meanwhile: their change is told, and nothing is lost.
    rules.set_rules(bud.actor, project_id, "chat", _canary(20))
    publish.click()
    expect(page.get_by_text("was published by Bud")).to_be_visible()
    expect(page.get_by_text("+ target: large-next × 20")).to_be_visible()
    assert rules.current(bud.actor, project_id, "chat") == _canary(20)
    shot(page, "gateway-overtaken-1440-light")
    page.get_by_role("button", name="Keep what I entered").click()
    expect(page.get_by_text("- target: large-next × 20")).to_be_visible()
    page.get_by_role("button", name=f"Publish version {begun.version + 2}").click()
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()
    published = rules.current(bud.actor, project_id, "chat")
    assert published.total_s == 30
    assert [target.weight for target in published.targets] == [90, 50]

    page.get_by_role("radio", name="History").click()
    newest = page.get_by_text(f"Version {begun.version + 2}", exact=True)
    expect(newest).to_be_visible()
    shot(page, "gateway-history-1440-light")
    page.get_by_role("button", name="Roll back to this").first.click()
    expect(page.get_by_text(f"Version {begun.version + 3}", exact=True)).to_be_visible()
    assert rules.current(bud.actor, project_id, "chat") == _canary(20)


def test_a_route_is_made_removed_and_brought_back(
    bud: Bud, member_page: Page, project_id: str, chat: str
) -> None:
    page = member_page
    bud.open(page, "gateway")
    page.get_by_role("button", name="New route").click()
    dialog = page.get_by_test_id("stDialog")
    name = dialog.get_by_role("textbox", name="Name")
    name.fill("large")
    name.press("Enter")
    choose(page, "Targets", "large-next")
    page.keyboard.press("Tab")
    expect(dialog.get_by_text("large is the name of a deployment")).to_be_visible()
    publish = dialog.get_by_role("button", name="Publish version 1")
    expect(publish).to_be_disabled()
    name.fill("backup")
    name.press("Enter")
    expect(publish).to_be_enabled()
    shot(page, "gateway-new-1440-light")
    publish.click()
    expect(page.get_by_role("heading", name="backup")).to_be_visible()
    made = live.get_route(bud.actor, project_id, "backup")
    assert [target.model for target in made.targets] == ["large-next"]

    page.get_by_role("button", name="Remove …").click()
    dialog.get_by_role("textbox", name="Name").fill("backup")
    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("backup is no route now")).to_be_visible()
    page.get_by_role("button", name="Roll back to this").first.click()
    expect(page.get_by_role("button", name="Remove …")).to_be_visible()
    assert live.get_route(bud.actor, project_id, "backup").targets == made.targets


def test_limits_show_what_is_used_and_are_changed(
    bud: Bud, admin_page: Page, project_id: str, chat: str
) -> None:
    page = admin_page
    for known in limits.list_limits(bud.actor, project_id):
        limits.delete_limit(bud.actor, known.id)
    bud.open(page, f"gateway?{PROJECT}&view=Limits")
    expect(page.get_by_text("No limit yet")).to_be_visible()
    page.get_by_role("button", name="New limit").click()
    dialog = page.get_by_test_id("stDialog")
    amount = dialog.get_by_role("spinbutton", name="At most (requests per minute)")
    dialog.get_by_role("button", name="Set the limit").click()
    expect(dialog.get_by_role("alert")).to_contain_text("At most (requests per minute)” is empty")
    for refused, why in (("-5", "between 0 and"), ("2.5", "a whole number")):
        amount.fill(refused)
        dialog.get_by_role("button", name="Set the limit").click()
        expect(dialog.get_by_role("alert")).to_contain_text(why)
    amount.fill("7")
    dialog.get_by_role("button", name="Set the limit").click()
    expect(dialog).to_have_count(0)
    assert [limit.amount for limit in limits.list_limits(bud.actor, project_id)] == [7]
    page.get_by_role("button", name="New limit").click()
    expect(dialog.get_by_text("There is one already: 7 requests per minute")).to_be_visible()
    amount.fill("5")
    dialog.get_by_role("button", name="Replace the limit").click()
    expect(dialog).to_have_count(0)
    assert [limit.amount for limit in limits.list_limits(bud.actor, project_id)] == [5]

    wait_for("the limit refuses", lambda: _ask(bud, chat, "chat") == 429)
    limits.set_limit(bud.actor, project_id, "model", "chat", "usd", "month", 40)
    page.reload()
    settle(page)
    save = page.get_by_role("button", name="Save")
    select_row(page, 1, save)
    expect(page.get_by_text("the whole project: 5 requests per minute")).to_be_visible()
    _looks(page, "gateway-limits")
    amount = page.get_by_role("spinbutton", name="At most (requests per minute)")
    amount.fill("500")
    save.click()
    wait_for(
        "it is changed",
        lambda: 500 in [each.amount for each in limits.list_limits(bud.actor, project_id)],
    )
    for known in limits.list_limits(bud.actor, project_id):
        limits.delete_limit(bud.actor, known.id)


def test_a_blocking_rule_is_made_changed_and_taken_away(
    bud: Bud, admin_page: Page, project_id: str, chat: str
) -> None:
    page = admin_page
    bud.open(page, f"gateway?{PROJECT}&view=Blocking")
    expect(page.get_by_text("No blocking rule")).to_be_visible()
    page.get_by_role("button", name="New rule").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("textbox", name="Name").fill("no-scripts")
    agents = dialog.get_by_role("textbox", name="User agents")
    dialog.get_by_role("button", name="Set the rule").click()
    expect(dialog.get_by_text("without a condition would refuse every request")).to_be_visible()
    _looks(page, "gateway-block-new")
    agents.fill("curl\nHTTPX")
    dialog.get_by_role("button", name="Set the rule").click()
    expect(dialog).to_have_count(0)
    wait_for("it refuses", lambda: _ask(bud, chat, "chat") == 403)
    change = page.get_by_role("button", name="Change …")
    select_row(page, 0, change)
    expect(page.get_by_text("refuses user agents curl or HTTPX")).to_be_visible()
    _looks(page, "gateway-blocks")
    change.click()
    agents.fill("curl")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    wait_for("it lets us in", lambda: _ask(bud, chat, "chat") == 200)
    page.get_by_role("button", name="Delete …").click()
    dialog.get_by_role("textbox", name="Name").fill("no-scripts")
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("No blocking rule")).to_be_visible()
    assert access.list_blocks(bud.actor, project_id) == []


def test_what_was_refused_and_failed_has_its_reason(bud: Bud, page: Page) -> None:
    project_id = projects.create_project(bud.actor, "refusals").id
    bud.log_in_as_new(page, "rea@example.org", project_id)
    first = _fact(bud, project_id, "rate_limited", 429, "The limit key.requests_per_minute of 5 "
                  "requests is reached. Try again in 12 s.")  # fmt: skip
    _fact(bud, project_id, "blocked", 403, "Refused by a rule.", blocked_by="no-scrapers")
    _fact(bud, project_id, "upstream_error", 502, "The server of 'chat' answered 500.")
    week = Window.preset("7d")
    wait_for("all are read in", lambda: len(metrics.errors(bud.actor, project_id, week)) == 3)
    bud.open(page, "")
    notice = page.locator(".st-key-attention")
    expect(notice).to_contain_text("1 request was refused by a limit in 24 h.")
    expect(notice.get_by_text("Nothing needs you now.")).to_have_count(0)
    to_errors = notice.get_by_role("link", name="See which")
    expect(to_errors).to_have_attribute("href", re.compile("gateway.*view=Errors.*within=24h"))
    bud.open(page, "gateway?view=Errors&within=7d")
    refused = page.get_by_test_id("stMetric").filter(has_text="Refused")
    expect(refused).to_contain_text("2")
    failed = page.get_by_test_id("stMetric").filter(has_text="Failed")
    expect(failed).to_contain_text("1")
    _looks(page, "gateway-refused")
    choose(page, "Reason", "Rate limit (429)")
    settle(page)
    expect(page).to_have_url(re.compile("reason=Rate"))
    table = page.get_by_test_id("stDataFrame").nth(1).locator(".dvn-scroller")
    link = page.get_by_role("link", name=f"Request {first} in Metrics")
    table.scroll_into_view_if_needed()
    for _ in range(5):
        table.click(position={"x": 60, "y": 52})
        page.wait_for_timeout(500)
        if link.count():
            break
    link.click()
    expect(page).to_have_url(re.compile(rf"/metrics\?.*request={first}"))
    requests = page.get_by_test_id("stMetric").filter(has_text="Requests").first
    expect(requests).to_contain_text("1")


def _fact(bud: Bud, project_id: str, kind: str, status: int, message: str, **more: Any) -> str:
    fact = StoredFact(
        request_id=ids.new_id("req"),
        started_unix_s=clock.unix_s() - 60,
        endpoint="/v1/chat/completions",
        project_id=project_id,
        model="chat",
        status=status,
        error_class=kind,
        error_message=message,
        **more,
    )
    segments.write(bud.data_dir, ids.new_id("seg"), [fact])
    return fact.request_id


@needs("curl")
def test_a_try_answers_and_its_code_runs_as_it_is_shown(
    bud: Bud, member_page: Page, chat: str, tmp_path: Path
) -> None:
    page = member_page
    bud.open(page, "gateway?route=chat")
    page.get_by_role("button", name="Try it").click()
    body = page.get_by_label("Body (JSON)")
    expect(body).to_have_value(re.compile('"model": "chat"'))
    body.fill('{"model": "chat", }')
    body.press("Control+Enter")
    expect(page.get_by_text("The body is no JSON")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_text("With the body as it was before the mistake")).to_be_visible()
    expect(page.get_by_role("tabpanel").filter(visible=True)).to_contain_text('"model": "chat"')
    body.fill('{"model": "chat", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}')
    body.press("Control+Enter")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("HTTP 200")).to_be_visible()
    expect(page.get_by_text("X-Request-Id: req_")).to_be_visible()
    expect(page.get_by_text("word word")).to_be_visible()
    _looks(page, "gateway-try")
    for language, run in (("curl", ["bash"]), ("Python", [sys.executable])):
        page.get_by_role("tab", name=language).click()
        shown = page.get_by_role("tabpanel").filter(visible=True).locator("code").inner_text()
        script = tmp_path / language
        script.write_text(shown)
        done = subprocess.run(
            [*run, script],
            env=os.environ | {"BUD_API_KEY": chat},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert "word word" in done.stdout, done.stderr


def test_an_admin_sees_what_came_without_a_valid_key(bud: Bud, admin_page: Page) -> None:
    assert _ask(bud, "bud-wrong", "chat") == 401
    bud.open(admin_page, "gateway?view=Errors&keyless=true&live=true")
    refused = admin_page.get_by_test_id("stMetric").filter(has_text="Refused")
    expect(refused).to_contain_text(re.compile("[1-9]"))
    expect(admin_page.get_by_text("No valid key (401)").first).to_be_attached()
