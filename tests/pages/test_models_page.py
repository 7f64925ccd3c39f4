"""The Models page says what the starter model's file says."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect

from tests.browsing import PAGE_TIMEOUT_MS, Bud, shot

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)


def test_the_starter_model_and_its_facts(admin_page: Page, bud: Bud) -> None:
    page = admin_page
    bud.open(page, "models")
    facts = page.locator(".st-key-model-facts")
    for value in ("llama", "8,192 tokens", "93.8 MiB", "apache-2.0"):
        expect(facts.get_by_text(value, exact=True).first).to_be_visible()
    shot(page, "models-1440-light")
    page.get_by_label("Search", exact=True).first.fill("no such model")
    expect(page.get_by_text("Nothing matches")).to_be_visible()


def test_a_path_that_is_not_there_is_refused_with_a_remedy(admin_page: Page, bud: Bud) -> None:
    page = admin_page
    bud.open(page, "models")
    page.get_by_role("button", name="Add model").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("textbox", name="Path").fill("/nowhere/model.gguf")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("There is nothing at /nowhere/model.gguf")).to_be_visible()
    expect(dialog.get_by_text("What to do:")).to_be_visible()


def test_it_fits_a_phone(window: Callable[..., BrowserContext], bud: Bud) -> None:
    page = window(390, dark=True).new_page()
    bud.log_in_as_admin(page)
    bud.open(page, "models")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "models-390-dark")
