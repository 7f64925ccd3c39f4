"""Publishes the route table whenever something that stands in it changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from core.contracts import route_table
from core.contracts.route_table import RouteTable
from core.kernel import clock, database, events
from core.kernel.settings import settings
from core.routing.composition import Composed, compose
from core.routing.models import Publication


def table_path() -> Path:
    """Where the gateway finds the table."""
    return settings().data_dir / "routes" / route_table.FILE_NAME


def publish() -> int:
    """Publish the table when it differs from the last one; its version.

    Safe from any thread or process: the database's write lock puts publishers in order.
    """
    composed = compose()
    with database.reading() as session:
        last = session.get(Publication, 1)
    if last is not None and _is_published(last, _digest(composed)):
        return last.version
    with database.transaction() as tx:
        # Composed again: another publisher may have come first.
        composed = compose()
        digest = _digest(composed)
        last = tx.get(Publication, 1)
        if last is not None and _is_published(last, digest):
            return last.version
        if last is None:
            last = Publication(id=1, version=0)
            tx.add(last)
        last.version, last.content_sha256, last.published_at = (
            last.version + 1,
            digest,
            clock.now(),
        )
        routes, keys, limited, blocks, guardrails, projects = composed
        table = RouteTable(
            version=last.version,
            published_unix_s=clock.unix_s(),
            routes=routes,
            keys=keys,
            limits=limited,
            blocks=blocks,
            guardrails=guardrails,
            projects=projects,
        )
        _write(route_table.encode(table))
        return last.version


def _digest(composed: Composed) -> str:
    return hashlib.sha256(msgspec.json.encode(composed)).hexdigest()


def _is_published(last: Publication, digest: str) -> bool:
    return last.content_sha256 == digest and table_path().exists()


def subscribe() -> None:
    """Publish whenever something that stands in the table changes."""
    for what in (
        *("keys", "deployments", "models", "limits", "prices", "routes"),
        *("blocks", "guardrails", "captures", "caches", "projects"),
    ):
        events.subscribe(f"{what}.changed", _publish)


def _publish() -> None:
    publish()


def _write(content: bytes) -> None:
    path = table_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
