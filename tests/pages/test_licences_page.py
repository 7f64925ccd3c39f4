"""The Licences page: verdicts for a stated use, answers with their quotations, a pasted text."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from playwright.sync_api import Page, expect

from core.registry import licences
from tests.browsing import PAGE_TIMEOUT_MS, Bud, select_row, settle, shot

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)
CHAT = quote("Commercial chat product, 10 M users")


def test_from_the_list_to_the_words_of_an_answer(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, f"licences?for={CHAT}&words=llama+3.1")
    expect(page.get_by_text("This is no legal advice")).to_be_visible()
    expect(page.get_by_text("1 row", exact=True)).to_be_visible()
    select_row(page, 0, page.locator(".st-key-licence-verdict"))
    verdict = page.locator(".st-key-licence-verdict")
    expect(verdict.get_by_text("conditional")).to_be_visible()
    expect(verdict.get_by_text("prominently display “Built with Llama”")).to_be_visible()
    users = page.locator(".st-key-answer-user_threshold")
    expect(users.get_by_text("greater than 700 million monthly active users")).to_be_visible()
    users.get_by_role("button", name="In the text").click()
    expect(page.locator("mark")).to_have_text(
        licences.answers("llama-3.1-license-2024")["user_threshold"].quotation
    )


def test_a_use_of_ones_own_is_judged(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, "licences?id=qwen-2024&for=Another+use&users=200000000")
    verdict = page.locator(".st-key-licence-verdict")
    expect(verdict.get_by_text("Not allowed")).to_be_visible()
    bud.open(page, "licences?id=qwen-2024&for=Another+use&users=2000000")
    expect(verdict.get_by_text("Not allowed")).to_be_hidden()
    bud.open(page, "licences?id=hai-def")
    expect(verdict.get_by_text("needs review", exact=False).first).to_be_visible()


def test_licences_are_compared(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, "licences?do=Compare")
    table = page.get_by_test_id("stTable")
    expect(table.get_by_text("User limit", exact=True)).to_be_visible()
    expect(table.get_by_text("Rate limits", exact=True)).to_be_hidden()
    shot(page, "licences-compare-1440-light")


def test_a_pasted_text_is_identified(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, f"licences?do={quote('Identify a text')}")
    page.get_by_label("Licence text").fill(licences.text("mit") + "\nNot for military use.\n")
    page.get_by_role("button", name="Identify", exact=True).click()
    expect(page.get_by_text("This is built on the MIT License")).to_be_visible()
    expect(
        page.get_by_test_id("stExpanderDetails").get_by_text("not for military use")
    ).to_be_visible()
    page.get_by_role("button", name="Open the licence").click()
    settle(page)
    expect(
        page.locator(".st-key-licence-facts").get_by_text("mit", exact=True).first
    ).to_be_visible()


def test_it_fits_a_phone(tab: Callable[..., Page], bud: Bud, project_id: str) -> None:
    page = tab(390, dark=True)
    bud.log_in_as_new(page, "licences-phone@example.org", project_id)
    bud.open(page, f"licences?id=llama-4-cla-2025&for={CHAT}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "licences-390-dark")
