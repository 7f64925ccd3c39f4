"""Questions to the store, with numbers computed by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.widgets.reasons import REASONS
from core.accounts import api_keys
from core.contracts.request_fact import CALLER_LEFT, REFUSED
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, PermissionDenied
from core.metrics import segments, services
from core.metrics.schemas import Filters, StoredFact, Window
from core.registry import services as registry
from gateway.errors import CLASSES

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
HOUR = Window(start=NOON, end=NOON + timedelta(hours=1))
PROJECT = "prj_a"


def fact(number: int, at_s: float = 0.0, **values: object) -> StoredFact:
    """A request that started `at_s` seconds after noon."""
    defaults: dict[str, object] = {
        "project_id": PROJECT,
        "model": "tiny",
        "deployment_id": "dep_tiny",
        "replica_id": "rep_1",
        "key_id": "key_1",
        "status": 200,
        "duration_ms": 100.0,
    }
    return StoredFact(
        request_id=f"req_{number}",
        started_unix_s=NOON.timestamp() + at_s,
        endpoint="/v1/chat/completions",
        **(defaults | values),  # type: ignore[arg-type]
    )


@pytest.fixture
def hour(data_dir: Path) -> Path:
    """101 good requests with a duration of 0 to 100 ms, then three others."""
    good = [
        fact(n, n, duration_ms=float(n), ttft_ms=n / 2, input_tokens=10, output_tokens=5)
        for n in range(101)
    ]
    others = [
        fact(200, 200, status=502, error_class="upstream_error", error_message="first"),
        fact(201, 201, status=502, error_class="upstream_error", error_message="second"),
        fact(202, 202, status=499, error_class="client_closed", model="large", key_id="key_2"),
    ]
    segments.write(data_dir, "seg-1", good)
    segments.write(data_dir, "seg-2", others)
    return data_dir


def test_summary_counts_requests_errors_and_tokens(hour: Path, admin: Actor) -> None:
    summary = services.summary(admin, PROJECT, HOUR)
    assert (summary.requests, summary.errors, summary.cancelled) == (104, 2, 1)
    assert (summary.input_tokens, summary.output_tokens) == (1010, 505)
    assert summary.error_rate == pytest.approx(2 / 104)
    assert summary.output_tokens_per_s == pytest.approx(505 / 3600)
    assert summary.requests_per_minute == pytest.approx(104 / 60)


def test_percentiles_are_over_the_rows_that_succeeded(hour: Path, admin: Actor) -> None:
    latency = services.summary(admin, PROJECT, HOUR).latency
    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms) == (50.0, 95.0, 99.0)
    ttft = services.summary(admin, PROJECT, HOUR).ttft
    assert (ttft.p50_ms, ttft.p95_ms, ttft.p99_ms) == (25.0, 47.5, 49.5)


def test_copies_count_in_no_total_and_hits_tell_what_they_saved(hour: Path, admin: Actor) -> None:
    copies = [fact(n, n, model="next", shadow_of="req_1", output_tokens=5) for n in (300, 301)]
    cached = [
        fact(400, 400, cache="miss"),
        fact(401, 401, cache="hit", saved_tokens=12, saved_usd=0.5),
        fact(402, 402, cache="hit", saved_tokens=8, saved_usd=None),
        fact(403, 403, cache="bypass"),
    ]
    before = services.summary(admin, PROJECT, HOUR)
    segments.write(hour, "seg-3", copies)
    assert services.summary(admin, PROJECT, HOUR) == before
    shadow = services.summary(admin, PROJECT, HOUR, Filters(traffic="shadow"))
    assert (shadow.requests, shadow.output_tokens) == (2, 10)
    everything = services.summary(admin, PROJECT, HOUR, Filters(traffic="all"))
    assert everything.requests == before.requests + 2
    rows = services.requests(admin, PROJECT, HOUR, Filters(traffic="shadow"))
    assert {row.shadow_of for row in rows} == {"req_1"}
    assert services.cache_numbers(admin, PROJECT, HOUR).hit_rate is None
    segments.write(hour, "seg-4", cached)
    found = services.cache_numbers(admin, PROJECT, HOUR)
    assert (found.hits, found.misses, found.bypassed) == (2, 1, 1)
    assert (found.saved_tokens, found.saved_usd) == (20, 0.5)
    assert found.hit_rate == pytest.approx(2 / 3)


def test_generation_speed_leaves_out_the_first_token(data_dir: Path, admin: Actor) -> None:
    # 20 tokens after the first within two seconds.
    segments.write(
        data_dir,
        "seg-1",
        [fact(1, stream=True, ttft_ms=500.0, duration_ms=2500.0, output_tokens=21)],
    )
    assert services.summary(admin, PROJECT, HOUR).generation_tokens_per_s == pytest.approx(10.0)


def test_an_empty_window_has_no_percentiles_and_no_cost(hour: Path, admin: Actor) -> None:
    before = Window(start=NOON - timedelta(hours=2), end=NOON)
    summary = services.summary(admin, PROJECT, before)
    assert summary.requests == 0
    assert summary.error_rate is None
    assert summary.latency.p50_ms is None
    assert summary.cost_usd is None


def test_what_the_gateway_refused_is_no_failure(hour: Path, admin: Actor) -> None:
    kinds = ("authentication", "permission", "rate_limited", "invalid_request")
    refused = [fact(300 + n, 300, status=429, error_class=kind) for n, kind in enumerate(kinds)]
    segments.write(hour, "seg-3", refused)
    found = services.summary(admin, PROJECT, HOUR)
    assert (found.requests, found.errors, found.refused, found.cancelled) == (108, 2, 4, 1)
    assert found.error_rate == 2 / 104
    everything_refused = services.summary(admin, PROJECT, HOUR, Filters(outcome="refused"))
    assert everything_refused.error_rate is None


def test_every_class_of_error_has_one_side_and_one_name() -> None:
    known = {*CLASSES, CALLER_LEFT}
    assert known >= REFUSED
    assert {each for each in CLASSES if CLASSES[each][0] < 500} <= REFUSED
    assert set(REASONS) == known


def test_another_project_sees_nothing(hour: Path, admin: Actor) -> None:
    assert services.summary(admin, "prj_b", HOUR).requests == 0
    assert services.requests(admin, "prj_b", HOUR) == []
    assert services.top(admin, "prj_b", HOUR) == []
    assert services.errors(admin, "prj_b", HOUR) == []
    assert services.request_cost(admin, "prj_b", "req_1").basis == "not known yet"
    of_b = Actor("usr_b", "b@example.org", "ten_default", "member", {"prj_b": "member"})
    for ask in (services.summary, services.series, services.top, services.requests):
        with pytest.raises(PermissionDenied):
            ask(of_b, PROJECT, HOUR)  # type: ignore[operator]


def test_a_hostile_filter_is_only_a_value(hour: Path, admin: Actor) -> None:
    filters = Filters(model="' OR 1=1; DROP TABLE request_facts; --")
    assert services.summary(admin, PROJECT, HOUR, filters).requests == 0
    assert services.summary(admin, PROJECT, HOUR).requests == 104


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        (Filters(model="large"), 1),
        (Filters(deployment_id="dep_tiny"), 104),
        (Filters(key_id="key_2"), 1),
        (Filters(outcome="ok"), 101),
        (Filters(outcome="unanswered"), 3),
        (Filters(outcome="failed"), 2),
        (Filters(outcome="cancelled"), 1),
        (Filters(outcome="refused"), 0),
        (Filters(error_class="upstream_error"), 2),
    ],
)
def test_filters(hour: Path, admin: Actor, filters: Filters, requests: int) -> None:
    assert services.summary(admin, PROJECT, HOUR, filters).requests == requests


def test_choices_name_what_exists_and_what_is_gone(hour: Path, admin: Actor) -> None:
    model_id = registry.add_starter(admin).id
    for name in ("tiny", "quiet"):
        wanted = DeploymentRequest(
            project_id=PROJECT, name=name, model_id=model_id, context_tokens=256, slots=1
        )
        deployments.deploy(admin, wanted)
    known = {view.name: view.id for view in deployments.list_deployments(admin, PROJECT)}
    key = api_keys.create_key(admin, PROJECT, "ci").key
    # The model name last seen there was another one.
    gone = {"large": "dep_tiny"}
    assert services.choices(admin, PROJECT, HOUR, "deployment") == gone | known
    segments.write(hour, "seg-3", [fact(300, 300, deployment_id="dep_former")])
    gone |= {"tiny (former)": "dep_former"}
    assert services.choices(admin, PROJECT, HOUR, "deployment") == gone | known
    models = services.choices(admin, PROJECT, HOUR, "model")
    assert models == {name: name for name in ("tiny", "large", "quiet")}
    keys = services.choices(admin, PROJECT, HOUR, "key")
    assert set(keys.values()) == {"key_1", "key_2", key.id}


def test_series_has_every_bucket_and_adds_up(hour: Path, admin: Actor) -> None:
    found = services.series(admin, PROJECT, HOUR, group_by="model", bucket=60)
    assert found.labels == {"tiny": "tiny", "large": "large"}
    assert len(found.points) == 2 * 60
    assert sum(point.requests for point in found.points) == 104
    tiny = [point for point in found.points if point.group == "tiny"]
    assert [point.requests for point in tiny[:4]] == [60, 41, 0, 2]
    assert tiny[0].latency.p50_ms == 29.5
    assert tiny[2].latency.p50_ms is None


def test_series_sums_small_groups_up(data_dir: Path, admin: Actor) -> None:
    rows = [fact(n * 100 + i, i, model=f"m{n}") for n in range(1, 11) for i in range(n)]
    segments.write(data_dir, "seg-1", rows)
    found = services.series(admin, PROJECT, HOUR, group_by="model", bucket=3600)
    by_group = {point.group: point.requests for point in found.points}
    assert by_group == {"m10": 10, "m9": 9, "m8": 8, "m7": 7, "m6": 6, "m5": 5, "m4": 4, "other": 6}


@pytest.mark.parametrize(
    ("name", "bucket_s"),
    [("15m", 10), ("1h", 30), ("6h", 300), ("24h", 900), ("7d", 7200), ("30d", 21600)],
)
def test_buckets_fit_the_window(name: str, bucket_s: int) -> None:
    assert services.bucket_s(Window.preset(name)) == bucket_s


def test_bad_windows_are_refused(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(InvalidInput):
        Window.preset("3 days")
    with pytest.raises(InvalidInput):
        Window.between(NOON, NOON)
    with pytest.raises(InvalidInput):
        services.series(admin, PROJECT, HOUR, bucket=1)


def test_top_errors_and_newest_requests(hour: Path, admin: Actor) -> None:
    top = services.top(admin, PROJECT, HOUR, group_by="deployment")
    assert [(row.group, row.label, row.requests) for row in top] == [("dep_tiny", "large", 104)]
    errors = services.errors(admin, PROJECT, HOUR)
    assert [(row.error_class, row.requests, row.last_message) for row in errors] == [
        ("upstream_error", 2, "second"),
        ("client_closed", 1, ""),
    ]
    over_time = services.errors_over_time(admin, PROJECT, HOUR)
    assert sum(point.requests for point in over_time) == 3
    rows = services.requests(admin, PROJECT, HOUR, limit=2)
    assert [row.request_id for row in rows] == ["req_202", "req_201"]
    assert rows[1].error_message == "second"


def test_forget_project_takes_only_its_own(hour: Path, admin: Actor) -> None:
    segments.write(hour, "seg-b", [fact(1, project_id="prj_b")])
    assert services.forget_project(admin, PROJECT) == 104
    assert services.summary(admin, PROJECT, HOUR).requests == 0
    assert services.summary(admin, "prj_b", HOUR).requests == 1


def test_guardrails_are_counted_by_what_they_did(data_dir: Path, admin: Actor) -> None:
    ran = (
        '[{"rule":"cards","side":"input","outcome":"masked","ms":%d,"found":{"card":1}},'
        '{"rule":"signs","side":"input","outcome":"passed","ms":1.0}]'
    )
    facts = [fact(1, 1, guardrails=ran % 2), fact(2, 2, guardrails=ran % 4), fact(3, 3)]
    segments.write(data_dir, "seg-g", facts)
    counts = services.guardrail_counts(admin, PROJECT, HOUR)
    assert [(each.rule, each.outcome, each.requests, each.mean_ms) for each in counts] == [
        ("cards", "masked", 2, 3.0),
        ("signs", "passed", 2, 1.0),
    ]
    assert [row.guardrails for row in services.requests(admin, PROJECT, HOUR)] == [
        "",
        ran % 4,
        ran % 2,
    ]
