"""How soon the pages of models show their first content in a browser: `bud bench pages`."""

from __future__ import annotations

import json as json_module
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browsing import EMAIL, PASSWORD, Bud, launch, settle

_MUST_BE_UNDER_MS = 2_000
_ASKED = 5
# An e-mail address and a password, typed by somebody who types fast, or filled in by a manager of
# passwords that was unlocked first.
_TYPING_S = 3.0
_TABLE = '[data-testid="stDataFrame"] canvas'
# A page with the first thing on it that answers what people come for, not its frame.
_PAGES = {
    "Models": ("models", _TABLE),
    "Model": ("model?id=qwen/qwen3-8b", _TABLE),
    "Compare": ("compare?models=qwen/qwen3-8b&models=qwen/qwen3-14b", _TABLE),
    "Leaderboards": ("leaderboards", "text=is the best of"),
    "Licences": ("licences", _TABLE),
}


def run(json: bool = False) -> dict[str, Any]:
    """Measure on a throw-away data folder; prints the figures and gives them back.

    Of each page three: the first page that anybody opens of a dashboard that was just started, by
    somebody who logs in as fast as a person can (`first`); the same by somebody who is logged in
    already, so that nothing was loaded ahead (`unannounced`); and the page for somebody who comes
    back to it, in a window that has the dashboard cached.
    """
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bud-bench-") as folder, sync_playwright() as started:
        bud = Bud(Path(folder) / "bud")
        bud.data_dir.mkdir()
        bud.set_up()
        browser = launch(started)
        for name, (path, shown) in _PAGES.items():
            figures |= _measure(bud, browser, name, path, shown)
        browser.close()
    figures["must_be_under_ms"] = _MUST_BE_UNDER_MS
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:>12,}")
    return figures


def _measure(bud: Bud, browser: Browser, name: str, path: str, shown: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cookies: list[Any] = []
    for visit in ("first", "unannounced"):
        bud.start_app()
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        try:
            if visit == "first":
                _log_in_as_a_person(bud, page)
            else:
                page.context.add_cookies(cookies)
            server = psutil.Process(bud.pid("app"))
            before_cpu_s = _cpu_s(server)
            found[f"{name}_{visit}_ms"] = _first_content_ms(page, bud, path, shown)
            cpu_ms = round((_cpu_s(server) - before_cpu_s) * 1000)
            found[f"{name}_{visit}_server_cpu_ms"] = cpu_ms
            later_ms = [_first_content_ms(page, bud, path, shown) for _ in range(_ASKED)]
            cookies = page.context.cookies()
            page.context.close()
        finally:
            bud.stop("app")
    return found | {
        f"{name}_p50_ms": round(statistics.median(later_ms)),
        f"{name}_worst_ms": max(later_ms),
    }


def _log_in_as_a_person(bud: Bud, page: Page) -> None:
    """Until the page behind it is there; a person types for a while."""
    page.goto(f"{bud.url}/auth/login")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    time.sleep(_TYPING_S)
    page.get_by_role("button", name="Log in").click()
    settle(page)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _first_content_ms(page: Page, bud: Bud, path: str, shown: str) -> int:
    page.goto("about:blank")
    started_s = time.perf_counter()
    page.goto(f"{bud.url}/{path}", wait_until="commit")
    content = page.get_by_test_id("stMainBlockContainer").locator(shown)
    expect(content.first).to_be_visible(timeout=90_000)
    return round((time.perf_counter() - started_s) * 1000)


if __name__ == "__main__":
    run()
