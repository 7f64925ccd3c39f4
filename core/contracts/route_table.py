"""The route table: one immutable, versioned snapshot that the gateway serves from.

Embedded, it is a file written atomically (`<data folder>/routes/table.json`) and watched.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = 1
FILE_NAME = "table.json"

Capability = Literal["chat", "completion", "embedding"]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in USD per million tokens; None means "not set", never free."""

    input_usd_per_million_tokens: float | None = None
    output_usd_per_million_tokens: float | None = None
    cached_usd_per_million_tokens: float | None = None


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One server that answers for a route.

    `base_url` has no path, such as `http://127.0.0.1:41001`. `credential` is sealed
    (`core.kernel.crypto`, context `replica:<id>`) and sent as a bearer token; "" means none.
    `slots` is how many requests it works on at once.
    """

    id: str
    base_url: str
    credential: str = ""
    slots: int = 1


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A model name that callers of one project can use.

    `upstream_model` is the model name the replica expects. A route without replicas is known
    but not ready: the gateway answers 503 and gives `state` as the reason.
    """

    model: str
    project_id: str
    deployment_id: str
    upstream_model: str
    capabilities: list[Capability]
    replicas: list[Replica] = []
    context_tokens: int = 0
    state: str = "ready"
    created_unix_s: int = 0
    price: Price | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key callers may use; only its SHA-256 (hex, of the whole `bud-…` text) is known here.

    `models` empty means every model of the project; `expires_unix_s` None means never.
    """

    id: str
    sha256: str
    project_id: str
    user_id: str
    expires_unix_s: float | None = None
    models: list[str] = []


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway needs to answer; swapped whole."""

    version: int
    published_unix_s: float
    routes: list[Route] = []
    keys: list[ApiKey] = []
    schema: int = SCHEMA


def encode(table: RouteTable) -> bytes:
    """The table as JSON."""
    return msgspec.json.encode(table)


def decode(content: bytes) -> RouteTable:
    """The table from JSON; raises msgspec.DecodeError on a damaged file."""
    return msgspec.json.decode(content, type=RouteTable)
