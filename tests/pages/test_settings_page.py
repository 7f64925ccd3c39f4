"""Settings in a browser: what the machine costs, and the keys that seal credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from core.accounts import api_keys
from core.deployments.schemas import DeploymentView
from core.kernel import audit
from core.kernel.keys import keyring
from core.prices import services as prices
from core.projects import services as projects
from tests.browsing import PAGE_TIMEOUT_MS, Bud, settle, shot, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

MODEL = "priced-model"


@pytest.fixture
def project(bud: Bud, project_id: str) -> str:
    """The name of the test file's project, for the address."""
    return projects.get_project(bud.actor, project_id).name


@pytest.fixture
def _no_price_after(bud: Bud) -> Iterator[None]:
    """The machine is every project's: other tests expect it without a price."""
    yield
    if prices.machine_price(bud.actor) is not None:
        prices.clear_machine_price(bud.actor)


def _ask(bud: Bud, secret: str, model: str) -> int:
    request = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(
        f"{bud.gateway_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {secret}"},
        json=request,
        timeout=30,
        verify=False,
    ).status_code


@pytest.mark.usefixtures("_no_price_after")
def test_the_price_of_the_machine_shows_as_cost(
    admin_page: Page,
    bud: Bud,
    project: str,
    project_id: str,
    running: Callable[..., DeploymentView],
) -> None:
    page = admin_page
    running(MODEL)
    secret = api_keys.create_key(bud.actor, project_id, "prices").secret.reveal()
    bud.open(page, f"settings?project={project}")
    expect(page.get_by_text("price not set")).to_be_visible()
    price = page.get_by_role("spinbutton", name="USD per hour")
    set_price = page.get_by_role("button", name="Set the price", exact=True)
    price.fill("-1")
    set_price.click()
    expect(page.get_by_role("alert")).to_contain_text("USD per hour must be between 0 and")
    price.fill("0")
    set_price.click()
    expect(page.get_by_text("$0.00 per hour")).to_be_visible()
    price.fill("")
    set_price.click()
    expect(page.get_by_role("alert")).to_contain_text("price is not complete")
    price.fill("0.36")
    set_price.click()
    expect(page.get_by_text("$0.3600 per hour")).to_be_visible()
    shot(page, "settings-prices-1440-light")

    wait_for("the gateway answers", lambda: _ask(bud, secret, MODEL) == 200)
    bud.open(page, f"metrics?project={project}&live=true&window=15m")
    cost = page.get_by_test_id("stMetric").filter(has_text="Cost")
    expect(cost).to_contain_text("$")
    bud.open(page, f"?project={project}")
    expect(page.get_by_test_id("stMetric").filter(has_text="Today (UTC)")).to_contain_text("$")
    expect(page.get_by_text("This machine, 30 days: $")).to_be_visible()

    bud.open(page, f"settings?project={project}")
    page.get_by_role("radio", name="Power and purchase").click()
    figures = {
        "Power under load (W)": "200",
        "Electricity (USD per kWh)": "0.3",
        "Purchase price (USD)": "2628",
        "Lifetime (hours)": "26280",
    }
    for label, figure in figures.items():
        page.get_by_role("spinbutton", name=label).fill(figure)
        page.get_by_role("spinbutton", name=label).press("Enter")
    page.get_by_role("button", name="Set the price", exact=True).click()
    expect(page.get_by_text("$0.1600 per hour")).to_be_visible()
    expect(page.get_by_text("200 W × $0.3/kWh + $2,628 / 26,280 h")).to_be_visible()
    shot(page, "settings-power-1440-light")
    page.get_by_role("button", name="Back to not set").click()
    expect(page.get_by_text("price not set")).to_be_visible()


def test_the_keys_are_rotated_and_everything_goes_on(
    admin_page: Page,
    bud: Bud,
    project: str,
    project_id: str,
    running: Callable[..., DeploymentView],
) -> None:
    page = admin_page
    running(MODEL)
    secret = api_keys.create_key(bud.actor, project_id, "rotation").secret.reveal()
    before = keyring().current_key_id
    bud.open(page, f"settings?project={project}")
    page.get_by_role("tab", name="Encryption").click()
    page.get_by_role("button", name="Rotate the data key").click()
    expect(page.get_by_text("the old ones stay readable")).to_be_visible()
    rotated = keyring().current_key_id
    assert rotated != before
    expect(page.get_by_text(rotated, exact=True)).to_be_visible()

    page.get_by_role("button", name="Replace the wrapping key …").click()
    dialog = page.get_by_test_id("stDialog")
    replace = dialog.get_by_role("button", name="Replace", exact=True)
    shot(page, "settings-wrapping-key-1440-light")
    wrapping = sorted(path.name for path in (bud.data_dir / "keys").glob("wrapping-*.pem"))
    dialog.get_by_role("textbox", name="Name").fill("wrapping key")
    replace.click()
    expect(page.get_by_text("the former RSA key is gone")).to_be_visible()
    now = sorted(path.name for path in (bud.data_dir / "keys").glob("wrapping-*.pem"))
    assert len(now) == 1
    assert now != wrapping
    done = [entry.action for entry in audit.entries(bud.actor, None, limit=50)]
    assert "encryption.data_key_rotated" in done
    assert "encryption.wrapping_key_replaced" in done

    running("sealed-anew")
    for model in (MODEL, "sealed-anew"):
        wait_for(f"{model} answers", lambda model=model: _ask(bud, secret, model) == 200)


def test_a_member_sees_the_prices_only(member_page: Page, bud: Bud) -> None:
    bud.open(member_page, "settings")
    expect(member_page.get_by_text("An admin can change it.")).to_be_visible()
    expect(member_page.get_by_role("button", name=re.compile("Set the price"))).to_have_count(0)
    member_page.get_by_role("tab", name="Encryption").click()
    expect(member_page.get_by_text("Only admins manage the encryption keys")).to_be_visible()
    expect(member_page.get_by_role("button", name="Rotate the data key")).to_have_count(0)
    settle(member_page)
