"""Runs `playbooks/ansible/preflight.yml` through ansible-runner."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from core.jobs import Progress
from core.kernel.errors import Conflict
from core.kernel.settings import ROOT

_PLAYBOOK = ROOT / "playbooks" / "ansible" / "preflight.yml"
_TIMEOUT_S = 120


def run_preflight(progress: Progress, folder: Path, variables: dict[str, Any]) -> None:
    """Check this machine; each task becomes a log line of the job.

    Args:
        progress: The running step.
        folder: A private folder for Ansible's files; removed afterwards.
        variables: The playbook's variables.

    Raises:
        Conflict: A check failed; carries what the playbook said.
        JobCancelled: The job was cancelled; Ansible's process group is ended.
    """
    import ansible_runner

    watcher = _Watcher(progress)
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    try:
        result = ansible_runner.run(
            private_data_dir=str(folder),
            playbook=str(_PLAYBOOK),
            inventory={"all": {"hosts": {"this-machine": {"ansible_connection": "local"}}}},
            extravars={**variables, "ansible_python_interpreter": sys.executable},
            envvars={
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
                "ANSIBLE_HOME": str(folder / "tmp"),
                "ANSIBLE_COLLECTIONS_PATH": str(folder / "tmp"),
                "ANSIBLE_LIBRARY": str(_PLAYBOOK.parent / "library"),
                # One process less for each task.
                "ANSIBLE_PIPELINING": "1",
            },
            quiet=True,
            timeout=_TIMEOUT_S,
            event_handler=watcher.on_event,
            cancel_callback=watcher.cancelled,
        )
    finally:
        watcher.untrack()
        shutil.rmtree(folder, ignore_errors=True)
    progress.check()
    if result.status != "successful":
        raise Conflict(
            watcher.failure or f"The preflight playbook ended as {result.status}.",
            remedy="Correct it and retry the job; its log shows every check.",
        )


class _Watcher:
    """Turns Ansible's events into progress, and notes the process group to end on a cancel."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._groups: set[int] = set()
        self.failure = ""

    def cancelled(self) -> bool:
        self._track()
        return self._progress.cancelled

    def on_event(self, event: dict[str, Any]) -> bool:
        kind, data = event.get("event"), event.get("event_data", {})
        if kind == "runner_on_ok":
            said = data.get("res", {}).get("msg")
            self._progress.log(f"ok: {data.get('task')}" + (f": {said}" if said else ""))
        elif kind in ("runner_on_failed", "runner_on_unreachable"):
            result = data.get("res", {})
            self.failure = str(result.get("msg") or data.get("task"))
            self._progress.log(f"failed: {data.get('task')}: {self.failure}", "error")
        # Ansible's own event thread must not be ended by a cancel: `cancelled` does that.
        return True

    def _track(self) -> None:
        for child in psutil.Process().children():
            try:
                if any("ansible-playbook" in word for word in child.cmdline()):
                    self._groups.add(os.getpgid(child.pid))
            except (psutil.Error, ProcessLookupError):
                continue
        for group in self._groups - {os.getpgrp()}:
            self._progress.track(group)

    def untrack(self) -> None:
        for group in self._groups:
            self._progress.untrack(group)
