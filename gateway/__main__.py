"""`python -m gateway`: one worker, until SIGTERM or until its supervisor is gone.

SIGUSR1 says that another worker has taken over: it accepts nothing more, and ends when all of its
callers have left.
"""

from __future__ import annotations

import os

_PARENT = os.getppid()  # before the imports below take their time

import argparse  # noqa: E402
import asyncio  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from dataclasses import fields  # noqa: E402
from pathlib import Path  # noqa: E402

import uvloop  # noqa: E402

from core.kernel.crypto import Secret  # noqa: E402
from core.kernel.errors import InvalidInput  # noqa: E402
from gateway import log  # noqa: E402
from gateway.access_config import access_config, tracing_config  # noqa: E402
from gateway.config import GatewayConfig, Timeouts  # noqa: E402
from gateway.server import Gateway  # noqa: E402

_PARENT_CHECK_S = 0.25
_READY_VARIABLE = "BUD_READY_FD"
_OPEN_FILES = 65_536
_GC_THRESHOLDS = (10_000, 20, 20)


def main() -> int:
    """Parse the command line and serve; the exit status."""
    log.configure()
    try:
        gateway = Gateway(_config())
    except InvalidInput as problem:
        logging.getLogger("gateway").error("cannot start: %s", problem)
        return problem.exit_code
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(gateway))


def _config() -> GatewayConfig:
    parser = argparse.ArgumentParser(prog="gateway", description="Bud's inference gateway.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--listen-fd", type=int, help="an inherited socket that listens already")
    parser.add_argument("--workers", type=int, default=1, help="how many share the data folder")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--keys-dir", type=Path, help="default: keys/ in the data folder")
    parser.add_argument("--max-body-mb", type=float, default=32)
    parser.add_argument("--max-upload-mb", type=float, default=200)
    parser.add_argument("--files-max-mb", type=float, default=10_000)
    parser.add_argument("--facts-max-mb", type=float, default=256)
    parser.add_argument("--responses-max-mb", type=float, default=256)
    parser.add_argument("--responses-ttl-h", type=float, default=720)
    parser.add_argument("--health-interval-s", type=float, default=5, help="0 checks no replica")
    for phase in fields(Timeouts):
        option = "--" + phase.name.replace("_", "-")
        parser.add_argument(option, type=float, default=phase.default, help="timeout in seconds")
    given = parser.parse_args()
    valkey_url = os.environ.get("BUD_VALKEY_URL")
    return GatewayConfig(
        host=given.host,
        port=given.port,
        data_dir=given.data_dir,
        keys_dir=given.keys_dir or given.data_dir / "keys",
        valkey_url=Secret(valkey_url) if valkey_url else None,
        max_body_bytes=int(given.max_body_mb * 1_000_000),
        max_upload_bytes=int(given.max_upload_mb * 1_000_000),
        files_max_bytes=int(given.files_max_mb * 1_000_000),
        facts_max_bytes=int(given.facts_max_mb * 1_000_000),
        responses_max_bytes=int(given.responses_max_mb * 1_000_000),
        responses_ttl_s=given.responses_ttl_h * 3600,
        health_interval_s=given.health_interval_s,
        listen_fd=given.listen_fd,
        is_one_of_many=given.workers > 1,
        access=access_config(os.environ),
        tracing=tracing_config(os.environ),
        timeouts=Timeouts(**{phase.name: getattr(given, phase.name) for phase in fields(Timeouts)}),
    )


async def _serve(gateway: Gateway) -> int:
    stop, hand_over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, hand_over.set)
    _allow_many_connections()
    try:
        await gateway.start()
    except OSError as error:
        logging.getLogger("gateway").error("cannot start: %s", error)
        return 1
    # What is there now stays: the collector need not look at it again and again. Requests leave
    # few cycles behind, so it looks for new ones less often than by default.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    _say_ready()
    watching = asyncio.create_task(_watch_supervisor(stop))
    handing_over = asyncio.create_task(_hand_over(gateway, hand_over, stop))
    await stop.wait()
    await handing_over
    watching.cancel()
    await gateway.stop()
    return 0


async def _watch_supervisor(stop: asyncio.Event) -> None:
    # Without it nobody would start this worker again or stop it: it goes too.
    while os.getppid() == _PARENT:
        await asyncio.sleep(_PARENT_CHECK_S)
    stop.set()


async def _hand_over(gateway: Gateway, asked: asyncio.Event, stop: asyncio.Event) -> None:
    stopped, wanted = asyncio.create_task(stop.wait()), asyncio.create_task(asked.wait())
    await asyncio.wait({stopped, wanted}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        await gateway.hand_over(stop)
        stop.set()
    wanted.cancel()


def _say_ready() -> None:
    """Tell the supervisor, which waits for it before it lets another worker go."""
    ready = os.environ.get(_READY_VARIABLE)
    if ready is not None:
        os.write(int(ready), b"ready")
        os.close(int(ready))


def _allow_many_connections() -> None:
    """Each caller and each request at a replica is an open file, and the usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    sys.exit(main())
