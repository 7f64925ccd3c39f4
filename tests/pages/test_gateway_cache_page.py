"""Kept answers, hedges and shadows on the Gateway page, against a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from core.accounts import api_keys
from core.deployments.schemas import DeploymentView
from core.metrics import services as metrics
from core.metrics.schemas import Filters, Window
from core.response_cache import services as cache
from core.routing import rules
from tests.browsing import PAGE_TIMEOUT_MS, Bud, choose, looks, wait_for

expect.set_options(timeout=PAGE_TIMEOUT_MS)

Running = Callable[..., DeploymentView]
PROJECT = "project=test_gateway_cache_page"


def _looks(page: Page, name: str) -> None:
    for width, height in ((390, 844), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)  # the page finds its new place
        looks(page, name)


def test_answers_are_kept_purged_and_copied_to_another_model(
    bud: Bud, admin_page: Page, project_id: str, running: Running
) -> None:
    page = admin_page
    running("large")
    running("large-next")
    secret = api_keys.playground_key(bud.actor, project_id).reveal()

    def ask(**fields: Any) -> httpx.Response:
        return httpx.post(
            f"{bud.gateway_url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {secret}"},
            json={"model": "large", "max_tokens": 2, "temperature": 0,
                  "messages": [{"role": "user", "content": "Hi"}]} | fields,
            timeout=30, verify=False,
        )  # fmt: skip

    wait_for("large answers", lambda: ask().status_code == 200)
    bud.open(page, f"gateway?view=Cache&{PROJECT}")
    expect(page.get_by_text("No answer is kept")).to_be_visible()
    page.get_by_text("Keep answers", exact=True).click()
    seconds = page.get_by_role("spinbutton", name="Given again for (s)")
    save = page.get_by_role("button", name="Save", exact=True)
    seconds.fill("-1")
    save.click()
    expect(page.get_by_role("alert").filter(has_text="-1 is out of range")).to_contain_text(
        "Give 1 to 2,592,000"
    )
    seconds.fill("3600")
    save.click()
    expect(page.get_by_text("Saved. The gateway follows")).to_be_visible()
    expect(page.get_by_text("given again for 1 h")).to_be_visible()
    wait_for("it is kept", lambda: ask().headers.get("X-Bud-Cache") == "hit")

    def seen() -> int:
        return metrics.cache_numbers(bud.actor, project_id, Window.preset("24h")).hits

    def kept() -> int | None:
        view = cache.get_cache(bud.actor, project_id)
        return view and view.answers

    wait_for("the hit is counted", lambda: seen() > 0)
    # The page shows what the gateway said when it was opened.
    wait_for("the gateway says what it keeps", lambda: kept() == 1)
    page.reload()
    tile = page.get_by_test_id("stMetric").filter(has_text="Kept now")
    expect(tile).to_contain_text("1")
    _looks(page, "gateway-cache")
    page.get_by_role("button", name="Purge …").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("textbox", name="Name").fill("test_gateway_cache_page")
    dialog.get_by_role("button", name="Purge", exact=True).click()
    expect(dialog).to_be_hidden()
    wait_for("it is gone", lambda: ask().headers.get("X-Bud-Cache") == "miss")
    cache.turn_off(bud.actor, project_id)

    bud.open(page, f"gateway?route=large&part=Edit&{PROJECT}")
    page.get_by_text("Late answers, shadow traffic, kept answers").click()
    page.get_by_role("radio", name="delay").click()
    choose(page, "Copies of requests go to", "large-next")
    expect(page.get_by_text("+ hedge after: 500 ms")).to_be_visible()
    expect(page.get_by_text("+ shadow to: large-next")).to_be_visible()
    _looks(page, "gateway-edit-more")
    share = page.get_by_role("spinbutton", name="Of its requests (%)")
    share.fill("100")
    share.press("Enter")
    expect(page.get_by_text("+ shadowed: 100 %")).to_be_visible()
    page.get_by_role("button", name="Publish version").click()
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()
    published = rules.current(bud.actor, project_id, "large")
    assert (published.hedge_after_ms, published.shadow) == (500.0, "large-next")

    def copied() -> int:
        assert ask().status_code == 200
        window, only = Window.preset("1h"), Filters(traffic="shadow")
        return metrics.summary(bud.actor, project_id, window, only).requests

    wait_for("a copy is counted", lambda: copied() > 0)
    bud.open(page, f"metrics?traffic=Shadow+copies&{PROJECT}")
    expect(page.get_by_text("Shadow copies alone")).to_be_visible()
    _looks(page, "metrics-shadow")
