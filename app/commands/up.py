"""`bud up`, `bud down` and `bud logs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.output import Json, show, show_line
from core.kernel.errors import NotFound

if TYPE_CHECKING:
    from core.kernel.settings import Settings

_DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder for everything Bud keeps; default: BUD_DATA_DIR or .bud."
    ),
]


def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Also load the demo project (30 days of requests).")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Port of the dashboard; default: BUD_APP_PORT or 8501."),
    ] = None,
    gateway_port: Annotated[
        int | None,
        typer.Option(
            "--gateway-port", help="Port of the gateway; default: BUD_GATEWAY_PORT or 8502."
        ),
    ] = None,
    gateway_workers: Annotated[
        int | None,
        typer.Option(
            "--gateway-workers", help="Processes of the gateway; default: BUD_GATEWAY_WORKERS or 1."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on; default: BUD_HOST or 127.0.0.1."),
    ] = None,
    data_dir: _DataDir = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print the logs as they are written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the dashboard and the gateway; Ctrl-C stops them and every model server."""
    from app import plan, supervisor
    from core.kernel.settings import settings

    given = {
        "BUD_DATA_DIR": data_dir.resolve() if data_dir else None,
        "BUD_APP_PORT": port,
        "BUD_GATEWAY_PORT": gateway_port,
        "BUD_GATEWAY_WORKERS": gateway_workers,
        "BUD_HOST": host,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    chosen = settings()
    os.environ.update(_for_gateway(chosen))
    chosen_plan = plan.make(
        data_dir=chosen.data_dir,
        keys_dir=chosen.keys_folder,
        host=chosen.host,
        app_port=chosen.app_port,
        gateway_port=chosen.gateway_port,
        max_body_mb=chosen.max_body_mb,
        max_upload_mb=chosen.max_upload_mb,
        files_max_mb=chosen.files_max_mb,
        facts_max_mb=chosen.facts_max_mb,
        health_check_s=chosen.health_check_s,
        gateway_workers=chosen.gateway_workers,
        gateway_url=chosen.gateway_url,
        demo=demo,
    )

    def say(text: str) -> None:
        show_line({"message": text.strip()}, as_json=as_json, text=text)

    # Among lines of JSON the box with the one-time password has no place.
    bud = supervisor.Supervisor(chosen_plan, say=say, setup_output=sys.stderr if as_json else None)
    raise typer.Exit(bud.run(verbose=verbose))


def _for_gateway(chosen: Settings) -> dict[str, str]:
    """The variables that the gateway reads, whether they came from .env or not.

    None of it is on a command line, which everybody on the machine can read. Raises InvalidInput
    for what would keep the gateway from starting.
    """
    from gateway.access_config import access_config, tracing_config

    variables = {
        f"BUD_{name.upper()}": str(getattr(chosen, name))
        for name in (
            *("trusted_proxies", "country_header", "cors_origins", "cors_headers", "jwt_issuers"),
            *("otlp_endpoint", "trace_ratio"),
        )
    }
    for name in ("valkey_url", "otlp_headers"):
        if (secret := getattr(chosen, name)) is not None:
            variables[f"BUD_{name.upper()}"] = secret.get_secret_value()
    access_config(variables)
    tracing_config(variables)
    return variables


def down(data_dir: _DataDir = None, as_json: Json = False) -> None:
    """Stop the Bud that runs on this data folder, with every model server."""
    from app import supervisor
    from core.kernel.settings import settings

    folder = data_dir.resolve() if data_dir else settings().data_dir
    pid = supervisor.stop(folder)
    show(
        {"data_dir": str(folder), "pid": pid},
        f"Bud on {folder} has stopped.",
        as_json=as_json,
    )


def logs(
    name: Annotated[str, typer.Argument(help="app, gateway, setup or install.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    as_json: Json = False,
) -> None:
    """Show the logs of Bud itself; a deployment's are at `bud deployments logs`."""
    from app import logs as log_files
    from core.kernel.settings import settings

    folder = settings().data_dir / "logs"
    chosen = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if name and name not in chosen:
        raise NotFound(
            f"There is no log {name!r}.", remedy=f"There are: {', '.join(chosen) or 'none yet'}."
        )
    if name:
        chosen = {name: chosen[name]}
    for key, path in chosen.items():
        for line in log_files.tail(path, lines).splitlines():
            _show_log_line(key, line, as_json)
    if follow:
        for key, line in log_files.follow(chosen):
            _show_log_line(key, line, as_json)


def _show_log_line(name: str, line: str, as_json: bool) -> None:
    show_line({"log": name, "line": line}, as_json=as_json, text=f"{name:<7} | {line}")
