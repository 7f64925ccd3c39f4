"""The Jobs page: why a job failed and what to do, another attempt, and an end on request."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from core import jobs
from core.accounts.services import DEFAULT_PROJECT_ID as PROJECT
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.registry import services as registry
from tests.browsing import PAGE_TIMEOUT_MS, Bud, shot, wait_for
from tests.machine import slowness

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)

# Two seconds until a step notices, and what a machine that is busy adds.
CANCELLED_WITHIN_S = 8.0


def test_a_failed_job_says_why_and_can_be_retried(
    admin_page: Page, bud: Bud, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    _, job_id = registry.add_local(bud.actor, PROJECT, str(broken), "broken-model")
    wait_for("it fails", lambda: jobs.get(bud.actor, job_id).state == "failed", 60)
    page = admin_page
    bud.open(page, f"jobs?id={job_id}")
    error = jobs.get(bud.actor, job_id).error
    assert error
    expect(page.get_by_text("What to do:").first).to_be_visible()
    shot(page, "jobs-1440-light")
    page.get_by_role("button", name="Retry").click()
    wait_for("a second attempt", lambda: _attempts(bud, job_id) == 2, 30)
    expect(page.get_by_text("It was retried")).to_be_visible()


def _attempts(bud: Bud, job_id: str) -> int:
    subject = jobs.get(bud.actor, job_id).subject
    return len(jobs.list_jobs(bud.actor, PROJECT, subject=subject))


def test_a_running_job_is_cancelled_from_the_page(
    member_page: Page, bud: Bud, project_id: str
) -> None:
    request = DeploymentRequest(
        project_id=project_id, name="never-mind", model_id=registry.add_starter(bud.actor).id
    )
    job_id = deployments.deploy(bud.actor, request).job_id
    assert job_id is not None
    page = member_page
    bud.open(page, "jobs")
    expect(page.get_by_text("Check this machine")).to_be_visible()
    wait_for("it runs", lambda: jobs.get(bud.actor, job_id).state == "running")
    page.get_by_role("button", name="Cancel", exact=True).click()
    took_s = wait_for(
        "it is cancelled", lambda: jobs.get(bud.actor, job_id).state == "cancelled", 15
    )
    assert took_s < CANCELLED_WITHIN_S * slowness(), f"cancelling took {took_s:.1f} s"
    cancelled = page.get_by_test_id("stMetric").filter(has_text="Cancelled")
    expect(cancelled).to_contain_text("1")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    bud.open(page, f"jobs?id={job_id}")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    shot(page, "jobs-cancelled-1440-light")
