"""What the parts of the surface share: the worker they belong to, and answers of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from core.contracts.request_fact import RequestFact
from gateway.access import AccessGate
from gateway.cold import ColdCaller
from gateway.config import GatewayConfig
from gateway.errors import GatewayError
from gateway.http_request import Response
from gateway.limits.gate import LimitGate
from gateway.relay import Exchange
from gateway.stats import Stats
from gateway.surface.forms import FormReader
from gateway.table import TableHolder

# Each may take `max_upload_bytes` of the disk, and its time.
_MOST_UPLOADS = 64

Handler = Callable[[Exchange], Awaitable[Response | None]]


class Places:
    """How many of something a worker has at once; one project leaves half of it to others.

    Args:
        what: In the plural, as `error.param` names it.
        most: How many.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, project_id: str) -> Iterator[None]:
        """Take one. Raises GatewayError: there are too many."""
        own, of_a_project = self._taken[project_id], self._most // 2
        if own >= of_a_project or self._taken.total() >= self._most:
            raise GatewayError(
                "rate_limited",
                f"This worker has {self._most} {self._what.replace('_', ' ')} at once, "
                f"{of_a_project} of a project; this project has {own}. Try again soon.",
                param=self._what,
                retry_after_s=5,
            )
        self._taken[project_id] += 1
        try:
            yield
        finally:
            self._taken[project_id] -= 1
            if not self._taken[project_id]:
                del self._taken[project_id]


@dataclass(frozen=True)
class Worker:
    """What the surface uses of the worker that it belongs to."""

    config: GatewayConfig
    tables: TableHolder
    access: AccessGate
    limits: LimitGate
    stats: Stats
    uploads: Places = field(default_factory=lambda: Places("uploads", _MOST_UPLOADS))


async def form_reader(exchange: Exchange, worker: Worker) -> FormReader:
    """Reads the form that a request brings. Raises GatewayError: it brings none."""
    request = exchange.request
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise GatewayError(
            "invalid_request",
            "A compressed form is not understood. Send it without Content-Encoding.",
            status=415,
        )
    caller = request.caller
    assert isinstance(caller, ColdCaller)
    return FormReader(
        request.headers.get("content-type"),
        await caller.open_body(request),
        worker.config.max_upload_bytes,
        worker.config.timeouts.caller_s,
        request.content_bytes,
    )


def answered(document: object, fact: RequestFact) -> Response:
    """A whole answer of JSON."""
    headers = {"X-Request-Id": fact.request_id, "Content-Type": "application/json"}
    body = msgspec.json.encode(document)
    fact.response_bytes = len(body)
    return Response(body, headers=headers)


async def not_allowed(exchange: Exchange, allowed: str) -> Response | None:
    """Refuses a method. Raises GatewayError."""
    request = exchange.request
    raise GatewayError(
        "not_found",
        f"{request.method} {request.path[:200]} is not a route of this gateway. Use {allowed}.",
        code="unknown_url",
        status=405,
    )


def missing(what: str, id_: str) -> GatewayError:
    """What a caller is told whose project has no such thing."""
    return GatewayError(
        "not_found",
        f"There is no {what} {id_[:100]!r} in this project: it was deleted, or has expired.",
        param=f"{what}_id",
        code=f"{what}_not_found",
    )
