"""A double of the model server, from OpenAI's public wire format: `python -m … CONFIG`.

Volume without a model: it streams a word every few milliseconds. It is started by the real
reconciler (BUD_MODEL_SERVER_MODULE), writes the real record, checks the real credential, logs a
line for each chat, and names its pid in `system_fingerprint`. The first word of an answer counts
the chats: `1 word word`. A deployment whose name begins with `real` is handed to
the real model server instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from core.deployments import model_server, server_records
from core.deployments.model_server import ServerConfig
from core.kernel.crypto import Keyring

WORD_S = 0.02
FINGERPRINT = f"pid-{os.getpid()}"


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-double",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "double",
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Double:
    """Answers chats with `max_tokens` words."""

    def __init__(self, credential: str) -> None:
        self._authorization = f"Bearer {credential}"
        self._chats = 0

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def slots(self, _request: web.Request) -> web.Response:
        return web.json_response([])

    async def completions(self, _request: web.Request) -> web.Response:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response(
            {"choices": [{"index": 0, "text": "x", "finish_reason": "length"}], "usage": usage}
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != self._authorization:
            return web.json_response({"error": {"message": "Invalid API Key"}}, status=401)
        asked = await request.json()
        words = int(asked.get("max_tokens", 10))
        self._chats += 1
        usage = {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}
        print(f"chat {self._chats}: {words} words", flush=True)
        said = [str(self._chats)] + ["word"] * (words - 1)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(said)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": usage})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for word in said:
            await asyncio.sleep(WORD_S)
            await answer.write(_event({"content": f"{word} "}))
        await answer.write(_event({}, "stop"))
        last = {"id": "chatcmpl-double", "choices": [], "usage": usage}
        await answer.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        return answer


async def _serve(config: ServerConfig) -> None:
    keyring = Keyring(Path(config.keys_dir))
    secret = keyring.open(config.credential, context=f"replica:{config.replica_id}")
    double = Double(secret.reveal())
    app = web.Application()
    app.router.add_get("/health", double.health)
    app.router.add_get("/slots", double.slots)
    app.router.add_post("/v1/completions", double.completions)
    app.router.add_post("/v1/chat/completions", double.chat)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    data_dir = Path(config.data_dir)
    record = server_records.ServerRecord(
        replica_id=config.replica_id,
        deployment_id=config.deployment_id,
        pid=os.getpid(),
        port=port,
    )
    if not server_records.claim(data_dir, record):
        return
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ServerConfig)
    if config.model_name.startswith("real"):
        model_server.main()
    else:
        asyncio.run(_serve(config))


if __name__ == "__main__":
    main()
