"""What `bud up` runs: the set-up, the gateway's workers and the dashboard, with their commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app import ports
from app.parts import Part
from core.kernel.errors import InvalidInput


@dataclass(frozen=True)
class Plan:
    """What to run. `make` makes the real one; tests make plans with tiny parts.

    Attributes:
        data_dir: The data folder; one supervisor a folder.
        host: The address the parts listen on.
        parts: What to keep running, in the order of starting.
        setup: The command that prepares the folder, or None.
        environment: Variables for every process, over those of this one.
        stop_servers: Called after the parts have ended, to stop the model servers.
        report: Lines for the end of the start-up report.
    """

    data_dir: Path
    host: str
    parts: tuple[Part, ...]
    setup: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_servers: Callable[[Path], object] | None = None
    report: tuple[tuple[str, str], ...] = ()


def make(
    *,
    data_dir: Path,
    keys_dir: Path,
    host: str,
    app_port: int,
    gateway_port: int,
    max_body_mb: int,
    max_upload_mb: int,
    files_max_mb: int,
    facts_max_mb: int,
    health_check_s: float,
    gateway_workers: int,
    gateway_url: str,
    demo: bool = False,
) -> Plan:
    """The real plan: set-up, gateway and dashboard."""
    data_dir, keys_dir = data_dir.resolve(), keys_dir.resolve()
    if app_port == gateway_port:
        raise InvalidInput(
            "The dashboard and the gateway cannot share a port.",
            value=app_port,
            remedy="Give two ports: bud up --port 8501 --gateway-port 8502.",
        )
    python = sys.executable
    gateway = (
        *(python, "-m", "gateway", "--host", host, "--port", str(gateway_port)),
        *("--data-dir", str(data_dir), "--keys-dir", str(keys_dir)),
        *("--max-body-mb", str(max_body_mb), "--max-upload-mb", str(max_upload_mb)),
        *("--files-max-mb", str(files_max_mb), "--facts-max-mb", str(facts_max_mb)),
        *("--health-interval-s", str(health_check_s), "--workers", str(gateway_workers)),
    )
    dashboard = f"http://{ports.reachable(host)}:{app_port}"
    first_start = not (keys_dir / "current.json").exists()
    setup = (python, "-m", "app.setup", *(("--demo",) if demo else ()))
    return Plan(
        data_dir=data_dir,
        host=host,
        parts=(
            *_workers(gateway, gateway_workers, gateway_port, waits_for_setup=first_start),
            Part(
                "app", "Dashboard", (python, "-m", "app.serve"), app_port, "/_stcore/health", False
            ),
        ),
        setup=setup,
        environment={
            "BUD_DATA_DIR": str(data_dir),
            "BUD_KEYS_DIR": str(keys_dir),
            "BUD_HOST": host,
            "BUD_APP_PORT": str(app_port),
            "BUD_GATEWAY_PORT": str(gateway_port),
        },
        stop_servers=_stop_model_servers,
        report=(
            ("Dashboard", dashboard),
            *((("Demo data", f"{dashboard}/?project=Demo"),) if demo else ()),
            ("Gateway", f"{gateway_url}/v1"),
            ("Data", str(data_dir)),
            ("Logs", f"{data_dir / 'logs'}  (or: bud logs --follow)"),
            ("Stop", "Ctrl-C  (or: bud down)"),
        ),
    )


def _workers(
    command: tuple[str, ...], number: int, port: int, *, waits_for_setup: bool
) -> list[Part]:
    """The workers of the gateway: all listen on one port."""
    return [
        Part(
            "gateway" if worker == 1 else f"gateway-{worker}",
            "Gateway" if number == 1 else f"Gateway worker {worker}",
            command,
            port,
            "/health",
            waits_for_setup,
            inherits=True,
            shares_port=number > 1,
        )
        for worker in range(1, number + 1)
    ]


def _stop_model_servers(data_dir: Path) -> object:
    from core.deployments import server_records

    return server_records.stop_all(data_dir)
