"""The route table in the form requests look things up in, swapped whole when the file changes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.contracts import route_table
from core.contracts.route_table import ApiKey, Route
from core.kernel import clock
from core.kernel.crypto import Keyring
from core.kernel.errors import KeyProblem
from gateway.balancer import Backend

log = logging.getLogger(__name__)

_WATCH_S = 0.15


@dataclass(frozen=True)
class Target:
    """A route with its live backends."""

    route: Route
    backends: tuple[Backend, ...]


@dataclass(frozen=True)
class Table:
    """One snapshot: keys by SHA-256, routes by project and model."""

    version: int = 0
    published_unix_s: float = 0.0
    keys: dict[str, ApiKey] = field(default_factory=dict)
    routes: dict[tuple[str, str], Target] = field(default_factory=dict)

    def key(self, secret: str) -> ApiKey | None:
        """The key with this text; None when there is none, or it has expired."""
        found = self.keys.get(hashlib.sha256(secret.encode()).hexdigest())
        if found is None:
            return None
        expired = found.expires_unix_s is not None and found.expires_unix_s <= clock.unix_s()
        return None if expired else found

    def models(self, key: ApiKey) -> list[Route]:
        """The routes a key can see."""
        return [
            target.route
            for (project_id, model), target in self.routes.items()
            if project_id == key.project_id and (not key.models or model in key.models)
        ]


class TableHolder:
    """Holds the newest good table, and watches the file for the next."""

    def __init__(self, path: Path, keys_dir: Path) -> None:
        self.current = Table()
        self._path = path
        self._keyring = Keyring(keys_dir)
        self._seen: tuple[int, int] | None = None
        self._backends: dict[str, Backend] = {}

    async def watch(self) -> None:
        """Look for a new file until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(_WATCH_S)

    def refresh(self) -> None:
        """Take the file if it is new; keep the last good table if it is damaged."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        mark = (stat.st_mtime_ns, stat.st_ino)
        if mark == self._seen:
            return
        try:
            published = route_table.decode(self._path.read_bytes())
            self.current = self._compile(published)
        except (msgspec.DecodeError, OSError, KeyProblem) as error:
            log.error("the route table is kept at version %s: %s", self.current.version, error)
        else:
            log.info("route table version %s", published.version)
        self._seen = mark

    def _compile(self, published: route_table.RouteTable) -> Table:
        # A backend that stays keeps what is known of it: requests in flight, latency, breaker.
        kept = {
            replica.id: self._backend(replica)
            for route in published.routes
            for replica in route.replicas
        }
        for gone in set(self._backends) - set(kept):
            self._backends[gone].retire()
        self._backends = kept
        routes = {
            (route.project_id, route.model): Target(
                route, tuple(kept[replica.id] for replica in route.replicas)
            )
            for route in published.routes
        }
        return Table(
            version=published.version,
            published_unix_s=published.published_unix_s,
            keys={key.sha256: key for key in published.keys},
            routes=routes,
        )

    def _backend(self, replica: route_table.Replica) -> Backend:
        known = self._backends.get(replica.id)
        if known is not None and known.replica == replica:
            return known
        credential = ""
        if replica.credential:
            context = f"replica:{replica.id}"
            credential = self._keyring.open(replica.credential, context=context).reveal()
        return Backend(replica, credential)
