"""Verdicts for a use, each with the answers it rests on; and the command that prints them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import cli
from core.kernel.errors import NotFound
from core.registry import licences
from core.registry.licences import Use

CHAT = licences.USES["Commercial chat product, 10 M users"]
PUBLISH = licences.USES["Fine-tune and publish"]
INTERNAL = licences.USES["Internal tool"]
RESEARCH = licences.USES["Research"]


@pytest.mark.parametrize(
    ("key", "use", "outcome", "because"),
    [
        ("mit", CHAT, "yes", ()),
        ("apache-2.0", INTERNAL, "yes", ()),
        ("apache-2.0", PUBLISH, "conditional", ("notices", "publish_changes")),
        ("llama-3.1-license-2024", CHAT, "conditional", ("attribution", "use_restrictions")),
        ("llama-3.1-license-2024", PUBLISH, "conditional", ("naming_rules", "notices")),
        ("llama-3.1-license-2024", Use(monthly_users=800_000_000), "no", ("user_threshold",)),
        ("llama-3-license-2024", Use(trains_on_outputs=True), "no", ("training_on_outputs",)),
        ("llama-4-cla-2025", Use(in_eu=True), "no", ("core_restrictions",)),
        ("llama-3.2-license-2024", Use(in_eu=True), "conditional", ("core_restrictions",)),
        ("qwen-2024", CHAT, "conditional", ("use_restrictions",)),
        ("qwen-2024", Use(monthly_users=100_000_001), "no", ("user_threshold",)),
        ("gemma-tou-2025-03-24", CHAT, "conditional", ("hosted_api_use", "use_restrictions")),
        ("stability-ai-community-2024", CHAT, "no", ("revenue_threshold",)),
        ("stability-ai-community-2024", INTERNAL, "conditional", ("revenue_threshold",)),
        ("cc-by-nc-4.0", INTERNAL, "no", ("commercial_use", "core_restrictions")),
        ("cc-by-nc-4.0", RESEARCH, "yes", ()),
        ("cc-by-nd-4.0", PUBLISH, "no", ("distribute_modified",)),
        ("mistral-research-0.1", INTERNAL, "no", ("commercial_use",)),
        ("mistral-non-production-0.1", INTERNAL, "no", ("commercial_use", "core_restrictions")),
        ("qwen-research-2024", CHAT, "no", ("commercial_use",)),
        ("qwen-research-2024", RESEARCH, "conditional", ("modify",)),
        ("stable-diffusion-2022-08-22", CHAT, "conditional", ("use_restrictions",)),
        ("databricks-open-model-2024", Use(trains_on_outputs=True), "no", ("training_on_outputs",)),
        ("minimax-m2-modified-mit-2025", INTERNAL, "conditional", ("revenue_threshold",)),
        ("minimax-m2.5-modified-mit", INTERNAL, "conditional", ("naming_rules",)),
        ("minimax-m2.5-modified-mit", RESEARCH, "yes", ()),
        ("agpl-3.0", CHAT, "yes", ()),
        ("agpl-3.0", Use(hosts_api=True, modifies=True), "conditional", ("publish_changes",)),
        (
            "moonshot-ai-modified-mit-2025",
            Use(monthly_users=200_000_000, annual_revenue_usd=0),
            "conditional",
            ("user_threshold",),
        ),
        (
            "moonshot-ai-modified-mit-2025",
            Use(monthly_users=1_000, annual_revenue_usd=1e6),
            "yes",
            (),
        ),
        # of an unknown addition only what the known part refuses is sure
        ("cohere-cc-by-nc-addendum", INTERNAL, "no", ("commercial_use",)),
        ("cohere-cc-by-nc-addendum", RESEARCH, "needs review", ()),
        # no answers, no guess
        ("falcon-llm", RESEARCH, "needs review", ()),
        ("proprietary-license", CHAT, "needs review", ()),
        (None, CHAT, "needs review", ()),
    ],
)
def test_verdicts(key: str | None, use: Use, outcome: str, because: tuple[str, ...]) -> None:
    found = licences.verdict(key, use)
    assert found.outcome == outcome, found
    weighty = {reason.question for reason in found.reasons if reason.effect != "allows"}
    assert set(because) <= weighty
    if not because and outcome == "yes":
        assert weighty == set()


def test_the_weightiest_reason_comes_first_and_can_be_checked() -> None:
    found = licences.verdict("stability-ai-community-2024", CHAT)
    first = found.reasons[0]
    assert (first.question, first.effect, first.impact) == ("revenue_threshold", "blocks", "high")
    assert first.section == "III"
    assert "$1,000,000" in first.quotation
    assert first.document == "stability-ai-community-2024"
    assert {duty.question for duty in found.duties} >= {"attribution", "commercial_use"}


def test_a_number_that_is_not_known_is_asked_for() -> None:
    found = licences.verdict("qwen-2024", Use())
    assert (found.reasons[0].question, found.reasons[0].effect) == ("user_threshold", "unclear")


@pytest.mark.parametrize("key", licences.curated_keys())
def test_every_licence_can_be_judged_for_every_use(key: str) -> None:
    everything = Use(
        commercial=True, monthly_users=10**10, annual_revenue_usd=1e13, modifies=True,
        distributes=True, hosts_api=True, trains_on_outputs=True, in_eu=True,
    )  # fmt: skip
    for use in (*licences.USES.values(), everything):
        found = licences.verdict(key, use)
        assert found.outcome in ("yes", "conditional", "no")
        for reason in found.reasons:
            assert reason.section or licences.answers(key)[reason.question].silent


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(NotFound):
        licences.verdict("no-such-licence", CHAT)


@pytest.fixture
def bud(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `bud models license`; what it printed, decoded with `--json`."""

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main(["models", "license", *arguments])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out + printed.err

    return _run


def test_the_command_shows_a_licence(bud: Callable[..., Any], tmp_path: Path) -> None:
    shown = bud("llama3.1", "--json")
    assert shown["licence"]["key"] == "llama-3.1-license-2024"
    assert len(shown["answers"]) == 22
    assert shown["verdicts"]["Research"]["outcome"] == "conditional"
    assert "“Built with Llama”" in bud("llama3.1")
    assert "700 million" in bud("llama3.1", "--question", "user_threshold")
    assert "does not know this name" in bud("Llama", status=4)
    file = tmp_path / "LICENSE"
    file.write_text(licences.text("gemma-tou-2025-03-24"))
    assert "Gemma Terms of Use 2025-03-24" in bud("--text", str(file))
    file.write_text(licences.text("mit") + "\nNot for use by governments.\n")
    changed = bud("--text", str(file))
    assert "needs review" in changed
    assert "+ not for use by governments" in changed
    assert "cannot be read" in bud("--text", str(tmp_path / "none"), status=2)
