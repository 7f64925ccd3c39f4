"""Measures this machine, within the limits that it gives this process.

Memory and CPU limits of a container are in the cgroup file system, version 2
(https://docs.kernel.org/admin-guide/cgroup-v2.html) or 1; psutil does not know them.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
# Version 1 says "no limit" with a number close to 2^63.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class Limits:
    """What a cgroup allows; None means no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int = 0


def cores(limits: Limits) -> int:
    """The logical cores this process may use, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = allowed or 1
    return max(1, min(count, math.ceil(limits.cpus)) if limits.cpus is not None else count)


def physical_cores(limits: Limits) -> int:
    """The physical cores this process may use, at least 1 and at most `cores`."""
    return max(1, min(psutil.cpu_count(logical=False) or 1, cores(limits)))


def memory_bytes(limits: Limits) -> tuple[int, int]:
    """Total and available memory, the smaller of the machine's and the cgroup's."""
    machine = psutil.virtual_memory()
    if limits.memory_bytes is None or limits.memory_bytes >= machine.total:
        return machine.total, machine.available
    free = max(0, limits.memory_bytes - limits.memory_used_bytes)
    return limits.memory_bytes, min(machine.available, free)


def disk_bytes(folder: Path) -> tuple[int, int]:
    """Total and free bytes of the disk that `folder` is on (or will be)."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def hostname() -> str:
    """The machine's own name."""
    return socket.gethostname()


def operating_system() -> str:
    """Such as `Debian GNU/Linux 12 (x86_64)` or `macOS 15.1 (arm64)`."""
    name = f"{platform.system()} {platform.release()}"
    if platform.system() == "Darwin":
        name = f"macOS {platform.mac_ver()[0]}"
    elif platform.system() == "Linux":
        with suppress(OSError, KeyError):
            name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{name} ({platform.machine()})"


@cache
def cpu_model() -> str:
    """The processor's name as the system gives it, else its architecture."""
    if platform.system() == "Linux":
        for line in _lines(Path("/proc/cpuinfo")):
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def cgroup_limits(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> Limits:
    """The tightest limits on the way from this process's cgroup up to the root."""
    if (root / "cgroup.controllers").exists():
        found = [_limits_v2(folder) for folder in _chain(root, _own_path(own, ""))]
    else:
        memory = [_limits_v1_memory(f) for f in _chain(root / "memory", _own_path(own, "memory"))]
        cpu = [_limits_v1_cpu(folder) for folder in _chain(root / "cpu", _own_path(own, "cpu"))]
        found = memory + cpu
    return _tightest(found)


def _tightest(found: list[Limits]) -> Limits:
    cpus = [limits.cpus for limits in found if limits.cpus is not None]
    memory = [limits for limits in found if limits.memory_bytes is not None]
    least = min(memory, key=_free, default=Limits())
    return Limits(min(cpus, default=None), least.memory_bytes, least.memory_used_bytes)


def _free(limits: Limits) -> int:
    return (limits.memory_bytes or 0) - limits.memory_used_bytes


def _own_path(own: Path, controller: str) -> str:
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers == controller or (controller and controller in controllers.split(",")):
            return path.strip().lstrip("/")
    return ""


def _chain(root: Path, path: str) -> list[Path]:
    # In a container the path may be that of the host and not exist here; the root is the own.
    folder = root / path
    chain = [root]
    while folder != root and root in folder.parents:
        if folder.exists():
            chain.append(folder)
        folder = folder.parent
    return chain


def _limits_v2(folder: Path) -> Limits:
    quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
    cpus = int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
    memory = _text(folder / "memory.max")
    if memory is None or not memory.isdigit():
        return Limits(cpus)
    used = int(_text(folder / "memory.current") or 0)
    return Limits(cpus, int(memory), used - _reclaimable(folder, "inactive_file"))


def _limits_v1_memory(folder: Path) -> Limits:
    limit = _text(folder / "memory.limit_in_bytes")
    if limit is None or int(limit) >= _UNLIMITED_BYTES:
        return Limits()
    used = int(_text(folder / "memory.usage_in_bytes") or 0)
    return Limits(None, int(limit), used - _reclaimable(folder, "total_inactive_file"))


def _limits_v1_cpu(folder: Path) -> Limits:
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota) <= 0:
        return Limits()
    return Limits(int(quota) / int(period))


def _reclaimable(folder: Path, key: str) -> int:
    # File pages count as used, but the kernel gives them back when memory is asked for.
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _lines(path: Path) -> list[str]:
    return (_text(path) or "").splitlines()
