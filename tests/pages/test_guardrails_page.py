"""The Guardrails page in a browser: one is made, tried, enforced at the gateway, and counted."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from core.accounts import api_keys
from core.contracts.guardrails import GuardrailResult
from core.guardrails import services as guardrails
from core.kernel import clock, ids
from core.metrics import segments
from core.metrics import services as metrics
from core.metrics.schemas import StoredFact, Window
from tests.browsing import PAGE_TIMEOUT_MS, Bud, choose, looks, select_row, settle, shot, wait_for

expect.set_options(timeout=PAGE_TIMEOUT_MS)
TEXT = "Pay with 4111 1111 1111 1111 and write to ada@example.org."


def _counted(bud: Bud, project_id: str, outcome: Any) -> None:
    import msgspec

    result = GuardrailResult(rule="no-cards", side="input", outcome=outcome, ms=0.4)
    fact = StoredFact(
        request_id=ids.new_id("req"), started_unix_s=clock.unix_s() - 60,
        endpoint="chat.completions", project_id=project_id, model="chat", status=200,
        guardrails=msgspec.json.encode([result]).decode(),
    )  # fmt: skip
    segments.write(bud.data_dir, ids.new_id("seg"), [fact])


def _asked(bud: Bud, secret: str) -> str:
    body = {"model": "large", "messages": [{"role": "user", "content": TEXT}]}
    answer = httpx.post(
        f"{bud.gateway_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {secret}"}, json=body, timeout=30, verify=False,
    )  # fmt: skip
    return str(answer.json().get("error", {}).get("code"))


def _looks(page: Page, name: str) -> None:
    for width, height in ((390, 844), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)  # the page finds its new place
        looks(page, name)


def test_one_is_made_tried_enforced_and_counted(
    bud: Bud, admin_page: Page, project_id: str, running: Any
) -> None:
    page = admin_page
    running("large")
    secret = api_keys.playground_key(bud.actor, project_id).reveal()
    bud.open(page, "guardrails?project=test_guardrails_page")
    expect(page.get_by_text("No guardrail yet")).to_be_visible()
    shot(page, "guardrails-empty-1440-light")
    page.get_by_role("button", name="New guardrail").first.click()
    dialog = page.get_by_test_id("stDialog")
    name = dialog.get_by_role("textbox", name="Name")
    name.fill("no-cards")
    name.press("Enter")
    expect(dialog.get_by_text("Names have none")).to_be_visible()
    choose(page, "What of it", "payment cards")
    page.keyboard.press("Tab")  # the list closes
    _looks(page, "guardrails-new")
    dialog.get_by_role("button", name="Set the guardrail").click()
    expect(dialog).to_have_count(0)
    (made,) = guardrails.list_guardrails(bud.actor, project_id)
    assert (made.kind, made.mode, made.settings) == ("pii", "report", {"entities": ["card"]})

    for outcome in ("reported", "passed", "let_through"):
        _counted(bud, project_id, outcome)
    day = Window.preset("24h")
    wait_for("counted", lambda: len(metrics.guardrail_counts(bud.actor, project_id, day)) == 3)
    page.reload()
    settle(page)
    reported = page.get_by_test_id("stMetric").filter(has_text="Reported")
    expect(reported).to_contain_text("1")
    enforce = page.get_by_role("radio", name="Enforce")
    select_row(page, 0, enforce)
    _looks(page, "guardrails-list")
    enforce.click()
    wait_for(
        "it is enforced",
        lambda: guardrails.list_guardrails(bud.actor, project_id)[0].mode == "enforce",
    )
    wait_for("the gateway refuses", lambda: _asked(bud, secret) == "guardrail_blocked")

    page.get_by_role("radio", name="Try a text").click()
    text = page.get_by_role("textbox", name="Text")
    text.fill(TEXT)
    text.press("Control+Enter")
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    expect(page).to_have_url(re.compile("view=Try"))
    _looks(page, "guardrails-try")
    guardrails.delete_guardrail(bud.actor, made.id)
