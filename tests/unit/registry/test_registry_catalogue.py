"""The shipped catalogue, how it is made, and how it is searched."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.kernel.errors import InvalidInput, NotFound
from core.registry import catalogue, catalogue_build
from core.registry.catalogue_index import FACETS, SORTS, UNKNOWN, Index, typing_mistakes


@pytest.fixture(scope="module")
def models() -> pd.DataFrame:
    return catalogue.models()


@pytest.fixture(scope="module")
def index() -> Index:
    return catalogue.index()


# What is shipped


def test_enough_models_with_a_maker_and_no_test_entry(models: pd.DataFrame) -> None:
    assert (models["maker"] != "community").sum() >= 1_500
    assert models["id"].is_unique
    assert models["id"].str.fullmatch(r"[a-z0-9.-]+/[a-z0-9.+-]+").all()
    assert not models["id"].str.contains(r"simple/model|example-|testing/|/test-").any()


def test_every_fact_and_every_row_has_a_source(models: pd.DataFrame) -> None:
    assert (models["sources"].str.len() > 0).all()
    for row in models.to_dict("records"):
        sources = json.loads(row["fact_sources"])
        for column in (
            "context_tokens",
            "parameters",
            "release_date",
            "open_weights",
            "licence_note",
        ):
            assert pd.isna(row[column]) or sources[column], (row["id"], column)


def test_facts_are_possible(models: pd.DataFrame) -> None:
    both = models.dropna(subset=["parameters", "active_parameters"])
    assert (both["active_parameters"] <= both["parameters"]).all()
    assert models["parameters"].dropna().between(1e5, 3e12).all()
    assert models["context_tokens"].dropna().between(1, 2e7).all()
    assert models["release_date"].dropna().str.fullmatch(r"20\d\d(-\d\d(-\d\d)?)?").all()
    bases = models["base_model_id"].dropna()
    assert bases.isin(models["id"]).sum() > 450
    # The others are repositories that the catalogue does not have.
    assert bases[~bases.isin(models["id"])].str.fullmatch(r"[\w.-]+/[\w.-]+").all()
    assert not (models["base_model_id"] == models["id"]).any()


def test_prices_are_of_models_and_of_no_subscription(models: pd.DataFrame) -> None:
    prices = catalogue.prices()
    assert prices["model_id"].isin(models["id"]).all()
    assert (prices["usd_per_million_input"] >= 0).all()
    free = prices[(prices["usd_per_million_input"] == 0) & (prices["usd_per_million_output"] == 0)]
    assert free["published_name"].str.contains("free").all()
    assert prices["source"].str.len().min() > 10


@pytest.mark.parametrize(
    ("model_id", "facts"),
    [
        (
            "qwen/qwen3-8b",
            {"parameters": 8_000_000_000, "licence": "apache-2.0", "open_weights": True},
        ),
        (
            "anthropic/claude-sonnet-4-5-20250929",
            {"vision": True, "tools": True, "open_weights": False},
        ),
        ("qwen/qwen3-235b-a22b-instruct-2507", {"active_parameters": 22_000_000_000}),
        ("qwen/qwen3-8b", {"base_model_id": "qwen/qwen3-8b-base"}),
        (
            "deepseek/deepseek-r1-distill-qwen-32b",
            {"base_model_id": "qwen/qwen2.5-32b", "open_weights": True, "licence": "mit"},
        ),
        ("aiteamvn/vietnamese-embedding", {"base_model_id": "baai/bge-m3"}),
        ("jxm/cde-small-v2", {"base_model_id": "answerdotai/ModernBERT-base"}),
        ("nanbeige/nanbeige4-3b-thinking-2511", {"open_weights": True}),
        ("bytedance/ui-tars-1.5-7b", {"open_weights": True}),
        ("meta/llama-3.1-8b-instruct-fp8", {"open_weights": True}),
        ("openai/gpt-4o", {"open_weights": False}),
        ("qwen/qwen-max-0919", {"open_weights": False}),
        ("mistralai/mistral-small-2506", {"licence": "apache-2.0", "open_weights": True}),
        ("mistralai/mistral-nemo-2407", {"licence": "apache-2.0"}),
        ("meta/llama-4-scout-17b-16e-instruct", {"licence": "llama-4-cla-2025"}),
        ("microsoft/phi-2", {"parameters": 2_700_000_000}),
        (
            "meta/llama-4-maverick-17b-128e-instruct",
            {"parameters": 402_000_000_000, "active_parameters": 17_000_000_000},
        ),
        (
            "meta/llama-4-scout-17b-16e-instruct",
            {"parameters": 109_000_000_000, "active_parameters": 17_000_000_000},
        ),
        ("qwen/qwen3-32b-fp8", {"base_model_id": "qwen/qwen3-32b", "parameters": 32_000_000_000}),
    ],
)
def test_facts_of_well_known_models(
    models: pd.DataFrame, model_id: str, facts: dict[str, Any]
) -> None:
    (row,) = models[models["id"] == model_id].to_dict("records")
    assert {key: row[key] for key in facts} == facts


def test_a_licence_that_gives_weights_and_closed_weights_contradict_each_other(
    models: pd.DataFrame,
) -> None:
    """One is left: its list of embedding models states both, and neither can be checked."""
    licensed = models[models["licence"].notna() & (models["licence"] != "proprietary-license")]
    is_open = licensed["open_weights"].fillna(False).astype(bool)
    assert set(licensed.loc[~is_open, "id"]) <= {"tencentbac/conan-embedding-v2"}
    by_id = models.set_index("id")["open_weights"]
    closed = models[models["open_weights"].eq(False) & models["base_model_id"].notna()]
    assert not any(by_id.get(base) is True for base in closed["base_model_id"])
    assert models.loc[models["id"] == "voyage/voyage-3-m-exp", "parameters"].isna().all()


# How it is made

HEADERS = {
    "open_models.csv": "model_id params_b hidden_size max_position_embeddings licence source",
    "gpustack_catalog.csv": (
        "name size_b activated_size_b categories licenses release_date huggingface source"
    ),
    "embedding_models.csv": (
        "model_id model_type release_date n_parameters embed_dim max_tokens licence "
        "open_weights reference source"
    ),
    "helm_model_metadata.csv": "name display_name access num_parameters release_date tags source",
    "models_dev.csv": (
        "provider provider_name model_id name family release_date open_weights "
        "reasoning tool_call input_modalities output_modalities context max_output "
        "usd_per_1m_input usd_per_1m_output usd_per_1m_cache_read source"
    ),
    "prices_litellm.csv": (
        "key provider mode max_input_tokens max_output_tokens input_cost_per_token "
        "output_cost_per_token cache_read_cost_per_token supports_function_calling "
        "supports_vision supports_reasoning output_vector_size source"
    ),
    "benchmark_results.csv": (
        "benchmark variant model_name metric score date organization model_link "
        "licence_of_model self_reported source"
    ),
}
ROWS: dict[str, list[dict[str, str]]] = {
    "gpustack_catalog.csv": [
        {"name": "Qwen3-8B", "size_b": "8", "categories": "llm", "licenses": "apache-2.0",
         "release_date": "2025-04-19", "huggingface": "Qwen/Qwen3-8B|Qwen/Qwen3-8B-FP8",
         "source": "gpustack@1"},
        {"name": "Kimi-K2", "size_b": "1", "activated_size_b": "32", "categories": "llm",
         "huggingface": "moonshotai/Kimi-K2-Base", "source": "gpustack@1"},
        {"name": "Whisper", "size_b": "769", "categories": "speech_to_text",
         "huggingface": "openai/whisper-medium", "source": "gpustack@1"},
    ],
    "models_dev.csv": [
        {"provider": provider, "provider_name": provider.upper(), "model_id": "claude-opus-4-1",
         "name": "Claude Opus 4.1", "open_weights": "False", "reasoning": "True",
         "tool_call": "True",
         "input_modalities": "text|image", "output_modalities": "text", "context": context,
         "usd_per_1m_input": price, "usd_per_1m_output": price, "source": "models-dev (2026-05)"}
        for provider, context, price in (
            ("anthropic", "200000", "15"), ("kilo", "128000", "14"), ("poe", "128000", "0"))
    ],
    "prices_litellm.csv": [
        {"key": "anthropic.claude-opus-4-1-20250805-v1:0", "provider": "bedrock", "mode": "chat",
         "max_input_tokens": "200000", "input_cost_per_token": "1.5e-05",
         "output_cost_per_token": "7.5e-05", "source": "litellm 1"},
        {"key": "tavily/search", "provider": "tavily", "mode": "search", "source": "litellm 1"},
    ],
    "helm_model_metadata.csv": [
        {"name": "simple/model1", "display_name": "Simple Model 1", "access": "open",
         "source": "helm"}
    ],
    "benchmark_results.csv": [
        {"benchmark": "LMArena", "model_name": "Claude Opus 4.1", "organization": "Anthropic",
         "licence_of_model": "Proprietary", "source": "csv@1 (2025-08-06)"}
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file, header in HEADERS.items():
        with (tmp_path / file).open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, header.split(), restval="")
            writer.writeheader()
            writer.writerows(ROWS.get(file, []))
    return tmp_path


def test_build_takes_each_fact_from_the_most_trusted_source(folder: Path) -> None:
    built = catalogue_build.build(folder)
    rows = {row["id"]: row for row in built.catalogue}
    claude = rows["anthropic/claude-opus-4-1-20250805"]
    assert claude["context_tokens"] == 200_000
    assert json.loads(claude["disagreements"])["context_tokens"] == [128_000]
    assert json.loads(claude["fact_sources"])["context_tokens"].endswith("anthropic")
    assert (claude["vision"], claude["tools"], claude["licence"]) == (
        True,
        True,
        "proprietary-license",
    )
    assert rows["qwen/qwen3-8b-fp8"]["base_model_id"] == "qwen/qwen3-8b"
    assert rows["moonshotai/kimi-k2-base"]["parameters"] == 10**12
    assert rows["openai/whisper-medium"]["parameters"] == 769 * 10**6


def test_the_active_size_in_a_name_is_not_the_size_of_a_mixture(folder: Path) -> None:
    scout = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
    for file, row in (
        ("open_models.csv", {"model_id": scout, "params_b": "17"}),
        ("helm_model_metadata.csv", {"name": scout, "num_parameters": "109000000000"}),
        ("open_models.csv", {"model_id": "Qwen/Qwen1.5-MoE-A2.7B", "params_b": "2.7"}),
        ("open_models.csv", {"model_id": "Qwen/Qwen3-30B-A3B", "params_b": "30"}),
    ):
        with (folder / file).open("a", encoding="utf-8", newline="") as lines:
            header = HEADERS[file].split()
            csv.DictWriter(lines, header, restval="").writerow(row | {"source": file})
    rows = {row["id"]: row for row in catalogue_build.build(folder).catalogue}
    sizes = {
        model_id: (rows[model_id]["parameters"], rows[model_id]["active_parameters"])
        for model_id in (
            *("meta/llama-4-scout-17b-16e-instruct", "qwen/qwen1.5-moe-a2.7b"),
            "qwen/qwen3-30b-a3b",
        )
    }
    assert sizes == {
        "meta/llama-4-scout-17b-16e-instruct": (109 * 10**9, 17 * 10**9),
        "qwen/qwen1.5-moe-a2.7b": (None, 2_700_000_000),
        "qwen/qwen3-30b-a3b": (30 * 10**9, 3 * 10**9),
    }


def test_build_leaves_out_what_is_no_model_and_what_is_no_price(folder: Path) -> None:
    built = catalogue_build.build(folder)
    assert not any(row["id"].startswith(("simple/", "tavily/")) for row in built.catalogue)
    assert [row["rule"] for row in built.names if row["name"] == "simple/model1"] == [
        "a test entry"
    ]
    prices = {row["provider"]: row["usd_per_million_output"] for row in built.prices}
    assert prices == {"anthropic": 15.0, "kilo": 14.0, "bedrock": 75.0}


def test_build_gives_the_same_bytes_for_the_same_files(folder: Path, tmp_path: Path) -> None:
    for target in ("first", "second"):
        catalogue_build.write(catalogue_build.build(folder), tmp_path / target)
    for file in ("catalogue.parquet", "names.parquet", "prices.parquet"):
        first, second = ((tmp_path / target / file).read_bytes() for target in ("first", "second"))
        assert first == second


def test_build_names_the_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"open_models\.csv"):
        catalogue_build.build(tmp_path)


# How it is searched


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("qwen3 8b", "qwen/qwen3-8b"),
        ("Qwen/Qwen3-8B", "qwen/qwen3-8b"),
        ("gpt-4o", "openai/gpt-4o"),
        ("deepseek r1", "deepseek/deepseek-r1"),
        ("llama 70b", "meta/llama-3.3-70b-instruct"),
        ("whisper large v3", "openai/whisper-large-v3"),
        ("us.anthropic.claude-3-7-sonnet", "anthropic/claude-3-7-sonnet-20250219"),
    ],
)
def test_the_model_that_is_asked_for_comes_first(index: Index, text: str, first: str) -> None:
    assert index.search(text, limit=1).models["id"].tolist() == [first]


def test_every_word_must_be_there_and_a_part_of_one_is_enough(index: Index) -> None:
    found = index.search("mistr smal", limit=10_000)
    text = (found.models["id"] + found.models["name"]).str.lower()
    assert found.total == len(found.models) > 5
    assert text.str.contains("mistr").all()
    assert text.str.contains("smal").all()


def test_a_typing_mistake_is_read_as_the_nearest_word_and_said(index: Index) -> None:
    found = index.search("antropic sonet")
    assert found.corrected == {"antropic": "anthropic", "sonet": "sonnet"}
    assert found.total == index.search("anthropic sonnet").total > 3
    assert index.search("zzzzqqq").total == 0


@pytest.mark.parametrize(
    ("first", "second", "mistakes"),
    [
        ("llama", "llama", 0),
        ("lama", "llama", 1),
        ("lalma", "llama", 1),
        ("qwen", "qwne", 1),
        ("ab", "cd", 2),
    ],
)
def test_typing_mistakes(first: str, second: str, mistakes: int) -> None:
    assert typing_mistakes(first, second) == typing_mistakes(second, first) == mistakes


def test_facets_narrow_and_count_like_a_plain_filter(index: Index) -> None:
    found = index.search(
        "llama", facets={"open_weights": ["yes"], "size": ["4B to 10B", "1B to 4B"]}, limit=10_000
    )
    everything = index.search("llama", limit=10_000).models
    size = everything["parameters"].fillna(-1)
    plain = everything[(everything["open_weights"] == True) & (size >= 1e9) & (size < 10e9)]  # noqa: E712
    assert set(found.models["id"]) == set(plain["id"])
    assert found.total == len(plain) > 10
    # A facet's own choice does not narrow its counts; the other facets' choices do.
    opened = everything[everything["open_weights"] == True]  # noqa: E712
    assert sum(found.facets["size"].values()) == len(opened)
    assert sum(found.facets["organisation"].values()) == len(plain)
    assert found.facets["size"][UNKNOWN] == int(opened["parameters"].isna().sum())
    assert set(found.facets) == set(FACETS)


def test_a_model_counts_for_each_of_its_modalities(index: Index) -> None:
    found = index.search(
        facets={"modalities_in": ["audio"], "modalities_out": ["text"]}, limit=10_000
    )
    assert all("audio" in each for each in found.models["modalities_in"])
    assert all("text" in each for each in found.models["modalities_out"])


def test_ranges_keep_their_ends_and_leave_out_what_is_not_known(index: Index) -> None:
    ranges = {"context_tokens": (131_072, None), "release_date": ("2025-01", "2025-12-31")}
    found = index.search(ranges=ranges, limit=10_000).models
    assert (found["context_tokens"] >= 131_072).all()
    assert found["release_date"].between("2025-01", "2025-12-31").all()
    assert 131_072 in set(found["context_tokens"])


@pytest.mark.parametrize("sort", SORTS)
def test_orders_put_the_unknown_last(index: Index, sort: str) -> None:
    rows = index.search("gpt", sort=sort, limit=10_000).models
    if sort == "relevance":
        assert rows["name"].iloc[0].lower().startswith("gpt")
        return
    known = rows[sort].dropna()
    assert rows[sort].iloc[: len(known)].notna().all()
    values = [value.lower() if isinstance(value, str) else value for value in known]
    descending = sort not in ("name", "organisation", "family", "licence") and "usd" not in sort
    assert values == sorted(values, reverse=descending)


def test_pages_of_a_search_are_its_rows_in_order(index: Index) -> None:
    whole = index.search("claude", limit=20).models["id"].tolist()
    parts = [
        index.search("claude", limit=5, offset=at).models["id"].tolist() for at in (0, 5, 10, 15)
    ]
    assert [each for part in parts for each in part] == whole


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ({"facets": {"organization": ["Meta"]}}, "organisation"),
        ({"ranges": {"context": (1, None)}}, "context_tokens"),
        ({"sort": "parameter"}, "parameters"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest(
    index: Index, asked: dict[str, Any], nearest: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(repr(nearest))):
        index.search(**asked)


def test_the_cheapest_host_is_shown_and_free_offers_are_no_price(index: Index) -> None:
    rows = index.search("deepseek r1", limit=50).models.dropna(subset=["usd_per_million_input"])
    prices = catalogue.prices()
    for row in rows.to_dict("records"):
        own = prices[prices["model_id"] == row["id"]]
        blend = 3 * own["usd_per_million_input"] + own["usd_per_million_output"].fillna(0)
        cheapest = own[blend == blend[blend > 0].min()]
        assert row["usd_per_million_input"] in set(cheapest["usd_per_million_input"])
        assert row["hosts"] == own["provider"].nunique()
