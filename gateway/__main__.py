"""`python -m gateway`: one worker, until SIGTERM or until its supervisor is gone."""

from __future__ import annotations

import os

_PARENT = os.getppid()  # before the imports below take their time

import argparse  # noqa: E402
import asyncio  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
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
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--keys-dir", type=Path, help="default: keys/ in the data folder")
    parser.add_argument("--max-body-mb", type=float, default=32)
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
        facts_max_bytes=int(given.facts_max_mb * 1_000_000),
        responses_max_bytes=int(given.responses_max_mb * 1_000_000),
        responses_ttl_s=given.responses_ttl_h * 3600,
        health_interval_s=given.health_interval_s,
        access=access_config(os.environ),
        tracing=tracing_config(os.environ),
        timeouts=Timeouts(**{phase.name: getattr(given, phase.name) for phase in fields(Timeouts)}),
    )


async def _serve(gateway: Gateway) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await gateway.start()
    except OSError as error:
        logging.getLogger("gateway").error("cannot start: %s", error)
        return 1
    # What is there now stays: the collector need not look at it again and again. Requests leave
    # few cycles behind, so it looks for new ones less often than by default.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    # Without its supervisor nobody would start it again or stop it: it goes too.
    while not stop.is_set() and os.getppid() == _PARENT:
        try:
            await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S)
        except TimeoutError:
            continue
    await gateway.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
