"""API keys in a browser: shown once, restricted, revoked; tried at the real gateway."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import httpx
from playwright.sync_api import Locator, Page, expect

from core.accounts import api_keys
from core.deployments.schemas import DeploymentView
from tests.browsing import PAGE_TIMEOUT_MS, Bud, select_row, settle, shot, wait_for
from tests.machine import slowness

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

ALLOWED, OTHER = "allowed-model", "other-model"
REFUSED_WITHIN_S = 2.0


def _create(page: Page, name: str, *models: str) -> Locator:
    page.get_by_role("button", name="New API key").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("textbox", name="Name").fill(name)
    for model in models:
        dialog.get_by_role("combobox", name="Models").click()
        page.get_by_role("option", name=model).click()
        page.keyboard.press("Escape")
    # A second click makes no second key, and takes the first one's text from nobody.
    dialog.get_by_role("button", name="Create", exact=True).dblclick()
    expect(dialog.get_by_text("shown this once")).to_be_visible()
    return dialog


def _run_curl(line: str) -> httpx.Response:
    """Do what the line for a shell says."""
    words = shlex.split(line)
    assert words[0] == "curl"
    headers = [words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H"]
    data = words[words.index("-d") + 1]
    return httpx.post(words[1], headers=dict(headers), content=data, timeout=30, verify=False)


def test_a_key_for_one_model_until_it_is_revoked(
    member_page: Page,
    bud: Bud,
    project_id: str,
    running: Callable[..., DeploymentView],
) -> None:
    page = member_page
    running(ALLOWED)
    running(OTHER)
    bud.open(page, "api_keys")
    expect(page.get_by_text("No API key yet")).to_be_visible()
    dialog = _create(page, "ci", ALLOWED)
    secret = dialog.get_by_test_id("stCode").first.inner_text().strip()
    line = dialog.get_by_test_id("stCode").nth(1).inner_text()
    assert secret in line
    shot(page, "api-keys-created-1440-light")
    wait_for("the gateway knows the key", lambda: _run_curl(line).status_code != 401, 5)
    answer = _run_curl(line)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].endswith("word")
    refused = _run_curl(line.replace(ALLOWED, OTHER))
    assert refused.status_code in (403, 404), refused.text
    assert OTHER in refused.json()["error"]["message"]

    page.keyboard.press("Escape")
    settle(page)
    expect(dialog.get_by_text("shown this once")).to_be_visible()
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_have_count(0)
    settle(page)
    assert secret not in page.content()
    select_row(page, 0, page.get_by_role("heading", name="ci"))
    page.get_by_role("button", name="Restrict …").click()
    addresses = dialog.get_by_role("textbox", name="IP addresses")
    addresses.fill("203.0.113.0/33")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("203.0.113.0/33")
    shot(page, "api-keys-restrict-1440-light")
    addresses.fill("203.0.113.0/24")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(
        page.get_by_text(f"May call {ALLOWED} at every endpoint from 203.0.113.0")
    ).to_be_visible()
    wait_for("it may not come from here", lambda: _run_curl(line).status_code == 403)
    (restricted,) = api_keys.list_keys(bud.actor, project_id)
    assert (restricted.models, restricted.networks) == ([ALLOWED], ["203.0.113.0/24"])
    assert restricted.expires_at is not None
    page.get_by_role("button", name="Revoke …").click()
    revoke = dialog.get_by_role("button", name="Revoke", exact=True)
    revoke.click()
    expect(dialog.get_by_role("alert")).to_contain_text("No name was typed.")
    dialog.get_by_role("textbox", name="Name").fill("other")
    revoke.click()
    expect(dialog.get_by_role("alert")).to_contain_text("other")
    dialog.get_by_role("textbox", name="Name").fill("ci")
    revoke.click()
    wait_for(
        "the key is revoked",
        lambda: api_keys.list_keys(bud.actor, project_id)[0].revoked_at is not None,
    )
    took_s = wait_for(
        "the gateway refuses it", lambda: _run_curl(line).status_code == 401, 10 * slowness()
    )
    assert took_s <= REFUSED_WITHIN_S * slowness(), (
        f"the revoked key opened models for {took_s:.1f} s"
    )

    expect(page.get_by_text("No active API key")).to_be_visible()
    page.get_by_text("Show keys that have ended").click()
    expect(page).to_have_url(f"{bud.url}/api_keys?ended=true")
    select_row(page, 0, page.get_by_role("heading", name="ci"))
    expect(page.get_by_role("heading", name="ci")).to_contain_text("revoked")
    expect(page.get_by_role("button", name="Revoke …")).to_have_count(0)
    shot(page, "api-keys-ended-1440-light")


def test_a_key_needs_a_name_and_networks_that_are_some(
    member_page: Page, bud: Bud, project_id: str
) -> None:
    page = member_page
    bud.open(page, "api_keys")
    page.get_by_role("button", name="New API key").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("The key has no name.")
    expect(dialog.get_by_role("textbox", name="Name")).to_be_visible()
    dialog.get_by_role("textbox", name="Name").fill("n" * 300)
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("at most 120 characters")
    dialog.get_by_role("textbox", name="Name").fill("office")
    addresses = dialog.get_by_role("textbox", name="IP addresses")
    addresses.fill("10.0.0.1/8")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("10.0.0.1/8")
    addresses.fill("10.0.0.0/8\n2001:db8::/32")
    dialog.get_by_role("combobox", name="Endpoints").click()
    page.get_by_role("option", name="Embeddings").click()
    page.keyboard.press("Escape")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_text("shown this once")).to_be_visible()
    (key,) = [key for key in api_keys.list_keys(bud.actor, project_id) if key.name == "office"]
    assert (key.networks, key.scopes) == (["10.0.0.0/8", "2001:db8::/32"], ["embeddings"])
