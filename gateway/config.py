"""What one gateway worker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Timeouts:
    """How long each phase may take, in seconds.

    `replica_wait_s` is how long a request waits for a replica that is being restarted: nothing
    was sent yet, so nothing is lost by it. `caller_s` is for a caller that neither reads its
    answer nor sends its body. `drain_s` is what streams get after SIGTERM.
    """

    connect_s: float = 3.0
    first_byte_s: float = 600.0
    between_tokens_s: float = 120.0
    replica_wait_s: float = 10.0
    caller_s: float = 60.0
    drain_s: float = 5.0


@dataclass(frozen=True)
class GatewayConfig:
    """What the command line says; sizes in bytes."""

    host: str
    port: int
    data_dir: Path
    keys_dir: Path
    max_body_bytes: int
    facts_max_bytes: int
    timeouts: Timeouts = field(default_factory=Timeouts)
