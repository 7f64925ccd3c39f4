"""Projects in a browser: an admin turns the keeping of prompts on and off."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from core.accounts import services as accounts
from core.captures import services as captures
from tests.browsing import PAGE_TIMEOUT_MS, Bud, settle, wait_for

PROJECT = accounts.DEFAULT_PROJECT_ID

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)


def _kept_days(bud: Bud) -> int | None:
    found = captures.get_capture(bud.actor, PROJECT)
    return found.keep_days if found is not None and found.enabled else None


def test_prompts_are_kept_when_an_admin_says_so(admin_page: Page, bud: Bud) -> None:
    page = admin_page
    bud.open(page, "projects")
    expect(page.get_by_role("heading", name="Prompts and answers")).to_be_visible()
    assert captures.get_capture(bud.actor, PROJECT) is None
    days = page.get_by_role("spinbutton", name="Days until they are deleted")
    days.fill("366")
    page.get_by_text("Keep prompts and answers").click()
    page.get_by_role("button", name="Save").click()
    refused = page.get_by_role("alert").filter(has_text="Days until they are deleted:")
    expect(refused).to_contain_text("366 is out of range")
    assert captures.get_capture(bud.actor, PROJECT) is None
    days.fill("3")
    page.get_by_role("button", name="Save").click()
    wait_for("it is on", lambda: _kept_days(bud) == 3)
    expect(page.get_by_text("Saved: prompts and answers are kept.")).to_be_visible()
    settle(page)
    # Off is off, also beside a number that is refused.
    page.get_by_text("Keep prompts and answers").click()
    days.fill("-1")
    page.get_by_role("button", name="Save").click()
    expect(refused).to_contain_text("-1 is out of range")
    assert _kept_days(bud) is None
    days.fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: nothing is kept from now.")).to_be_visible()
    found = captures.get_capture(bud.actor, PROJECT)
    assert found is not None
    assert (found.enabled, found.keep_days) == (False, 2)


def test_a_member_is_not_asked(member_page: Page, bud: Bud) -> None:
    bud.open(member_page, "projects")
    expect(member_page.get_by_role("heading", name="Projects")).to_be_visible()
    expect(member_page.get_by_text("Prompts and answers")).to_have_count(0)
