"""From a model to a ready deployment to a chat, by clicking, with the real model."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx
from playwright.sync_api import Page, expect

from core.accounts import api_keys
from core.accounts.services import DEFAULT_PROJECT_ID as PROJECT
from core.deployments import services as deployments
from core.kernel import database
from core.metrics import calibration
from core.playground import services as playground
from core.playground.models import ChatSession
from core.playground.schemas import ChatView
from tests.browsing import PAGE_TIMEOUT_MS, Bud, settle, shot, to_configuration, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

# The double of the model server leaves names that begin with `real` to the real one.
NAME = "real-chat-by-click"


def _chat(page: Page, bud: Bud) -> ChatView:
    """The chat that the page shows, read as the person who owns it."""
    found = re.search(r"chat=(chs_\w+)", page.url)
    assert found, page.url
    with database.reading() as session:
        row = session.get(ChatSession, found[1])
    assert row is not None
    return playground.get_session(replace(bud.actor, user_id=row.user_id), found[1])


def test_deploy_chat_stop_and_delete(admin_page: Page, bud: Bud) -> None:
    page = admin_page
    bud.open(page, "deployments")
    expect(page.get_by_text("This machine")).to_be_visible()
    page.get_by_role("button", name="Deploy a model", exact=True).click()
    to_configuration(page)
    page.get_by_role("textbox", name="Name").fill(NAME)
    page.get_by_role("textbox", name="Name").press("Enter")
    settle(page)
    shot(page, "wizard-configuration-1440-light")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("Check this machine")).to_be_visible()
    expect(page.get_by_text("Every replica answers.")).to_be_visible(timeout=90_000)
    expect(page.get_by_text(f'"model": "{NAME}"').first).to_be_visible()
    shot(page, "deployment-1440-light")

    page.get_by_role("button", name="Chat", exact=True).click()
    settle(page)
    page.get_by_test_id("stChatInputTextArea").fill("Write a very long story about a tree.")
    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    wait_for("the first words", lambda: "chat=" in page.url and _words(page, bud), 60)
    stop.click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    (answer,) = _chat(page, bud).turns[0].answers
    assert answer.state == "stopped"
    assert answer.content, "a stop keeps what came"
    expect(page.get_by_text("cost —")).to_be_visible()
    shot(page, "playground-1440-light")
    page.reload()
    settle(page)
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()

    view = deployments.find_deployment(bud.actor, PROJECT, NAME)
    secret = api_keys.create_key(bud.actor, PROJECT, "measured").secret.reveal()
    wait_for("the gateway knows the key", lambda: "[DONE]" in _stream(bud, secret), 30)
    wait_for("the request is counted", lambda: _compared(bud, view.id), 30)
    bud.open(page, f"deployment?id={view.id}")
    expect(page.get_by_text("TPOT measured")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^(predicted|calibrated) \d")).first).to_be_visible()
    page.get_by_text("Predicted and measured").scroll_into_view_if_needed()
    shot(page, "deployment-predicted-1440-light")
    page.get_by_role("button", name="More").click()
    page.get_by_text("Delete …").click()
    confirm = page.get_by_test_id("stDialog")
    confirm.get_by_role("textbox", name="Name").fill(NAME)
    confirm.get_by_role("button", name="Delete", exact=True).click()
    wait_for("it is gone", lambda: _gone(bud, view.id), 60)


def _stream(bud: Bud, secret: str) -> str:
    """One streamed request through the gateway, as an application sends it."""
    request = {
        "model": NAME,
        "stream": True,
        "max_tokens": 24,
        "messages": [{"role": "user", "content": "Write a very long story about a tree."}],
    }
    return httpx.post(
        f"{bud.gateway_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {secret}"},
        json=request,
        timeout=60,
        verify=False,
    ).text


def _compared(bud: Bud, deployment_id: str) -> bool:
    return calibration.compare(bud.actor, deployment_id) is not None


def _words(page: Page, bud: Bud) -> bool:
    page.wait_for_timeout(100)
    turns = _chat(page, bud).turns
    return bool(turns and turns[0].answers and turns[0].answers[0].content)


def _gone(bud: Bud, deployment_id: str) -> bool:
    found = deployments.list_deployments(bud.actor, PROJECT)
    return all(view.id != deployment_id for view in found)
