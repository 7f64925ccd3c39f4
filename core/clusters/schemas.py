"""What callers see of a machine and of a cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

THIS_MACHINE = "this-machine"


class MachineView(BaseModel):
    """A machine as it is now; memory and disk in bytes.

    `cores` is what this process may use (affinity and cgroup quota counted, at least 1);
    `physical_cores` leaves out hyper-threads and is never above `cores`.
    """

    model_config = ConfigDict(frozen=True)

    hostname: str
    os: str
    cpu_model: str
    cores: int
    physical_cores: int
    cpu_limit: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limited_by_cgroup: bool
    disk_total_bytes: int
    disk_free_bytes: int


class ClusterView(BaseModel):
    """Where deployments can run; `this-machine` always exists."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    kind: Literal["this-machine"]
    state: Literal["ready"]
    machine: MachineView
