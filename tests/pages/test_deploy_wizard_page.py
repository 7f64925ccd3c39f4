"""The deploy wizard in a browser: bad input, a reload, a draft that waits, a narrow screen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.deployments import drafts
from core.registry import services as registry
from tests.browsing import PAGE_TIMEOUT_MS, Bud, looks, settle

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)


def _at(page: Page, step: str) -> None:
    expect(page.get_by_role("heading", name=step, exact=True)).to_be_visible()
    settle(page)


def _fill(page: Page, label: str, value: str) -> None:
    number = page.get_by_role("spinbutton", name=label)
    number.fill(value)
    number.press("Enter")
    settle(page)


def _next(page: Page) -> None:
    page.get_by_role("button", name="Next").click()
    settle(page)


def test_bad_numbers_get_an_answer_and_nothing_is_lost(
    member_page: Page, bud: Bud, project_id: str
) -> None:
    page = member_page
    draft = drafts.start(bud.actor, project_id, registry.add_starter(bud.actor).id)
    bud.open(page, f"deploy?draft={draft.id}")
    _at(page, "Targets")
    _fill(page, "First token within", "900")
    for bad, why in (
        ("0", "Input tokens: 0 is out of range"),
        ("1000000000", "Input tokens: 1,000,000,000 is out of range"),
    ):
        _fill(page, "Input tokens", bad)
        _next(page)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(why)
        expect(alert).to_contain_text("What to do: Give 1 to 1,000,000")
    expect(page.get_by_role("spinbutton", name="First token within")).to_have_value("900")
    _fill(page, "Input tokens", "64")
    _next(page)
    _at(page, "Options")
    assert drafts.get_draft(bud.actor, draft.id).content.ttft_ms == 900

    page.reload()
    _at(page, "Options")
    page.get_by_role("button", name="Choose", exact=True).first.click()
    _at(page, "Configuration")
    for label, bad, why in (
        ("Slots (requests at once)", "-1", "slots must be between 1 and 64. (got: -1)"),
        ("Context (tokens)", "999999999", "context must be between 256 and 8192"),
    ):
        good = page.get_by_role("spinbutton", name=label).input_value()
        _fill(page, label, bad)
        expect(page.get_by_role("alert")).to_contain_text(why)
        expect(page.get_by_role("button", name="Next")).to_be_disabled()
        _fill(page, label, good)
    _fill(page, "Context (tokens)", "512")
    name = page.get_by_role("textbox", name="Name")
    for bad, why in (("Not A Name", "Write it as not-a-name"), ("", "small letters")):
        name.fill(bad)
        name.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(why)
        expect(page.get_by_role("button", name="Next")).to_be_disabled()
    name.fill("not-a-name")
    name.press("Enter")
    settle(page)
    _next(page)
    _at(page, "Confirm")
    page.get_by_role("button", name="Back").click()
    _at(page, "Configuration")
    expect(page.get_by_role("spinbutton", name="Context (tokens)")).to_have_value("512")


def test_a_draft_waits_and_can_be_cancelled(member_page: Page, bud: Bud, project_id: str) -> None:
    page = member_page
    for draft in drafts.list_drafts(bud.actor, project_id):
        drafts.cancel(bud.actor, draft.id)
    bud.open(page, "models")
    page.get_by_role("button", name="Deploy", exact=True).first.click()
    _at(page, "Model")
    _next(page)
    _at(page, "Targets")
    bud.open(page, "deployments")
    page.get_by_text("Go on with the draft").click()
    _at(page, "Targets")
    page.get_by_role("button", name="Cancel the draft").click()
    expect(page.get_by_role("heading", name="Deployments")).to_be_visible()
    settle(page)
    assert drafts.list_drafts(bud.actor, project_id) == []
    bud.open(page, "deploy?draft=dft_gone")
    expect(page.get_by_text("There is no such draft")).to_be_visible()


def test_another_project_s_draft_is_not_shown(member_page: Page, bud: Bud) -> None:
    other = drafts.start(bud.actor, "prj_default")
    bud.open(member_page, f"deploy?draft={other.id}")
    expect(member_page.get_by_text("There is no such draft")).to_be_visible()
    drafts.cancel(bud.actor, other.id)


@pytest.mark.parametrize("width", [1440, 390])
def test_every_step_fits_the_screen(tab: Callable[..., Page], bud: Bud, width: int) -> None:
    page = tab(width)
    bud.log_in_as_admin(page)
    draft = drafts.start(bud.actor, "prj_default", registry.add_starter(bud.actor).id)
    drafts.save(bud.actor, draft.id, "model", tpot_ms=20.0, context_tokens=2048, slots=2, threads=1)
    bud.open(page, f"deploy?draft={draft.id}&project=Default")
    try:
        for step in ("Model", "Targets", "Options", "Configuration", "Confirm"):
            _at(page, step)
            looks(page, f"wizard-{step.lower()}")
            if step == "Options":
                page.get_by_role("button", name="Set it up by hand").click()
            elif step != "Confirm":
                page.get_by_role("button", name="Next").click()
    finally:
        drafts.cancel(bud.actor, draft.id)
