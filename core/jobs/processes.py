"""Ends the processes that a step started, with everything they started in turn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

_POLL_S = 0.02
_KILL_TIMEOUT_S = 2.0


def leader_started_s(group: int) -> float | None:
    """When the leader of a process group started, in Unix seconds; None when it is gone."""
    try:
        return psutil.Process(group).create_time()
    except psutil.Error:
        return None


def still_ours(group: int, started_s: float | None) -> bool:
    """Whether `group` is the one whose leader started at `started_s`, and not a reused number.

    A number is not given out again while its group has members: when the leader is gone, what
    is left in the group is what it started.
    """
    now_s = leader_started_s(group)
    return group != os.getpgrp() and (now_s is None or now_s == started_s)


def end(groups: Iterable[int], grace_s: float) -> None:
    """End process groups and all descendants: SIGTERM, and SIGKILL after `grace_s` seconds.

    Descendants are looked up before the first signal: one that made a session of its own has
    another group, and loses its parent as soon as that dies. Returns once they are gone.
    """
    groups = set(groups) - {os.getpgrp()}
    if not groups:
        return
    tree = _tree(groups)
    _signal(groups, tree, signal.SIGTERM)
    _wait(tree, grace_s)
    tree |= _tree(groups)
    _signal(groups, tree, signal.SIGKILL)
    # On a busy machine a process dies a while after the signal: whoever asks shall find it gone.
    _wait(tree, _KILL_TIMEOUT_S)


def _wait(tree: set[psutil.Process], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while any(_lives(process) for process in tree) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)


def _tree(groups: set[int]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) in groups:
                found.add(process)
                found.update(process.children(recursive=True))
    return found


def _lives(process: psutil.Process) -> bool:
    # A zombie is left to whoever started it: its exit status is theirs to collect.
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _signal(groups: set[int], tree: set[psutil.Process], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for process in tree:
        # psutil compares the start time first, so a reused process id is safe.
        with suppress(psutil.Error):
            process.send_signal(number)
