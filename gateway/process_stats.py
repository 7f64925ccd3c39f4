"""What a process takes of its machine, by the names that Prometheus' clients use."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from core.kernel import clock
from gateway.stats import Gauge, text

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_STARTED_UNIX_S = clock.unix_s()


class ProcessStats:
    """The numbers of this process; read when they are asked for."""

    def __init__(self) -> None:
        self.cpu = Gauge("process_cpu_seconds_total", "User and system CPU time.")
        self.cpu.kind = "counter"
        self.resident = Gauge("process_resident_memory_bytes", "Memory in use.")
        self.descriptors = Gauge("process_open_fds", "Open files and connections.")
        self.started = Gauge("process_start_time_seconds", "Since when it runs, in Unix time.")
        self.started.set(_STARTED_UNIX_S)

    def text(self) -> str:
        """The numbers of now in Prometheus' text form."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu.set(used.ru_utime + used.ru_stime)
        self.resident.set(_resident_bytes())
        if _DESCRIPTORS.exists():
            self.descriptors.set(sum(1 for _ in _DESCRIPTORS.iterdir()))
        return text(vars(self).values())


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    # The most it ever was: macOS tells no more without a library.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
