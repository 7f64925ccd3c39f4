"""Which names are one model, which are not, and how that is measured."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from core.kernel.errors import InvalidInput, NotFound
from core.registry import catalogue, identity_pairs, identity_report
from core.registry.identity import Snapshot, parse
from core.registry.identity_report import Judged, Share
from core.registry.resolver import Published, resolve

LABELLED = Path(__file__).parents[2] / "data" / "identity"
SAME = [
    (
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "Claude Sonnet 4.5",
        "claude-sonnet-4-5-20250929 (32k thinking tokens)",
        "anthropic--claude-4.5-sonnet",
        "vertex_ai/claude-sonnet-4-5@20250929",
    ),
    ("anthropic.claude-v2:1", "Claude-2.1", "claude-2.1_concise"),
    (
        "meta-llama/Llama-3.1-8B-Instruct",
        "Meta-Llama-3.1-8B-Instruct",
        "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct",
        "us.meta.llama3-1-8b-instruct-v1:0",
        "Meta-Llama-3.1-8B-Instruct@hyperbolic",
    ),
    ("o3-mini-2025-01-31-low", "o3-mini (high)", "openai/o3-mini"),
    ("openai/gpt-5-high-2025-08-07", "gpt-5 (low)", "openai-gpt-5"),
    ("gpt-4o-2024-08-06", "GPT 4o (Aug 2024)", "azure/eu/gpt-4o-2024-08-06"),
    ("gpt-3.5-turbo-1106", "GPT-3.5-Turbo (Nov 2023)"),
    ("Qwen/Qwen3-8B", "Qwen3-8B (FC)", "Qwen3-8B (Prompt)", "qwen3-8b"),
    ("DeepSeek-V3.2-Exp (Prompt + Thinking)", "deepseek-ai/DeepSeek-V3.2-Exp"),
    ("deepseek.v3.2", "DeepSeek-V3.2", "deepseek-v3.2-thinking"),
    (
        "zai-org/GLM-4.6",
        "GLM-4.6 (FC thinking)",
        "zai-org-glm-4.6",
        "accounts/fireworks/models/glm-4p6",
    ),
    ("CohereLabs/command-r-08-2024", "Command R (08-2024)", "Command R (08-24)"),
    ("google/gemini-flash-1.5", "gemini-1.5-flash-latest"),
    ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-instruct-2407"),
    ("Amazon-Nova-Pro-v1:0 (FC)", "amazon/nova-pro", "Amazon Nova Pro 1.0"),
    ("moonshotai/Kimi-K2-Instruct", "kimi-k2-0711-preview"),
    ("Llama 4 Maverick", "meta.llama4-maverick-17b-instruct-v1:0"),
    ("meta-llama/Llama-2-7b-hf", "NousResearch/Llama-2-7b-hf"),
    ("Qwen/Qwen3-235B-A22B", "Qwen3 235B A22B diff, no think, Alibaba API"),
]
DIFFERENT = [
    ("Qwen3-8B", "Qwen3-14B", "Qwen3-8B-Base", "Qwen3-8B-FP8", "Qwen3-VL-8B-Instruct"),
    ("gpt-4o", "gpt-4o-2024-05-13", "gpt-4o-2024-08-06", "gpt-4o-mini", "chatgpt-4o-latest"),
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022", "claude-3-7-sonnet-20250219"),
    ("DeepSeek-R1", "DeepSeek-R1-0528", "DeepSeek-R1-Distill-Llama-70B", "DeepSeek-V3"),
    ("Qwen3-235B-A22B-Instruct-2507", "Qwen3-235B-A22B-Thinking-2507", "Qwen3-235B-A22B"),
    ("kimi-k2-0905", "kimi-k2-0711", "kimi-k2-thinking", "kimi-k2.5"),
    ("gemma-2-9b", "gemma-2-9b-it", "gemma-2-9b-it-DPO", "gemma-3-9b-it"),
    ("mpt-7b-chat", "mpt-7b-instruct", "mpt-7b"),
    ("intfloat/multilingual-e5-base", "intfloat/multilingual-e5-base-instruct"),
    ("grok-4-fast-reasoning", "grok-4-fast-non-reasoning"),
    ("meta-llama/Llama-3.1-70B-Instruct", "Meta-Llama-3.1-70B-Instruct-Turbo"),
    ("Llama-3-8B-Instruct", "Llama-3-Instruct-8B-SimPO", "Llama-3-8B-Instruct-SkillMix"),
    ("EleutherAI/pythia-12b", "oasst-pythia-12b"),
    ("perplexity/sonar", "facebook/SONAR"),
    ("elevenlabs/scribe_v1", "zoom/scribe_v1"),
    ("gemini-pro", "gemini/gemini-pro-latest", "gemini-2.5-pro"),
    ("01-ai/yi-34b", "fireworks_ai/accounts/fireworks/models/llava-yi-34b"),
    ("amazon.titan-embed-text-v1", "amazon.titan-embed-text-v2:0"),
    ("phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct"),
]


def models_of(*names: str, organisation: str = "") -> list[str | None]:
    return [
        found.model_id for found in resolve([Published(n, organisation, "test") for n in names])
    ]


@pytest.mark.parametrize("names", SAME, ids=lambda names: names[0])
def test_one_model_under_many_names(names: tuple[str, ...]) -> None:
    found = models_of(*names)
    assert None not in found
    assert len(set(found)) == 1, found


@pytest.mark.parametrize("names", DIFFERENT, ids=lambda names: names[0])
def test_different_models_are_never_one(names: tuple[str, ...]) -> None:
    found = models_of(*names)
    assert len(set(found)) == len(names), found


def test_every_pair_of_different_examples_stays_apart_when_resolved_together() -> None:
    """Names are judged together: what one family adds must not pull others into one."""
    every = sorted({name for names in (*SAME, *DIFFERENT) for name in names})
    model = dict(zip(every, models_of(*every), strict=True))
    for names in DIFFERENT:
        for first, second in itertools.combinations(names, 2):
            assert model[first] is None or model[first] != model[second], (first, second)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("R1", "ambiguous name"),
        ("Kimi K2", "ambiguous name"),
        ("simple/model1", "a test entry"),
        ("bigscience/test-bloomd-6b3", "a test entry"),
        ("Example-Model-v2.0", "not a model"),
        ("openrouter/auto", "not a model"),
        ("ft:gpt-4o-2024-08-06", "a customer's fine-tune"),
        ("DeepSeek R1 + claude-3-5-sonnet-20241022", "several models in one"),
        ("NullModel", "maker unknown"),
    ],
)
def test_what_cannot_be_placed_stays_visible_with_its_reason(name: str, rule: str) -> None:
    (found,) = resolve([Published(name, "", "test")])
    assert (found.model_id, found.rule) == (None, rule)


def test_a_served_bare_name_is_not_taken_for_the_base() -> None:
    hub = [Published(f"google/gemma-3-12b{end}", "", "hub", 1, is_hub=True) for end in ("", "-it")]
    served = Published("databricks/databricks-gemma-3-12b", "", "host", 7, is_served=True)
    *_, found = resolve([*hub, served])
    assert (found.model_id, found.rule) == (None, "base or tuned, not said")


def test_a_month_that_fits_two_snapshots_fits_none() -> None:
    names = ["acme/large-2024-11-05", "acme/large-2024-11-20", "acme/large (Nov 2024)"]
    *_, found = resolve([Published(name, "", "test") for name in names])
    assert (found.model_id, found.rule) == (None, "several snapshots fit")


def test_settings_and_parts_are_read_out_of_a_name() -> None:
    found = parse("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8 (Prompt)")
    assert (found.maker, found.words, found.size, found.active) == (
        "qwen",
        ("qwen3",),
        "235b",
        "22b",
    )
    assert (found.tuning, found.quantisation, found.setting) == ("instruct", "fp8", "prompt")
    assert found.snapshot == Snapshot(2025, 7)
    assert parse("Infinity-Instruct-7M-Gen-Llama3_1-70B").size == "70b"


def test_dates_fit_when_no_part_differs() -> None:
    assert Snapshot(2023, 11).fits(Snapshot(None, 11, 6))
    assert not Snapshot(2023, 11).fits(Snapshot(2024, 11, 6))
    assert Snapshot(2023, 11).completed(Snapshot(None, 11, 6)) == Snapshot(2023, 11, 6)
    assert not Snapshot(revision="001").fits(Snapshot(2023, 1))


def test_shipped_names_name_models_of_the_catalogue_or_say_why_not() -> None:
    names = catalogue.names()
    resolved = names[names["model_id"].notna()]
    assert set(resolved["model_id"]) == set(catalogue.models()["id"])
    assert (names["rule"] != "").all()
    assert not names.duplicated(["name", "organisation", "source"]).any()


def few_names() -> list[dict[str, Any]]:
    names = catalogue.names()
    few = names["source"].str.contains("LMArena|BFCL|Vectara|ZeroEval|helm")
    return names[few & (names["source"] != "helm")].to_dict("records")


def test_labelled_pairs_are_as_many_as_were_asked_for() -> None:
    """500 merges and hard pairs, 150 names a stratum, and what nobody labelled yet is not there."""
    with (LABELLED / "pairs_key.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert sum(row["kind"] == "merge" for row in rows) >= 500
    assert sum(row["kind"].startswith("hard") for row in rows) >= 500
    strata = Counter(row["stratum"] for row in rows if row["kind"] == "recall")
    assert len(strata) == 9
    assert min(strata.values()) >= 150


def test_pairs_hide_the_answer_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    pairs = identity_pairs.sample(few_names(), 5, merges=30, hard_pairs=30, names_per_stratum=9)
    again = identity_pairs.sample(few_names()[::-1], 5, 30, 30, 9)
    assert pairs == again
    kinds = [pair.kind.partition(":")[0] for pair in pairs]
    assert (kinds.count("merge"), kinds.count("recall")) == (30, 4 * 9)
    assert kinds.count("hard") >= 20
    identity_pairs.write(pairs, tmp_path)
    with (tmp_path / "pairs_to_label.csv").open(encoding="utf-8") as lines:
        assert {row["kind"] for row in csv.DictReader(lines)} == {"pair"}


def test_wilson_interval_and_kappa_are_the_published_ones() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    low, high = Share(81, 263).interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Share(10, 10).interval[1] == pytest.approx(1.0)
    # Two labellers, 20 + 15 of 50 alike, 25 and 30 times "same": observed 0.7, expected 0.5.
    pairs = [("same", "same")] * 20 + [("different", "different")] * 15
    pairs += [("same", "different")] * 5 + [("different", "same")] * 10
    assert identity_report.kappa(pairs) == pytest.approx(0.4)


def test_the_resolver_meets_its_targets_on_the_development_half() -> None:
    """Never merges two models, and finds nine of ten names; the test half is for the report."""
    found = identity_report.report(LABELLED, catalogue.model_of())
    assert found.development.precision.value >= 0.995
    assert found.development.hard_kept_apart.value >= 0.995
    assert found.development.recall.value >= 0.9
    assert found.development.precision.of >= 250
    assert found.kappa > 0.9


def judged(kind: str, label: str | None, merged: bool, number: int = 0) -> Judged:
    return Judged(f"{number:012x}", kind, "chat boards", label, merged, ("a", "b"))


def test_precision_counts_merges_and_recall_counts_pairs_people_call_the_same() -> None:
    scores = identity_report.scores(
        [
            judged("merge", "same", True),
            judged("merge", "different", True),
            judged("merge", None, True),
            judged("hard: size", "different", False),
            judged("hard: date", "different", True),
            judged("recall", "same", True),
            judged("recall", "same", False),
            judged("recall", "different", False),
        ]
    )
    assert scores.precision == Share(1, 2)
    assert scores.precision_as_drawn == Share(1, 2)
    assert scores.precision_everywhere == Share(2, 4)
    assert scores.hard_kept_apart == Share(1, 2)
    assert scores.recall == scores.recall_by_stratum["chat boards"] == Share(1, 2)


def write_labels(folder: Path, who: str, labels: Iterable[tuple[str, str]]) -> None:
    lines = "".join(f"{pair},{label}\n" for pair, label in labels)
    (folder / f"labels_{who}.csv").write_text(f"id,label\n{lines}")


def test_report_reads_two_labellers_and_refuses_what_is_no_label(tmp_path: Path) -> None:
    pairs = identity_pairs.sample(few_names(), 6, merges=60, hard_pairs=30, names_per_stratum=9)
    identity_pairs.write(pairs, tmp_path)
    with pytest.raises(NotFound, match="labels_a"):
        identity_report.report(tmp_path, catalogue.model_of())
    write_labels(tmp_path, "a", ((pair.id, "same") for pair in pairs))
    write_labels(
        tmp_path, "b", ((pair.id, "same" if n else "different") for n, pair in enumerate(pairs))
    )
    found = identity_report.report(tmp_path, catalogue.model_of())
    assert found.agreed == Share(len(pairs) - 1, len(pairs))
    assert found.unsettled == 1
    assert found.all.precision.value == 1.0
    assert found.development.precision.of + found.test.precision.of == found.all.precision.of
    assert not any(pair.is_test for pair in found.mistakes)
    write_labels(tmp_path, "b", [(pairs[0].id, "maybe")])
    with pytest.raises(InvalidInput, match="maybe"):
        identity_report.report(tmp_path, catalogue.model_of())
