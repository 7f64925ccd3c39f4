"""Which requests are the same: they get the same answer from the cache, and no others do.

All of a body counts but what is listed here as changing nothing. The other way round, with a list
of what counts, each field that is forgotten, or new, gives somebody a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from core.contracts.route_table import Route
from gateway import split
from gateway.body import Parsed
from gateway.guardrails.rules import Rails
from gateway.table import Target

# A longer request is not looked up.
MAX_BODY_BYTES = 1_000_000
_VERSION = 1
_EMBEDDINGS = "/v1/embeddings"
# Who asks, and how the answer is brought. The form of a stream counts: see `place_of`.
_NO_MATTER = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "stream", "stream_options"}
)


class _Unclear(ValueError):
    """A field is there twice: servers differ in which one they take."""


def servers_of(target: Target) -> list[str]:
    """What answers for a route."""
    parts = [share.target.route for share in target.shares] or [target.route]
    return sorted(server_of(route) for route in parts)


def server_of(route: Route) -> str:
    """What answers; replicas of a deployment come and go, and are all alike."""
    hosted = sorted(
        msgspec.json.encode((replica.base_url, replica.hosted), order="sorted").decode()
        for replica in route.replicas
        if replica.hosted is not None
    )
    return msgspec.json.encode((route.deployment_id, route.upstream_model, hosted)).decode()


def place_of(
    target: Target,
    servers: list[str],
    path: str,
    body: Parsed,
    rails: Rails | None,
    generation: int,
    key_id: str,
) -> bytes:
    """All that counts but the body.

    Args:
        target: The route that is called, as it is now.
        servers: What answers for it: see `servers_of`.
        path: The endpoint at the replica.
        body: The request: only the form in which it wants its answer.
        rails: The project's guardrails; their rules count, since they change answers.
        generation: Of the project's cache.
        key_id: Whose request it is.
    """
    route, shares = target.route, target.shares
    # A key keeps its target (A/B), so that it must not get the answer of another.
    first = split.order(shares, key_id)[:1] if shares and route.split_by == "key" else []
    form = (body.stream, body.stream and body.wants_usage)
    return msgspec.json.encode(
        (
            *(_VERSION, route.project_id, generation, path, route.model, form),
            servers,
            [each.route.deployment_id for each in first],
            [] if rails is None else _rules(rails),
        )
    )


def key_of(place: bytes, raw: bytes, path: str, *, all_requests: bool) -> bytes | None:
    """The key of a request, 32 bytes; None for one whose answer is not kept.

    Args:
        place: See `place_of`.
        raw: The body.
        path: The endpoint at the replica.
        all_requests: Also of requests that do not ask for the same answer each time.
    """
    try:
        document = json.loads(raw, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    if not (all_requests or path == _EMBEDDINGS or _is_repeatable(document)):
        return None
    counts = {name: value for name, value in document.items() if name not in _NO_MATTER}
    canonical = json.dumps(counts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"%d:%b%b" % (len(place), place, canonical.encode())).digest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unclear
    return found


def _is_repeatable(document: dict[str, Any]) -> bool:
    """Whether it asks for the same answer each time: temperature 0, or a seed."""
    temperature = document.get("temperature")
    is_cold = type(temperature) in (int, float) and temperature == 0
    return is_cold or type(document.get("seed")) is int


def _rules(rails: Rails) -> list[bytes]:
    every = {
        rail.rule.id: rail.rule
        for group in (rails.asked, rails.asked_report, rails.answered, rails.answered_report)
        for rail in group
    }
    return sorted(msgspec.json.encode(rule, order="sorted") for rule in every.values())
