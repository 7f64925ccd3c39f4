"""The route table in the form requests look things up in, swapped whole when the file changes."""

from __future__ import annotations

import asyncio
import logging
import math
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from core.contracts import route_table
from core.contracts.route_table import (
    ApiKey,
    Cache,
    Capture,
    Limit,
    Project,
    Replica,
    Route,
    RouteTable,
)
from core.kernel import clock
from core.kernel.crypto import Keyring
from core.kernel.errors import KeyProblem, NotFound
from gateway import blocks, providers, upstream
from gateway.balancer import Backend, RetryBudget
from gateway.blocks import Blocks
from gateway.config import Timeouts
from gateway.guardrails.rules import RailMaker, Rails
from gateway.hedging import Hedging
from gateway.policies import PICKS, Pick
from gateway.tls import tls_context

log = logging.getLogger(__name__)

# States in which a route without replicas will have some again in a moment.
_COMING_BACK = frozenset({"ready", "degraded", "restarting"})


class Traffic:
    """What a route sent to one deployment since the worker started, retries included.

    `failures` are those to which it gave no answer; another may have.
    """

    __slots__ = ("failures", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0


@dataclass(frozen=True)
class Share:
    """One target of a route: its backends under the route's name and rules, and its part.

    `name` is what the target is called itself. `seed` puts it into each key's own order. Of one
    priority those of a lower `usd` come first: their price where the policy asks for it, else 0.
    """

    name: str
    target: Target
    weight: float
    priority: int
    seed: int
    usd: float = 0.0


@dataclass(frozen=True)
class Target:
    """A route with its live backends.

    `own` are those that requests of the route go to; `pick` is its policy. A route that has
    `shares` has all their backends and none of its own.
    """

    route: Route
    backends: tuple[Backend, ...]
    budget: RetryBudget
    own: tuple[Backend, ...]
    pick: Pick
    timeouts: Timeouts
    traffic: Traffic
    problem: str = ""
    shares: tuple[Share, ...] = ()
    hedging: Hedging | None = None

    def is_plain(self, capability: str) -> bool:
        """Whether it can do this, with any one of its own replicas."""
        return (
            not self.shares
            and self.route.policy != "prefix"
            and self.hedging is None
            and self.route.shadow is None
            and capability in self.route.capabilities
        )

    @property
    def may_come_back(self) -> bool:
        """Whether waiting a moment for a replica makes sense."""
        if self.shares:
            return any(share.weight > 0 and share.target.may_come_back for share in self.shares)
        return bool(self.own) or (not self.problem and self.route.state in _COMING_BACK)

    @property
    def is_available(self) -> bool:
        """Whether a replica may be tried now."""
        return any(backend.available for backend in self.own)

    @property
    def may_answer(self) -> bool:
        """Whether a replica works on requests, be it badly."""
        return any(not backend.away for backend in self.own)

    def name_of(self, deployment_id: str) -> str:
        """What the target with this deployment is called itself; "" when it is none."""
        found = (s.name for s in self.shares if s.target.route.deployment_id == deployment_id)
        return next(found, "")

    def part(self, deployment_id: str) -> Target:
        """The target with this deployment; without any replica when it is none any more."""
        for share in self.shares:
            if share.target.route.deployment_id == deployment_id and share.weight > 0:
                return share.target
        return replace(self, backends=(), own=(), shares=())


@dataclass(frozen=True)
class Table:
    """One snapshot: keys by SHA-256, routes by project and model, projects by id and by name.

    `captures`, `caches` and `guardrails` are by the id of their project. `mark` is this snapshot's
    alone: what was found out in it may be kept with that, and does not keep the snapshot.
    """

    version: int = 0
    mark: object = field(default_factory=object, repr=False, compare=False)
    published_unix_s: float = 0.0
    keys: dict[str, ApiKey] = field(default_factory=dict)
    routes: dict[tuple[str, str], Target] = field(default_factory=dict)
    limits: list[Limit] = field(default_factory=list)
    blocks: Blocks = field(default_factory=Blocks)
    projects: dict[str, Project] = field(default_factory=dict)
    captures: dict[str, Capture] = field(default_factory=dict)
    caches: dict[str, Cache] = field(default_factory=dict)
    guardrails: dict[str, Rails] = field(default_factory=dict)

    def looks_into(self, project_id: str) -> bool:
        """Whether what a project asks and is answered is kept, or looked at."""
        return (
            project_id in self.captures
            or project_id in self.guardrails
            or project_id in self.caches
        )

    def key(self, sha256: str) -> ApiKey | None:
        """The key with this hash; None when there is none, or it has expired."""
        found = self.keys.get(sha256)
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


@dataclass(frozen=True)
class _Loaded:
    """A file that was read: its table and the opened credentials by sealed value."""

    table: RouteTable
    credentials: dict[str, str]
    problems: dict[str, str]
    guardrails: dict[str, Rails]


class TableHolder:
    """Holds the newest good table, and takes the next one when the file changes.

    Args:
        path: The table's file.
        keys_dir: Where the keys are that open its credentials.
        timeouts: What holds where a route says nothing else.

    `keyring` is that of `keys_dir`.
    """

    def __init__(self, path: Path, keys_dir: Path, timeouts: Timeouts | None = None) -> None:
        self.current = Table()
        self._path = path
        self._timeouts = timeouts or Timeouts()
        self.keyring = Keyring(keys_dir)
        self._seen: tuple[int, int, int] | None = None
        self._rails = RailMaker(self._reveal)
        self._credentials: dict[str, str] = {}
        self._backends: dict[str, Backend] = {}
        self._shared_pools: dict[str, upstream.Pool] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._traffic: dict[tuple[str, str, str], Traffic] = {}
        self._hedgings: dict[tuple[str, str], Hedging] = {}
        self._draining: set[Backend] = set()

    @property
    def backends(self) -> list[Backend]:
        """Every replica of the table in use."""
        return list(self._backends.values())

    @property
    def draining(self) -> list[Backend]:
        """Replicas that left the table and still answer."""
        self._draining = {backend for backend in self._draining if backend.in_flight}
        return list(self._draining)

    async def refresh(self) -> None:
        """Take the file if it is new; keep the last good table if it is damaged."""
        mark = self._mark()
        if mark is None or mark == self._seen:
            return
        try:
            loaded = await asyncio.to_thread(self._load)
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            log.error("the route table is kept at version %s: %s", self.current.version, error)
        else:
            self.current = self._compile(loaded)
            log.info("route table version %s is in use", self.current.version)
        self._seen = mark

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def _load(self) -> _Loaded:
        table = route_table.read(self._path)
        credentials: dict[str, str] = {}
        problems: dict[str, str] = {}
        for replica in (replica for route in table.routes for replica in route.replicas):
            sealed = replica.credential
            if not sealed:
                continue
            try:
                if replica.hosted is not None:
                    providers.require(replica.hosted.kind)
                    # The authorities' files are read here, not on the event loop.
                    tls_context()
                credentials[sealed] = self._credentials.get(sealed) or self._open(replica)
            except (KeyProblem, NotFound) as problem:
                log.error("replica %s is left out: %s", replica.id, problem)
                problems[replica.id] = problem.what
        return _Loaded(table, credentials, problems, self._rails.ready(table.guardrails))

    def _open(self, replica: Replica) -> str:
        hosted = replica.hosted
        context = f"replica:{replica.id}" if hosted is None else f"provider:{hosted.account_id}"
        return self._reveal(replica.credential, context)

    def _reveal(self, sealed: str, context: str) -> str:
        return self.keyring.open(sealed, context=context).reveal()

    def _compile(self, loaded: _Loaded) -> Table:
        table = loaded.table
        replicas = {
            replica.id: replica
            for route in table.routes
            for replica in route.replicas
            if replica.id not in loaded.problems
        }
        # A backend that stays keeps what is known of it: requests in flight, latency, breaker.
        kept = {
            replica.id: self._backend(replica, loaded.credentials.get(replica.credential, ""))
            for replica in replicas.values()
        }
        for replica_id, backend in self._backends.items():
            if kept.get(replica_id) is not backend:
                backend.retire()
                self._draining.add(backend)
        deployments = {route.deployment_id for route in table.routes}
        self._budgets = {
            deployment_id: self._budgets.get(deployment_id) or RetryBudget()
            for deployment_id in deployments
        }
        self._backends, self._credentials = kept, loaded.credentials
        self._close_unused_pools()
        self._rails.close_unused()
        before, self._traffic = self._traffic, {}
        self._hedgings = self._hedged(table)
        targets = {
            (route.project_id, route.model): self._target(route, loaded.problems, before)
            for route in table.routes
        }
        for route in table.routes:
            if route.targets:
                targets[route.project_id, route.model] = self._shared(route, targets, before)
        return Table(
            version=table.version,
            published_unix_s=table.published_unix_s,
            keys={key.sha256: key for key in table.keys},
            limits=table.limits,
            blocks=blocks.compiled(table.blocks),
            captures={each.id: each.capture for each in table.projects if each.capture},
            caches={each.id: each.cache for each in table.projects if each.cache},
            guardrails=loaded.guardrails,
            # By id last: a project that is called as another's id must not take its place.
            projects={each.name: each for each in table.projects}
            | {each.id: each for each in table.projects},
            routes=targets,
        )

    def _hedged(self, table: RouteTable) -> dict[tuple[str, str], Hedging]:
        """By project and model; what is known of late stays known."""
        found = {}
        for route in table.routes:
            if route.hedge is not None:
                place = (route.project_id, route.model)
                found[place] = self._hedgings.get(place) or Hedging(route.hedge)
                found[place].use(route.hedge)
        return found

    def _counted(
        self, route: Route, deployment_id: str, before: dict[tuple[str, str, str], Traffic]
    ) -> Traffic:
        place = (route.project_id, route.model, deployment_id)
        self._traffic[place] = before.get(place) or Traffic()
        return self._traffic[place]

    def _target(
        self, route: Route, problems: dict[str, str], before: dict[tuple[str, str, str], Traffic]
    ) -> Target:
        backends = tuple(
            self._backends[replica.id] for replica in route.replicas if replica.id not in problems
        )
        unusable = [problems[replica.id] for replica in route.replicas if replica.id in problems]
        return Target(
            route,
            backends,
            self._budgets[route.deployment_id],
            backends,
            PICKS[route.policy],
            self._timeouts.for_route(route.timeouts),
            self._counted(route, route.deployment_id, before),
            problem="" if backends or not unusable else unusable[0],
            hedging=self._hedgings.get((route.project_id, route.model)),
        )

    def _shared(
        self,
        route: Route,
        targets: dict[tuple[str, str], Target],
        before: dict[tuple[str, str, str], Traffic],
    ) -> Target:
        """A route with targets, from theirs."""
        shares = []
        for each in route.targets:
            found = targets.get((route.project_id, each.model))
            if found is None or found.route.targets:
                log.error("%s is no target that %s can have", each.model, route.model)
                continue
            own = self._as(route, found, before)
            seed = seed_of(route.model, own.route.deployment_id)
            usd = _usd_per_million_tokens(found.route) if route.policy == "cheapest" else 0.0
            shares.append(Share(each.model, own, each.weight, each.priority, seed, usd))
        whole = targets[route.project_id, route.model]
        backends = tuple(backend for share in shares for backend in share.target.backends)
        return replace(whole, backends=backends, own=(), shares=tuple(shares))

    def _as(
        self, route: Route, found: Target, before: dict[tuple[str, str, str], Traffic]
    ) -> Target:
        """A target's backends, used as the route says."""
        own = msgspec.structs.replace(
            found.route,
            model=route.model,
            policy=route.policy,
            fallbacks=route.fallbacks,
            timeouts=route.timeouts,
        )
        return replace(
            found,
            route=own,
            pick=PICKS[route.policy],
            timeouts=self._timeouts.for_route(route.timeouts),
            traffic=self._counted(route, own.deployment_id, before),
            hedging=self._hedgings.get((route.project_id, route.model)),
        )

    def _backend(self, replica: Replica, credential: str) -> Backend:
        known = self._backends.get(replica.id)
        if known is not None and _is_same_server(known.replica, replica):
            known.replica = replica
            return known
        if replica.hosted is None:
            return Backend(replica, credential)
        provider = providers.make(replica.base_url, replica.hosted, credential)
        return Backend(replica, "", provider, self._shared_pool(replica))

    def _shared_pool(self, replica: Replica) -> upstream.Pool:
        parts = urlsplit(replica.base_url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._shared_pools:
            self._shared_pools[origin] = upstream.Pool(origin, "", replica.slots)
        return self._shared_pools[origin]

    def _close_unused_pools(self) -> None:
        used = {backend.pool for backend in self._backends.values()}
        for origin, pool in list(self._shared_pools.items()):
            if pool not in used:
                del self._shared_pools[origin]
                pool.close_idle()


def seed_of(model: str, deployment_id: str) -> int:
    """The seed of a target in its route: each route shares the keys in a way of its own."""
    return zlib.crc32(f"{model}/{deployment_id}".encode()) << 32


def _usd_per_million_tokens(route: Route) -> float:
    """Input and output together, to compare targets by.

    Without a price, a machine of one's own costs nothing more for another request, and a hosted
    model nobody knows what.
    """
    if route.price is None:
        return math.inf if any(replica.hosted for replica in route.replicas) else 0.0
    input_usd = route.price.input_usd_per_million_tokens or 0.0
    return input_usd + (route.price.output_usd_per_million_tokens or 0.0)


def _is_same_server(one: Replica, other: Replica) -> bool:
    """Whether they differ in nothing but how they are used."""
    return msgspec.structs.replace(one, health_path=other.health_path) == other
