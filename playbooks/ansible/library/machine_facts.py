#!/usr/bin/python
"""Ansible module: what a deployment needs to know of a machine. It changes nothing.

It runs on the machine that is checked, with that machine's Python: standard library only.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: machine_facts
short_description: Free memory, free disk, Python, ports and one file of a machine
options:
  folder: {description: The disk of this folder is measured., type: path, required: true}
  file: {description: This file is looked at., type: path, required: true}
"""

_CGROUP = Path("/sys/fs/cgroup")
_PAGES = ("Pages free", "Pages inactive", "Pages purgeable", "Pages speculative")


def _available_memory_bytes() -> int:
    if sys.platform == "darwin":
        return _available_on_macos()
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    machine = int(meminfo["MemAvailable"].split()[0]) * 1024
    return min(machine, _cgroup_free_bytes())


def _cgroup_free_bytes() -> int:
    # Inside a container its own limits stand at the root of this file system (version 2).
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = (_CGROUP / "memory.stat").read_text().split()
    except (OSError, ValueError):
        return sys.maxsize
    return limit - used + int(stat[stat.index("inactive_file") + 1])


def _available_on_macos() -> int:
    lines = subprocess.run(["vm_stat"], capture_output=True, text=True, check=True).stdout
    pages = 0
    for line in lines.splitlines():
        name, _, count = line.partition(":")
        if name in _PAGES:
            pages += int(count.strip(" ."))
    return pages * os.sysconf("SC_PAGE_SIZE")


def _free_disk_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _loopback_port() -> int:
    """A port that a server could listen on now; 0 when none can be had."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError:
        return 0


def main() -> None:
    """Answer Ansible."""
    arguments = {
        "folder": {"type": "path", "required": True},
        "file": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    file = Path(module.params["file"])
    module.exit_json(
        changed=False,
        python=".".join(str(part) for part in sys.version_info[:3]),
        memory_mb=_available_memory_bytes() // 10**6,
        disk_mb=_free_disk_bytes(Path(module.params["folder"])) // 10**6,
        port=_loopback_port(),
        file_readable=os.access(file, os.R_OK) and file.is_file(),
        file_bytes=file.stat().st_size if file.exists() else 0,
    )


if __name__ == "__main__":
    main()
