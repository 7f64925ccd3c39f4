"""The route table: one immutable, versioned snapshot that the gateway serves from.

Embedded, it is a file written atomically (`<data folder>/routes/table.json`) and watched.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from core.contracts.guardrails import Guardrail

SCHEMA = 1
FILE_NAME = "table.json"

# What a model can be asked for. Those of one server may be several.
Capability = Literal[
    "chat",
    "completion",
    "embedding",
    "rerank",
    "moderation",
    "image",
    "speech",
    "transcription",
    "realtime",
]
# How a route shares requests. Replicas of one deployment or hosted model are alike but for their
# load; targets differ in weight and price:
#   p2c           the less loaded of two replicas at random; at equal load the quicker one
#   least_loaded  the least loaded replica of all
#   prefix        by session or by the prompt's beginning, so that caches are met; bounded load
#   fastest       the replica of the lowest recent time to the first byte
#   weighted      a target by its weight, and any of its replicas; for routes with targets
#   cheapest      the target of the lowest price, then as p2c; for routes with targets
Policy = Literal["p2c", "least_loaded", "weighted", "prefix", "cheapest", "fastest"]
# How a route with targets shares requests among those of one priority, by weight:
#   request  each request anew
#   key      by the caller's key, which then always gets the same target (A/B)
SplitBy = Literal["request", "key"]
LimitLevel = Literal["key", "user", "project", "model"]
LimitMetric = Literal["requests", "tokens", "concurrent", "usd"]
LimitWindow = Literal["minute", "hour", "day", "month", ""]
WhenAlone = Literal["refuse", "share"]
# What an API key may be used for. `messages` and `responses` include what belongs to them: counting
# tokens, and reading, cancelling or deleting kept responses. `audio` is speech, transcriptions and
# translations. A batch also needs the scope of what its lines ask.
Scope = Literal[
    "chat.completions",
    "completions",
    "embeddings",
    "messages",
    "responses",
    "models",
    "moderations",
    "rerank",
    "images",
    "audio",
    "realtime",
    "files",
    "batches",
]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in USD per million tokens; None means "not set", never free."""

    input_usd_per_million_tokens: float | None = None
    output_usd_per_million_tokens: float | None = None
    cached_usd_per_million_tokens: float | None = None


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica at a provider of hosted models is called by.

    `kind` names the provider's interface (`gateway.providers`). `model` is the provider's own name
    of the model; at Azure the name of the deployment. `options` is what else the kind needs and is
    no secret: region, project, location, api_version. `account_id` is the account whose credentials
    the replica bears.
    """

    kind: str
    model: str
    account_id: str
    options: dict[str, str] = {}


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One server that answers for a route.

    `base_url` has no path, such as `http://127.0.0.1:41001`. `credential` is sealed
    (`core.kernel.crypto`, context `replica:<id>`) and sent as a bearer token; "" means none.
    `slots` is how many requests it works on at once.

    One that is `hosted` has a `base_url` with the path of the provider's interface, and a
    `credential` that is a sealed JSON object of named parts (context `provider:<account id>`), such
    as `{"api_key": …}` or `{"access_key_id": …, "secret_access_key": …, "session_token": …}`.

    `health_path` is asked now and then (GET, at the root of `base_url`) whether the server works;
    "" means never.
    """

    id: str
    base_url: str
    credential: str = ""
    slots: int = 1
    hosted: Hosted | None = None
    health_path: str = ""


class RouteTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One of several models that answer for a route: `model` has replicas, in the same project.

    Targets of a lower `priority` are used first, the next ones when none of those answers. Within
    a priority each gets its `weight`'s share of the requests, or with the policy `cheapest` the
    lowest price all of them; the weight 0 takes no new ones.
    """

    model: str
    weight: float = 1.0
    priority: int = 0


class PhaseTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long each phase of a request may take, in seconds; None means the gateway's own."""

    connect_s: float | None = None
    first_token_s: float | None = None
    between_tokens_s: float | None = None
    total_s: float | None = None


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """That a request whose answer is late is sent to a second replica or target, too.

    `after_ms` is when; None is the route's own 95th percentile of late. At most `percent` of the
    route's requests are sent twice, by each worker.
    """

    after_ms: float | None = None
    percent: float


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """That copies of `percent` of the requests go to another model of the project.

    Nobody gets their answers.
    """

    model: str
    percent: float


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A model name that callers of one project can use.

    `upstream_model` is the model name the replica expects. A route without replicas is known
    but not ready: the gateway answers 503 and gives `state` as the reason.

    `fallbacks` are models of the same project that answer, in this order, when no replica of this
    one does; only before the first byte has gone to the caller.

    A route with `targets` has no replicas of its own: theirs answer, under its name and by its
    policy, fallbacks and timeouts. `deployment_id` is then the route's own id (`rte_…`), and
    `price` the highest of the targets'.

    `cached` False leaves its answers out of the project's response cache.
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
    policy: Policy = "p2c"
    fallbacks: list[str] = []
    timeouts: PhaseTimeouts = PhaseTimeouts()
    targets: list[RouteTarget] = []
    split_by: SplitBy = "request"
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    cached: bool = True


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A key callers may use; only its SHA-256 (hex, of the whole `bud-…` text) is known here.

    `models` empty means every model of the project, `scopes` empty every endpoint, and `networks`
    (CIDR) empty every address; `expires_unix_s` None means never.
    """

    id: str
    sha256: str
    project_id: str
    user_id: str
    expires_unix_s: float | None = None
    # Tuples: an empty one costs no memory, and there may be ten thousand keys.
    models: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = ()
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _keep_once(self, "id", "project_id", "user_id")


class Limit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one key, user, project or model may use at most.

    `subject` is an id, or a model's name. Requests and tokens count over the last minute, hour or
    day; `usd` over the present day or month in UTC; `concurrent` is requests at once, with no
    window. `when_alone` is what holds when the hosts that share the limit cannot reach each
    other: nothing is admitted, or each host goes on with its share.
    """

    project_id: str
    level: LimitLevel
    subject: str
    metric: LimitMetric
    window: LimitWindow = ""
    amount: float
    when_alone: WhenAlone = "share"

    def __post_init__(self) -> None:
        _keep_once(self, "project_id", "subject")
        msgspec.structs.force_setattr(self, "amount", _same_amount(self.amount))

    @property
    def name(self) -> str:
        """What callers are told, such as `key.tokens_per_minute`."""
        per = f"_per_{self.window}" if self.window else "_requests"
        return f"{self.level}.{self.metric}{per}"


class BlockRule(msgspec.Struct, frozen=True, kw_only=True):
    """Whose requests are refused: those that meet every condition that is given.

    `project_id` "" means in every project. `networks` are CIDR ranges; `countries` two-letter
    codes; `user_agents` parts of the User-Agent header, in any case; `user_agent_patterns` regular
    expressions in RE2's syntax; `paths` whole paths, or with `*` at the end their beginnings.
    """

    name: str
    project_id: str = ""
    networks: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    user_agents: tuple[str, ...] = ()
    user_agent_patterns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """That a project keeps its prompts and answers, for how many days and in how many bytes."""

    keep_days: int
    max_bytes: int


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """That answers of a project are kept, and given again to the same request.

    For `ttl_s` seconds, in `max_bytes` on each gateway host. Without `all_requests` only of
    requests that ask for the same answer each time. With another `generation` nothing that was
    kept before is given any more.
    """

    ttl_s: float
    max_bytes: int
    all_requests: bool = False
    generation: int = 0


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project that access tokens can name."""

    id: str
    name: str
    capture: Capture | None = None
    cache: Cache | None = None


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway needs to answer; swapped whole."""

    version: int
    published_unix_s: float
    routes: list[Route] = []
    keys: list[ApiKey] = []
    limits: list[Limit] = []
    blocks: list[BlockRule] = []
    guardrails: list[Guardrail] = []
    projects: list[Project] = []
    schema: int = SCHEMA


def _keep_once(of: msgspec.Struct, *fields: str) -> None:
    # Tens of thousands of keys and limits repeat the same few ids: each is kept once.
    for field in fields:
        msgspec.structs.force_setattr(of, field, sys.intern(getattr(of, field)))


@lru_cache(maxsize=4096, typed=True)
def _same_amount(amount: float) -> float:
    return amount


def encode(table: RouteTable) -> bytes:
    """The table as JSON."""
    return msgspec.json.encode(table)


def decode(content: bytes) -> RouteTable:
    """The table from JSON; raises msgspec.DecodeError on a damaged file."""
    return msgspec.json.decode(content, type=RouteTable)


def read(path: Path) -> RouteTable:
    """The table of a file, which is mapped, not read: it can have several MB.

    Raises:
        msgspec.DecodeError: The file is damaged.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise msgspec.DecodeError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return msgspec.json.decode(content, type=RouteTable)
