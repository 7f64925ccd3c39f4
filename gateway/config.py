"""What one gateway worker is told at its start."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from core.contracts.route_table import PhaseTimeouts
from core.kernel.crypto import Secret
from gateway.access_config import AccessConfig, TracingConfig

_NO_TIMEOUTS = PhaseTimeouts()


@dataclass(frozen=True)
class Timeouts:
    """How long each phase may take, in seconds.

    `first_byte_s` is for each attempt, up to the first token of a stream or the end of a short
    answer; `total_s` for a request with all its attempts. `replica_wait_s` is how long a request
    waits for a replica that is being restarted: nothing was sent yet, so nothing is lost by it.
    `head_s` is for a request's head, from its first byte; `caller_s` for a caller that neither
    reads its answer nor sends its body; `idle_s` for a connection between two requests. A realtime
    session ends when nothing came from either side for `session_idle_s`, or after
    `session_total_s`. `drain_s` is what streams get after SIGTERM, `handover_s` what they get when
    another worker takes over.
    """

    connect_s: float = 3.0
    first_byte_s: float = 600.0
    between_tokens_s: float = 120.0
    total_s: float = math.inf
    replica_wait_s: float = 10.0
    head_s: float = 20.0
    caller_s: float = 60.0
    idle_s: float = 75.0
    session_idle_s: float = 600.0
    session_total_s: float = 3600.0
    drain_s: float = 5.0
    handover_s: float = 600.0

    @cached_property
    def first_wait_s(self) -> float:
        """For a request that was just begun, up to the first token or the answer's beginning."""
        return min(self.first_byte_s, self.total_s)

    def for_route(self, own: PhaseTimeouts) -> Timeouts:
        """These, with what a route says for itself."""
        if own == _NO_TIMEOUTS:
            return self
        given = {
            "connect_s": own.connect_s,
            "first_byte_s": own.first_token_s,
            "between_tokens_s": own.between_tokens_s,
            "total_s": own.total_s,
        }
        return replace(self, **{name: each for name, each in given.items() if each is not None})


@dataclass(frozen=True)
class GatewayConfig:
    """What the command line says, and the environment what is secret; sizes in bytes.

    `health_interval_s` is from one health check of a replica to the next; 0 checks none.
    `listen_fd` is a listening socket that was inherited; None makes one. `is_one_of_many` says
    that other workers of the same gateway run on this data folder.
    """

    host: str
    port: int
    data_dir: Path
    keys_dir: Path
    max_body_bytes: int
    facts_max_bytes: int
    max_upload_bytes: int = 200_000_000
    files_max_bytes: int = 10_000_000_000
    valkey_url: Secret | None = None
    responses_max_bytes: int = 256_000_000
    responses_ttl_s: float = 30 * 86_400.0
    health_interval_s: float = 5.0
    listen_fd: int | None = None
    is_one_of_many: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    access: AccessConfig = field(default_factory=AccessConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
