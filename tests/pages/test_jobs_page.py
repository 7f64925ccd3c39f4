"""The Jobs page shows why a job failed and what to do, and tries it again."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from core import jobs
from core.accounts.services import DEFAULT_PROJECT_ID as PROJECT
from core.registry import services as registry
from tests.browsing import PAGE_TIMEOUT_MS, Bud, shot, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)


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
