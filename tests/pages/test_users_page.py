"""Users and Projects in a browser: one-time passwords, roles, the last admin."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.accounts import services as accounts
from core.projects import services as projects
from tests.browsing import EMAIL, Bud, looks, select_row, settle, shot, wait_for


def _select(page: Page, name: str, row: int) -> None:
    select_row(page, row, page.get_by_role("heading", name=name))


def _row_of(bud: Bud, email: str) -> int:
    return [user.email for user in accounts.list_users(bud.actor)].index(email)


def test_add_reset_disable_enable(bud: Bud, admin_page: Page) -> None:
    # First in the alphabet: the people of other files would push the row out of the table's view.
    page = admin_page
    bud.open(page, "users")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("E-mail").fill("aaron@example.org")
    dialog.get_by_label("Name").fill("Aaron")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("shown once")).to_be_visible()
    one_time = dialog.get_by_test_id("stCode").inner_text().strip()
    assert accounts.log_in("aaron@example.org", accounts.Secret(one_time), "x").must_change_password
    shot(page, "users-added")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    settle(page)

    _select(page, "Aaron", _row_of(bud, "aaron@example.org"))
    page.get_by_role("button", name="Reset password").click()
    expect(page.get_by_text("shown once")).to_be_visible()
    again = page.get_by_test_id("stCode").first.inner_text().strip()
    assert again != one_time
    assert accounts.log_in("aaron@example.org", accounts.Secret(again), "x").must_change_password

    page.get_by_role("button", name="Disable …").click()
    disable = page.get_by_role("dialog").get_by_role("button", name="Disable", exact=True)
    page.get_by_role("dialog").get_by_label("Name").fill("aaron@example.org")
    disable.click()
    expect(page.get_by_role("button", name="Enable", exact=True)).to_be_visible()
    user = next(u for u in accounts.list_users(bud.actor) if u.email == "aaron@example.org")
    assert not user.enabled
    page.get_by_role("button", name="Enable", exact=True).click()
    expect(page.get_by_role("button", name="Disable …")).to_be_visible()


def test_the_last_admin_cannot_be_demoted(bud: Bud, admin_page: Page) -> None:
    for user in accounts.list_users(bud.actor):
        # Tests of other files share the dashboard, and may have left an admin or demo people.
        if user.role == "admin" and not user.demo and user.email != EMAIL:
            accounts.set_role(bud.actor, user.id, "member")
    bud.open(admin_page, "users")
    _select(admin_page, "Admin", _row_of(bud, EMAIL))
    admin_page.get_by_role("button", name="Make member").click()
    expect(admin_page.get_by_role("alert")).to_contain_text("last admin")


def test_a_member_sees_neither_people_nor_other_projects(bud: Bud, page: Page) -> None:
    projects.create_project(bud.actor, "Secret plans")
    bud.log_in_as_new(page, "member@example.org")
    bud.open(page, "users")
    expect(page.get_by_text("Only admins see this page")).to_be_visible()
    expect(page.get_by_role("button", name="Add user")).to_have_count(0)
    bud.open(page, "projects?project=Secret+plans")
    expect(page.get_by_role("button", name="New project")).to_have_count(0)
    expect(page.get_by_text("Secret plans")).to_have_count(0)
    expect(page.get_by_text("Default").first).to_be_visible()


def test_a_project_is_made_chosen_and_gets_a_member(bud: Bud, admin_page: Page) -> None:
    page = admin_page
    user = accounts.add_user(bud.actor, "carl@example.org").user
    bud.open(page, "projects")
    page.get_by_role("button", name="New project").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Research")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    settle(page)

    page.get_by_role("combobox", name="Project").click()
    page.get_by_role("option", name="Research").click()
    expect(page).to_have_url(re.compile("project=Research"))
    expect(page.get_by_role("heading", name="Who works in Research")).to_be_visible()
    settle(page)
    page.get_by_role("radiogroup", name=f"Role of {user.email}").get_by_text("member").click()
    research = projects.get_project(bud.actor, "Research")

    def role() -> str | None:
        return accounts.get_user(bud.actor, user.id).projects.get(research.id)

    wait_for("they are a member", lambda: role() == "member")

    page.get_by_role("link", name="Users").click()
    expect(page.get_by_role("heading", name="Users", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(r"/users\?.*project=Research"))
    expect(page.get_by_role("combobox", name="Project")).to_have_value("Research")
    bud.open(page, "users")
    expect(page).to_have_url(re.compile(r"/users\?project=Research"))


@pytest.mark.parametrize("width", [1440, 390])
def test_how_they_look(bud: Bud, tab: Callable[..., Page], width: int) -> None:
    page = tab(width)
    bud.log_in_as_admin(page)
    for name in ("users", "projects"):
        bud.open(page, name)
        expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
        looks(page, name)
    if width < 640:
        _navigation_makes_way(page)


def _navigation_makes_way(page: Page) -> None:
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    expect(page.get_by_test_id("stExpandSidebarButton")).to_be_visible()
