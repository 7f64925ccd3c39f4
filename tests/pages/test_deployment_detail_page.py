"""A deployment's own page in a browser: its dialogs, its live log, and what links from it.

The model servers are the double's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Locator, Page, expect

from core.accounts import api_keys
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.jobs import services as jobs
from core.metrics import services as metrics
from core.metrics.schemas import Filters, Window
from tests.browsing import PAGE_TIMEOUT_MS, Bud, settle, shot, to_configuration, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

Running = Callable[..., DeploymentView]


def _open_dialog(page: Page, bud: Bud, view: DeploymentView, entry: str) -> Locator:
    bud.open(page, f"deployment?id={view.id}")
    page.get_by_role("button", name="More").click()
    page.get_by_text(entry).click()
    dialog = page.get_by_test_id("stDialog")
    expect(dialog).to_be_visible()
    return dialog


def _now(bud: Bud, view: DeploymentView) -> DeploymentView:
    return deployments.get_deployment(bud.actor, view.id)


def test_scale_and_edit(member_page: Page, bud: Bud, running: Running) -> None:
    page, view = member_page, running("detail")
    dialog = _open_dialog(page, bud, view, "Scale …")
    scale = dialog.get_by_role("button", name="Scale", exact=True)
    expect(scale).to_be_disabled()
    replicas = dialog.get_by_role("spinbutton", name="Replicas")
    replicas.fill("2")
    replicas.press("Enter")
    expect(dialog.get_by_text("for 2 replicas")).to_be_visible()
    shot(page, "deployment-scale-1440-light")
    scale.click()
    expect(page.get_by_text("2 of 2")).to_be_visible()

    dialog = _open_dialog(page, bud, view, "Edit settings …")
    expect(dialog.get_by_text("Saving restarts it, one replica at a time.")).to_be_visible()
    tokens = dialog.get_by_role("spinbutton", name="Context (tokens)")
    tokens.fill("99999")
    tokens.press("Enter")
    expect(dialog.get_by_text("The context must be between 256 and 8192 tokens")).to_be_visible()
    expect(dialog.get_by_role("button", name="Save and restart")).to_be_disabled()
    tokens.fill("512")
    tokens.press("Enter")
    save = dialog.get_by_role("button", name="Save and restart")
    expect(save).to_be_enabled()
    shot(page, "deployment-edit-1440-light")
    save.click()
    expect(page.get_by_text("512 tokens each request")).to_be_visible()
    assert _now(bud, view).generation == view.generation + 1
    assert _now(bud, view).requested["context_tokens"] == 512


def test_what_does_not_fit_is_refused_with_the_numbers(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, "deployments")
    page.get_by_role("button", name="Deploy a model", exact=True).click()
    to_configuration(page)
    # 32 replicas × (64 slots × 8192 tokens × 23,040 B) of KV cache alone are 387 GB.
    for label, figure in (("Context (tokens)", 8192), ("Slots (", 64), ("Replicas", 32)):
        number = page.get_by_role("spinbutton", name=label)
        number.fill(str(figure))
        number.press("Enter")
        settle(page)
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text(re.compile(r"needs 39\d\.\d\d GB \(32 × .* KV cache"))
    expect(refusal).to_contain_text(re.compile(r"but [\d.]+ GB of [\d.]+ GB are free"))
    expect(refusal).to_contain_text("What to do:")
    expect(page.get_by_text("does not fit").first).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    shot(page, "deploy-refused-1440-light")


def test_logs_are_live_and_requests_lead_to_the_metrics(
    member_page: Page, bud: Bud, project_id: str, running: Running
) -> None:
    page, view = member_page, running("talker")
    secret = api_keys.create_key(bud.actor, project_id, "detail").secret.reveal()
    bud.open(page, f"deployment?id={view.id}&view=Logs")
    expect(page.get_by_text("model server starts")).to_be_visible()
    wait_for("the gateway answers", lambda: _ask(bud, secret, view.name) == 200)
    expect(page.get_by_text("chat 1: 7 words")).to_be_visible()
    page.get_by_label("Only lines with").fill("no such words")
    expect(page.get_by_text("No line has this.")).to_be_visible()
    shot(page, "deployment-logs-1440-light")

    own = Filters(deployment_id=view.id)
    wait_for(
        "the request stands in the metrics",
        lambda: metrics.summary(bud.actor, project_id, Window.preset("1h"), own).requests,
    )
    page.get_by_role("radio", name="Requests").click()
    page.get_by_role("link", name="All of its metrics").click()
    expect(page).to_have_url(re.compile(rf"/metrics\?.*deployment={view.name}"))
    expect(page.get_by_test_id("stMetric").filter(has_text="Requests")).to_contain_text("1")
    page.reload()
    settle(page)
    expect(page).to_have_url(re.compile(rf"deployment={view.name}"))


def _ask(bud: Bud, secret: str, model: str) -> int:
    request = {"model": model, "max_tokens": 7, "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(
        f"{bud.gateway_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {secret}"},
        json=request,
        timeout=30,
        verify=False,
    ).status_code


def test_a_copy_is_deployed_and_its_job_cancelled(
    member_page: Page, bud: Bud, project_id: str, running: Running
) -> None:
    page, view = member_page, running("detail")
    dialog = _open_dialog(page, bud, view, "Copy …")
    name = dialog.get_by_role("textbox", name="Name of the copy")
    expect(name).to_have_value("smollm2-135m-instruct")
    name.fill("the-copy")
    name.press("Enter")
    dialog.get_by_role("button", name="Deploy the copy").click()
    expect(page.get_by_text("Check this machine")).to_be_visible()
    made = deployments.find_deployment(bud.actor, project_id, "the-copy")
    assert made.context_tokens == _now(bud, view).context_tokens
    expect(page).to_have_url(re.compile(f"id={made.id}"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    assert made.job_id is not None
    wait_for("it is cancelled", lambda: jobs.get(bud.actor, made.job_id).state == "cancelled")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()


def test_a_dialog_stays_open_while_the_deployment_settles(
    member_page: Page, bud: Bud, running: Running
) -> None:
    page, view = member_page, running("restless")
    dialog = _open_dialog(page, bud, view, "Delete …")
    deployments.stop(bud.actor, view.id)
    ready = page.get_by_test_id("stMetric").filter(has_text="Replicas ready")
    # What polls has seen it; closing the dialog for that would have come before.
    expect(ready).to_contain_text("0 of 1")
    expect(dialog).to_be_visible(timeout=1)
    shot(page, "deployment-delete-1440-light")
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()

    page.get_by_role("button", name="More").click()
    page.get_by_text("Delete …").click()
    delete = dialog.get_by_role("button", name="Delete", exact=True)
    dialog.get_by_role("textbox", name="Name").fill(view.name)
    delete.click()
    expect(page).to_have_url(re.compile("/deployments"))
    expect(page.get_by_role("link", name=view.name)).to_have_count(0)


def test_a_rename_restarts_nothing_and_an_empty_number_is_buds_to_choose(
    member_page: Page, bud: Bud, running: Running
) -> None:
    page, view = member_page, running("former")
    dialog = _open_dialog(page, bud, view, "Edit settings …")
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    name = dialog.get_by_role("textbox", name="Name")
    name.fill("renamed")
    name.press("Enter")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="renamed")).to_be_visible()
    assert _now(bud, view).generation == view.generation

    dialog = _open_dialog(page, bud, view, "Edit settings …")
    slots = dialog.get_by_role("spinbutton", name="Slots")
    slots.fill("")
    slots.press("Enter")
    dialog.get_by_role("button", name="Save and restart").click()
    expect(page.get_by_text("(chosen by Bud)").first).to_be_visible()
    assert _now(bud, view).requested["slots"] is None
