"""Thirty days of requests, made up: a working week, growth, a nightly batch and three incidents.

The same seed gives the same traffic, shifted to end at the given moment.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from core.metrics.schemas import StoredFact

DAYS = 30
CLUSTER_ID = "demo"
_SEED = 20_261_124
_MINUTES = DAYS * 24 * 60
_BASE_ERROR_RATE = 0.007

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Model:
    """A made-up deployment. Prices are USD per million tokens."""

    name: str
    endpoint: str
    input_tokens: int
    output_tokens: int
    ttft_ms: float
    ms_per_token: float
    input_usd: float
    output_usd: float

    @property
    def deployment_id(self) -> str:
        """Marked as demo, as everything here is."""
        return f"dep_demo_{self.name}"


@dataclass(frozen=True)
class Caller:
    """A made-up program with a key: how much it asks, of which models, when."""

    key: str
    requests_a_day: float
    models: Mapping[str, float]
    nightly: bool = False
    streams: float = 0.9


@dataclass(frozen=True)
class Incident:
    """A time (`hour` in UTC) in which a share of one model's requests failed."""

    days_ago: int
    hour: float
    minutes: int
    model: str
    share: float
    error_class: str
    status: int
    message: str


_CHAT = "/v1/chat/completions"
MODELS = (
    Model("support-chat", _CHAT, 620, 180, 210.0, 14.0, 0.15, 0.60),
    Model("code-assist", _CHAT, 1900, 320, 480.0, 22.0, 0.80, 2.40),
    Model("report-writer", _CHAT, 3800, 900, 950.0, 31.0, 1.10, 3.30),
    Model("doc-search", "/v1/embeddings", 380, 0, 38.0, 0.0, 0.02, 0.0),
)
CALLERS = (
    Caller("web-app", 700, {"support-chat": 0.7, "doc-search": 0.3}),
    Caller("mobile-app", 420, {"support-chat": 0.85, "doc-search": 0.15}),
    Caller("ide-plugin", 520, {"code-assist": 0.9, "doc-search": 0.1}),
    Caller("ci", 160, {"code-assist": 1.0}, streams=0.0),
    Caller("nightly-reports", 200, {"report-writer": 0.8, "doc-search": 0.2}, True, 0.0),
)
INCIDENTS = (
    Incident(17, 13.2, 100, "code-assist", 0.7, "upstream_broke", 502, "The replica broke off."),
    Incident(6, 14.5, 50, "support-chat", 0.9, "no_replica", 503, "No replica is ready."),
    Incident(
        1, 12.0, 80, "code-assist", 0.45, "timeout", 504, "The replica did not answer in 60 s."
    ),
)
# The errors of ordinary days: class, HTTP status, message, weight.
_ORDINARY = (
    ("client_closed", 499, "The caller hung up.", 0.45),
    ("context_length", 400, "The prompt is longer than the context of 8192 tokens.", 0.25),
    ("invalid_request", 400, "`messages` is missing.", 0.15),
    ("upstream_error", 502, "The replica answered 500.", 0.15),
)


def requests(end: datetime, project_id: str, key_ids: Mapping[str, str]) -> Iterator[StoredFact]:
    """The requests of the thirty days before `end`, in order of time.

    Args:
        end: The last moment.
        project_id: The project they belong to.
        key_ids: The id of each caller's key, by the caller's name.
    """
    chance = np.random.default_rng(_SEED)
    models = {model.name: model for model in MODELS}
    start = end - timedelta(days=DAYS)
    planned = sorted(
        (float(at_s), caller, str(name))
        for caller in range(len(CALLERS))
        for at_s, name in _planned(chance, CALLERS[caller], start)
    )
    # A value at a time: numpy's generator is several times slower at that.
    single = random.Random(_SEED)  # noqa: S311 (made-up traffic, no secret)
    for number, (at_s, caller, name) in enumerate(planned):
        yield _fact(single, number, start, at_s, CALLERS[caller], models[name], project_id, key_ids)


def _planned(
    chance: np.random.Generator, caller: Caller, start: datetime
) -> Iterator[tuple[float, str]]:
    per_minute = _shape(caller, start) * caller.requests_a_day / (24 * 60)
    minutes = np.repeat(np.arange(_MINUTES), chance.poisson(per_minute))
    at_s = minutes * 60 + chance.uniform(0, 60, len(minutes))
    names = chance.choice(list(caller.models), len(minutes), p=list(caller.models.values()))
    yield from zip(at_s.tolist(), names.tolist(), strict=True)


def _shape(caller: Caller, start: datetime) -> FloatArray:
    """How busy each minute is, about 1 on average: hour of day, day of week, growth."""
    minute = np.arange(_MINUTES)
    hour = (start.hour + (start.minute + minute) / 60) % 24
    days = (start.hour * 60 + start.minute + minute) // (24 * 60)
    weekday = (start.weekday() + days) % 7
    growth = 0.65 + 0.7 * minute / _MINUTES
    if caller.nightly:
        return np.where((hour >= 1) & (hour < 3), 12.0, 0.0) * growth
    working_day = 0.25 + 2.3 * np.exp(-(((hour - 14) / 4.2) ** 2))
    lunch = 1 - 0.25 * np.exp(-(((hour - 12.3) / 0.6) ** 2))
    weekend = np.where(weekday >= 5, 0.35, 1.0)
    shape: FloatArray = working_day * lunch * weekend * growth
    return shape


def _fact(
    chance: random.Random,
    number: int,
    start: datetime,
    at_s: float,
    caller: Caller,
    model: Model,
    project_id: str,
    key_ids: Mapping[str, str],
) -> StoredFact:
    fact = StoredFact(
        request_id=f"req_demo_{number:07}",
        started_unix_s=start.timestamp() + at_s,
        endpoint=model.endpoint,
        model=model.name,
        project_id=project_id,
        deployment_id=model.deployment_id,
        replica_id=f"rep_demo_{model.name}_{number % 2}",
        key_id=key_ids[caller.key],
        stream=model.output_tokens > 0 and chance.random() < caller.streams,
        status=200,
        attempts=1,
        worker_id="demo",
        cluster_id=CLUSTER_ID,
    )
    failed = _failure(chance, at_s, start.hour * 3600 + start.minute * 60, model)
    if failed is not None:
        fact.error_class, fact.status, fact.error_message = failed
        fact.duration_ms = _failed_ms(chance, fact.error_class)
        return fact
    return _succeed(chance, fact, model)


def _failure(
    chance: random.Random, at_s: float, since_midnight_s: float, model: Model
) -> tuple[str, int, str] | None:
    for incident in INCIDENTS:
        began_s = (DAYS - incident.days_ago) * 86400 - since_midnight_s + incident.hour * 3600
        inside = began_s <= at_s < began_s + incident.minutes * 60
        if inside and model.name == incident.model and chance.random() < incident.share:
            return incident.error_class, incident.status, incident.message
    if chance.random() >= _BASE_ERROR_RATE:
        return None
    kind = chance.choices(_ORDINARY, weights=[entry[3] for entry in _ORDINARY])[0]
    return kind[:3]


def _failed_ms(chance: random.Random, error_class: str) -> float:
    if error_class == "timeout":
        return 60_000.0
    return chance.lognormvariate(1.5 if error_class in _AT_ONCE else 6.5, 0.5)


_AT_ONCE = ("context_length", "invalid_request", "no_replica")


def _succeed(chance: random.Random, fact: StoredFact, model: Model) -> StoredFact:
    input_tokens = max(int(chance.lognormvariate(math.log(model.input_tokens), 0.6)), 8)
    cached_tokens = int(input_tokens * 0.4) if model.output_tokens and chance.random() < 0.3 else 0
    output_tokens = 0
    if model.output_tokens:
        output_tokens = max(int(chance.lognormvariate(math.log(model.output_tokens), 0.7)), 2)
    # A longer prompt takes longer to the first token; one in forty waits behind others.
    waiting = 4.0 if chance.random() < 0.025 else 1.0
    length = 0.5 + 0.5 * input_tokens / model.input_tokens
    ttft_ms = model.ttft_ms * length * waiting * chance.lognormvariate(0, 0.25)
    generation_ms = output_tokens * model.ms_per_token * chance.lognormvariate(0, 0.12)
    fact.input_tokens = input_tokens
    fact.output_tokens = output_tokens
    fact.cached_tokens = cached_tokens
    fact.connect_ms = chance.lognormvariate(-0.5, 0.4)
    fact.ttft_ms = ttft_ms if fact.stream else None
    fact.duration_ms = ttft_ms + generation_ms
    fact.request_bytes = input_tokens * 5
    fact.response_bytes = output_tokens * (180 if fact.stream else 5) + 400
    fact.cost_usd = (input_tokens * model.input_usd + output_tokens * model.output_usd) / 1e6
    return fact
