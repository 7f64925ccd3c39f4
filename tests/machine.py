"""What this machine is: how slow it is now, and which programs it has.

Bounds of tests hold as they are written on a machine that has its cores for itself. One that shares
them can be several times slower from one minute to the next, which says nothing about Bud.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from functools import cache

import pytest

# To start Python with two large modules: on two quiet cores of 2.6 GHz.
_QUIET_S = 0.06
_MOST = 10.0
_STARTS = 5


@cache
def slowness() -> float:
    """How many times slower than a quiet machine this one is, at least 1; measured once."""
    took_s = statistics.median(_start_s() for _ in range(_STARTS))
    return min(max(took_s / _QUIET_S, 1.0), _MOST)


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test where a program cannot be had; `app.testing` installs it where it may."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


def _start_s() -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", "import asyncio, ssl"], check=True)
    return time.perf_counter() - began_s
