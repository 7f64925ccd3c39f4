"""The real supervisor over real gateway workers and nothing else, in a process of its own.

`python -m tests.doubles.gateway_supervisor DATA_DIR PORT WORKERS`
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from app import plan, supervisor


def main() -> int:
    data_dir, port, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    whole = plan.make(
        data_dir=data_dir,
        keys_dir=data_dir / "keys",
        host="127.0.0.1",
        app_port=port + 1,
        gateway_port=port,
        max_body_mb=32,
        max_upload_mb=200,
        files_max_mb=1000,
        facts_max_mb=32,
        health_check_s=0.0,
        gateway_workers=workers,
        gateway_url="",
    )
    gateway = tuple(part for part in whole.parts if part.inherits)
    only = replace(whole, parts=gateway, setup=None, stop_servers=None)
    return supervisor.Supervisor(only).run()


if __name__ == "__main__":
    sys.exit(main())
