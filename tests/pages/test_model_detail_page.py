"""A model's page: added with its steps shown, approved with a comment, blocked by its scan."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.accounts import services as accounts
from core.kernel import audit, ids
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import ModelView
from tests.browsing import PAGE_TIMEOUT_MS, Bud, select_row, settle, wait_for

# Other tests keep the machine busy as well.
expect.set_options(timeout=PAGE_TIMEOUT_MS)


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose weights would run code when they are loaded."""
    made = tmp_path / "risky"
    made.mkdir()
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 1, "vocab_size": 32, "max_position_embeddings": 64}
    (made / "config.json").write_text(json.dumps(config))
    card = "---\nlicense: apache-2.0\nbase_model: Qwen/Qwen3-8B\n---\n# Risky\n"
    (made / "README.md").write_text(card)
    (made / "pytorch_model.bin").write_bytes(pickle.dumps(_RunsCode()))
    return made


@pytest.fixture
def lead_page(page: Page, bud: Bud, project_id: str) -> Page:
    """A tab of an admin of the test file's project, who is no admin of Bud."""
    email = f"lead-{ids.new_id('')[-6:]}@example.org"
    user_id = bud.log_in_as_new(page, email, project_id)
    accounts.set_membership(bud.actor, project_id, user_id, "admin")
    return page


def _named(bud: Bud, project_id: str, name: str) -> ModelView | None:
    found = [m for m in registry.list_models(bud.actor, project_id) if m.name == name]
    return found[0] if found else None


def test_added_approved_blocked_and_overridden(
    lead_page: Page, bud: Bud, project_id: str, folder: Path
) -> None:
    page = lead_page
    bud.open(page, "models")
    page.get_by_role("button", name="Add model").click()
    dialog = page.get_by_test_id("stDialog")
    dialog.get_by_text("This machine").click()
    dialog.get_by_role("textbox", name="Path").fill(str(folder))
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_be_hidden()
    # Its steps, while it works; then its row.
    expect(
        page.get_by_text("Scan for danger").or_(page.get_by_text("2 rows")).first
    ).to_be_visible()
    wait_for(
        "the model is ready",
        lambda: getattr(_named(bud, project_id, "risky"), "state", "") == "ready",
    )
    bud.open(page, "models?q=risky")
    title = page.get_by_role("heading", name="risky")
    select_row(page, 0, title, column_px=90)
    settle(page)

    # Critical: shown with its place, and Deploy is refused with what to do.
    expect(page.get_by_text("This version may not be deployed.")).to_be_visible()
    expect(page.get_by_role("button", name="Deploy", exact=True)).to_be_disabled()
    page.get_by_text("Files and scan", exact=True).click()
    report = page.locator(".st-key-scan-report")
    expect(report.get_by_text("it imports posix.system")).to_be_visible()
    report.get_by_role("button", name="Override …").click()
    dialog.get_by_role("button", name="Override", exact=True).click()
    expect(dialog.get_by_text("An override needs a reason")).to_be_visible()
    dialog.get_by_label("Why these findings are acceptable here").fill("Read line by line.")
    dialog.get_by_role("button", name="Override", exact=True).click()
    expect(report.get_by_text("Read line by line.")).to_be_visible()
    expect(page.get_by_role("button", name="Deploy", exact=True)).to_be_enabled()

    # Approved with a comment, put into production, and both stand in the history.
    page.get_by_text("Versions", exact=True).click()
    page.get_by_role("button", name="Approve …").click()
    dialog.get_by_role("button", name="Change", exact=True).click()
    expect(dialog.get_by_text("needs a comment")).to_be_visible()
    dialog.get_by_label("Comment").fill("Passed our questions.")
    dialog.get_by_role("button", name="Change", exact=True).click()
    history = page.locator(".st-key-model-history")
    expect(history.get_by_text("Passed our questions.")).to_be_visible()
    page.get_by_role("button", name="Put into production …").click()
    dialog.get_by_role("button", name="Change", exact=True).click()
    expect(history.get_by_text("production", exact=False).first).to_be_visible()

    model = _named(bud, project_id, "risky")
    assert model is not None
    period = versions.production_history(bud.actor, model.id)[0]
    assert (period.version_number, period.end) == (1, None)
    done = {
        entry.action for entry in audit.entries(bud.actor, project_id, subject=f"model:{model.id}")
    }
    assert {"model.created", "model.scan_overridden", "model.stage_changed"} <= done

    # Its family: under the base that its card names.
    page.get_by_text("Family", exact=True).click()
    expect(
        page.locator(".bud-family").get_by_role("link", name="qwen/qwen3-8b", exact=True)
    ).to_be_visible()


def test_an_entry_of_the_catalogue_with_its_sources(member_page: Page, bud: Bud) -> None:
    page = member_page
    bud.open(page, "model?catalogue=Qwen/Qwen3-8B&show=Prices")
    expect(page.get_by_text("List prices in USD per million tokens")).to_be_visible()
    page.get_by_text("Licence", exact=True).click()
    expect(page.get_by_text("Stated as “apache-2.0” by")).to_be_visible()
    page.get_by_text("All 22 answers").click()
    expect(page.get_by_role("heading", name="Apache License 2.0")).to_be_visible()
    bud.open(page, "model?catalogue=qwen/qwen3-8b&show=Notes")
    page.get_by_label("New comment").fill("Good at tools.")
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.get_by_text("Good at tools.")).to_be_visible()
    bud.open(page, "model?catalogue=qwen/qwen3-8bb")
    expect(page.get_by_text("The nearest: qwen/qwen3-8b")).to_be_visible()
