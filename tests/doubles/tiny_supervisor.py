"""The real supervisor over tiny parts, in a process of its own.

`python -m tests.doubles.tiny_supervisor DATA_DIR APP_PORT GATEWAY_PORT [option …]` with the
options `app:--deaf`, `gateway:--dies` (passed to that part) and `setup:COMMAND` (Python code).
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.parts import Part
from app.plan import Plan
from app.supervisor import Supervisor
from core.kernel.errors import BudError


def _plan(data_dir: Path, app_port: int, gateway_port: int, options: list[str]) -> Plan:
    def part(name: str, title: str, port: int) -> Part:
        extra = [word.split(":", 1)[1] for word in options if word.startswith(f"{name}:")]
        command = (sys.executable, "-m", "tests.doubles.tiny_part", str(port), *extra)
        return Part(name, title, command, port, "/health")

    setup = [word.split(":", 1)[1] for word in options if word.startswith("setup:")]
    return Plan(
        data_dir=data_dir,
        host="127.0.0.1",
        parts=(part("app", "Dashboard", app_port), part("gateway", "Gateway", gateway_port)),
        setup=(sys.executable, "-c", setup[0]) if setup else None,
        environment={"BUD_DATA_DIR": str(data_dir)},
        stop_servers=lambda folder: (folder / "servers_stopped").touch(),
        report=(("Dashboard", f"http://127.0.0.1:{app_port}"),),
    )


def main() -> int:
    data_dir, app_port, gateway_port, *options = sys.argv[1:]
    try:
        return Supervisor(_plan(Path(data_dir), int(app_port), int(gateway_port), options)).run()
    except BudError as error:
        print(error, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
