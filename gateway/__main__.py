"""`python -m gateway`: one worker, until SIGTERM or until its supervisor is gone."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from gateway.server import Gateway, GatewayConfig, JsonFormatter

_DRAIN_S = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Parse the command line and serve."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    config = _config()
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, parent))


def _config() -> GatewayConfig:
    parser = argparse.ArgumentParser(prog="gateway", description="Bud's inference gateway.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--keys-dir", type=Path)
    parser.add_argument("--max-body-mb", type=int, default=32)
    parser.add_argument("--facts-max-mb", type=int, default=256)
    given = parser.parse_args()
    return GatewayConfig(
        host=given.host,
        port=given.port,
        data_dir=given.data_dir,
        keys_dir=given.keys_dir or given.data_dir / "keys",
        max_body_bytes=given.max_body_mb * 1_000_000,
        facts_max_bytes=given.facts_max_mb * 1_000_000,
    )


async def _serve(config: GatewayConfig, parent: int) -> None:
    gateway = Gateway(config)
    runner = web.AppRunner(
        gateway.application(),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    site = web.TCPSite(runner, config.host, config.port, backlog=1024)
    await site.start()
    logging.getLogger(__name__).info("listening on %s:%d", config.host, config.port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except TimeoutError:
            continue
    await site.stop()
    await gateway.drain(_DRAIN_S)
    await runner.cleanup()


if __name__ == "__main__":
    main()
