"""The Playground in a browser: two models side by side, votes, stop, ask again, saved chats.

The models are the double's: an answer has as many words as "Max tokens" says, the first is the
number of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from core.deployments.schemas import DeploymentView
from core.playground import services as playground_services
from core.prices import services as prices
from tests.browsing import PAGE_TIMEOUT_MS, Bud, settle, shot, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

LEFT, RIGHT = "left-model", "right-model"
WORDS = 12
QUESTION = "What is a KV cache?"


@pytest.fixture
def playground(
    member_page: Page,
    bud: Bud,
    project_id: str,
    running: Callable[..., DeploymentView],
) -> Page:
    """The page, in a project with two models, of which only the left one has a token price."""
    running(LEFT)
    running(RIGHT)
    prices.set_token_price(
        bud.actor,
        project_id,
        LEFT,
        input_usd_per_million_tokens=1_000,
        output_usd_per_million_tokens=1_000,
    )
    bud.open(member_page, f"playground?model={LEFT}")
    return member_page


def _answer_in(page: Page, words: int) -> None:
    page.get_by_role("button", name="Parameters").click()
    tokens = page.get_by_role("spinbutton", name="Max tokens")
    tokens.fill(str(words))
    tokens.press("Enter")
    page.keyboard.press("Escape")
    expect(tokens).to_be_hidden()
    settle(page)


def _ask(page: Page, question: str) -> None:
    page.get_by_test_id("stChatInputTextArea").fill(question)
    page.keyboard.press("Enter")


def _numbers(page: Page) -> Locator:
    """The lines under complete answers."""
    return page.get_by_text(re.compile(rf"TTFT \d.*tokens/s.*5 in, {WORDS} out tokens"))


def _answer(page: Page, number: int) -> Locator:
    return page.get_by_text(re.compile(rf"^{number} (word ?)+"))


def test_two_models_a_vote_and_the_saved_chat(playground: Page, bud: Bud, project_id: str) -> None:
    page = playground
    _answer_in(page, WORDS)
    page.get_by_role("combobox", name="Side by side with").click()
    page.get_by_role("option", name=RIGHT).click()
    settle(page)
    _ask(page, QUESTION)
    expect(_numbers(page)).to_have_count(2)
    expect(_numbers(page).first).to_contain_text("cost $0.0170")
    expect(_numbers(page).last).to_contain_text("cost —")

    page.get_by_role("radio", name="Left is better").click()
    wait_for("the vote", lambda: playground_services.vote_summary(bud.actor, project_id))
    settle(page)
    shot(page, "playground-side-by-side-1440-light")
    page.get_by_role("button", name="Chats").click()
    drawer = page.get_by_test_id("stDialog")
    expect(drawer.get_by_role("button", name=QUESTION)).to_be_visible()
    drawer.get_by_role("tab", name="Votes").click()
    expect(drawer.get_by_text("Over every side-by-side vote")).to_be_visible()
    # What a table draws stands in its canvas as text too, best model first.
    cells = drawer.locator("canvas td")
    expect(cells.nth(0)).to_have_text(LEFT)
    expect(cells.filter(has_text=RIGHT)).to_have_count(1)
    shot(page, "playground-votes-1440-light")

    other_tab = page.context.new_page()
    other_tab.goto(page.url)
    settle(other_tab)
    expect(_numbers(other_tab)).to_have_count(2)
    expect(other_tab.get_by_role("combobox", name="Side by side with")).to_have_value(RIGHT)
    expect(other_tab.get_by_role("radio", name="Left is better")).to_be_checked()


def test_rename_edit_and_regenerate(playground: Page, bud: Bud) -> None:
    page = playground
    _answer_in(page, WORDS)
    _ask(page, QUESTION)
    expect(_numbers(page)).to_have_count(1)
    first = _number_of_the_answer(page)

    page.locator(".st-key-playground-title").get_by_role("button").click()
    page.get_by_label("Title").fill("About caches")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator(".st-key-playground-title")).to_contain_text("About caches")

    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Your last message").fill("What is a token?")
    page.get_by_role("button", name="Send again").click()
    expect(_answer(page, first + 1)).to_be_visible()
    expect(_numbers(page)).to_have_count(1)
    expect(page.get_by_text("What is a token?", exact=True)).to_be_visible()
    expect(page.get_by_text(QUESTION, exact=True)).to_have_count(0)

    page.get_by_role("button", name="Regenerate").click()
    expect(_answer(page, first + 2)).to_be_visible()
    expect(_answer(page, first + 1)).to_have_count(0)
    expect(_numbers(page)).to_have_count(1)


def _number_of_the_answer(page: Page) -> int:
    found = re.search(r"^(\d+) word", page.inner_text("body"), re.MULTILINE)
    assert found
    return int(found[1])


def test_stop_keeps_what_came_and_the_chat_goes_on(playground: Page, bud: Bud) -> None:
    page = playground
    _answer_in(page, 3000)
    _ask(page, "Tell me a very long story.")
    expect(page.get_by_text(re.compile(r"\d+ word word"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    settle(page)
    expect(page.get_by_text("stopped", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Chats").click()
    page.get_by_test_id("stDialog").get_by_role("button", name="Tell me a very long").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
