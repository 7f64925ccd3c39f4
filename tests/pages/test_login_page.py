"""The log-in, in a browser: what keeps a session, what ends it, and how soon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.accounts import services as accounts
from tests.browsing import EMAIL, PAGE_TIMEOUT_MS, PASSWORD, Bud, looks, settle
from tests.machine import slowness

ENDED_WITHIN_S = 5.0


@pytest.fixture
def logged_in(bud: Bud, page: Page) -> Page:
    """A tab in which the admin used the form."""
    bud.log_in(page)
    settle(page)
    return page


def _tab_on_projects(bud: Bud, page: Page, email: str) -> str:
    user_id = bud.log_in_as_new(page, email)
    bud.open(page, "projects")
    return user_id


def test_a_page_leads_to_the_log_in_and_back(bud: Bud, page: Page) -> None:
    page.goto(f"{bud.url}/projects?project=Default")
    expect(page).to_have_url(re.compile(r"/auth/login\?next="))
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("e-mail address or the password is wrong")
    expect(page.get_by_label("E-mail")).to_have_value(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    settle(page)
    assert page.url.startswith(f"{bud.url}/projects")
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()


def test_reload_second_tab_and_app_restart_keep_the_session(bud: Bud, logged_in: Page) -> None:
    logged_in.reload()
    settle(logged_in)
    second = logged_in.context.new_page()
    bud.open(second, "users")
    expect(second.get_by_role("heading", name="Users", exact=True)).to_be_visible()
    second.close()
    bud.stop("app")
    bud.start_app()
    bud.open(logged_in, "users")
    expect(logged_in.get_by_role("heading", name="Users", exact=True)).to_be_visible()


def test_the_cookie_is_out_of_a_scripts_reach(bud: Bud, logged_in: Page) -> None:
    cookie = next(c for c in logged_in.context.cookies() if c["name"] == "bud_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert "bud_session" not in logged_in.evaluate("document.cookie")


@pytest.mark.parametrize("how", ["revoked", "disabled"])
def test_a_session_that_ends_closes_an_open_tab(bud: Bud, page: Page, how: str) -> None:
    user_id = _tab_on_projects(bud, page, f"{how}@example.org")
    ended = time.monotonic()
    if how == "revoked":
        accounts.revoke_sessions(bud.actor, user_id)
    else:
        accounts.set_user_enabled(bud.actor, user_id, False)
    page.wait_for_url(re.compile(r"/auth/login\?next=%2Fprojects"))
    took_s = time.monotonic() - ended
    assert took_s <= ENDED_WITHIN_S * slowness(), f"the tab stayed open for {took_s:.1f} s"


def test_log_out_ends_every_tab(bud: Bud, logged_in: Page) -> None:
    other = logged_in.context.new_page()
    bud.open(other, "projects")
    logged_in.get_by_role("button", name="Admin", exact=False).first.click()
    logged_in.get_by_role("button", name="Log out").click()
    logged_in.wait_for_url("**/auth/login**")
    other.wait_for_url("**/auth/login**", timeout=ENDED_WITHIN_S * slowness() * 1000)
    other.goto(f"{bud.url}/users")
    expect(other.get_by_role("button", name="Log in")).to_be_visible()


def test_new_rights_show_without_a_reload(bud: Bud, page: Page) -> None:
    user_id = _tab_on_projects(bud, page, "promoted@example.org")
    expect(page.get_by_role("button", name="New project")).to_have_count(0)
    accounts.set_role(bud.actor, user_id, "admin")
    expect(page.get_by_role("button", name="New project")).to_be_visible()


def test_a_one_time_password_must_be_changed(bud: Bud, page: Page) -> None:
    new = accounts.add_user(bud.actor, "newcomer@example.org")
    bud.log_in(page, new.user.email, new.one_time_password.reveal())
    expect(page.get_by_role("heading", name="Choose a new password")).to_be_visible()
    page.goto(f"{bud.url}/projects")
    expect(page.get_by_role("heading", name="Choose a new password")).to_be_visible()
    page.get_by_label("Present password").fill(new.one_time_password.reveal())
    page.get_by_label("New password", exact=True).fill("my own long password")
    page.get_by_label("New password again").fill("another long password")
    page.get_by_role("button", name="Save and go on").click()
    expect(page.get_by_role("alert")).to_contain_text("differ")
    page.get_by_label("Present password").fill(new.one_time_password.reveal())
    page.get_by_label("New password", exact=True).fill("my own long password")
    page.get_by_label("New password again").fill("my own long password")
    page.get_by_role("button", name="Save and go on").click()
    settle(page)
    assert page.url.startswith(f"{bud.url}/projects")


@pytest.mark.parametrize("width", [1440, 390])
def test_how_it_looks(bud: Bud, tab: Callable[..., Page], width: int) -> None:
    page = tab(width)
    page.goto(f"{bud.url}/auth/login")
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    looks(page, "login")
