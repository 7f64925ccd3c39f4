"""A double of a server of speech, images, moderations, rerank and realtime, on loopback.

It is no model. Its wire formats are those of the public documentation (November 2026):
https://platform.openai.com/docs/api-reference (moderations, images, audio, realtime),
https://jina.ai/reranker (rerank).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

PNG = base64.b64encode(b"\x89PNG double").decode()
BODY = web.RequestKey("body", dict)
AUDIO_CHUNKS = [bytes([n]) * 4096 for n in range(8)]


@dataclass
class Seen:
    """What came, `sizes` in bytes.

    `statuses` are answered first, in turn, and `hold` stops speech after a chunk.
    """

    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    closes: list[int | None] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Seen]:
    """Serve from a thread of its own on a free port; `seen.url` says where."""
    seen, ready, ends = Seen(), threading.Event(), threading.Event()

    async def run() -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[_remembering(seen)])
        app.add_routes(
            [
                web.get("/health", _health),
                web.post("/v1/moderations", _moderations),
                web.post("/v1/rerank", _rerank),
                web.post("/v1/images/generations", _images),
                web.post("/v1/audio/speech", lambda request: _speech(request, seen)),
                web.post("/v1/audio/transcriptions", _transcription),
                web.post("/v1/audio/translations", _transcription),
                web.get("/v1/realtime", lambda request: _realtime(request, seen)),
                web.get("/elsewhere/realtime", _moved),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        seen.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore
        ready.set()
        await asyncio.to_thread(ends.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield seen
    finally:
        ends.set()
        seen.hold.set()
        thread.join(5)


def _remembering(seen: Seen) -> Any:
    @web.middleware
    async def remember(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/health":
            return await handler(request)
        seen.paths.append(request.path)
        seen.headers.append(dict(request.headers))
        if request.content_type == "application/json":
            seen.sizes.append(len(await request.read()))
            seen.bodies.append(await request.json())
        elif request.content_type == "multipart/form-data":
            seen.bodies.append(await _form(request))
        status = seen.statuses.pop(0) if seen.statuses else 200
        if status != 200:
            return web.json_response({"error": {"message": "as told", "type": "x"}}, status=status)
        request[BODY] = seen.bodies[-1] if seen.bodies else {}
        return await handler(request)

    return remember


async def _form(request: web.Request) -> dict[str, Any]:
    """The fields; of a file its name, type, length and SHA-256."""
    found: dict[str, Any] = {}
    async for part in await request.multipart():
        content = bytes(await part.read())  # type: ignore[union-attr]
        if part.filename is None:
            found[part.name] = content.decode()
        else:
            sha256 = hashlib.sha256(content).hexdigest()
            kind = part.headers.get("Content-Type")
            found[part.name] = [part.filename, kind, len(content), sha256]
    return found


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _moderations(request: web.Request) -> web.Response:
    said = request[BODY]["input"]
    texts = said if isinstance(said, list) else [said]
    results = [
        {
            "flagged": "violence" in text,
            "categories": {"violence": "violence" in text},
            "category_scores": {"violence": 0.9 if "violence" in text else 0.1},
            "category_applied_input_types": {"violence": ["text"]},
        }
        for text in texts
    ]
    return web.json_response({"id": "modr-1", "model": request[BODY]["model"], "results": results})


async def _rerank(request: web.Request) -> web.Response:
    documents = request[BODY]["documents"]
    results = [
        {"index": n, "relevance_score": 1 / (n + 1), "document": {"text": text}}
        for n, text in enumerate(documents)
    ]
    return web.json_response(
        {
            "model": request[BODY]["model"],
            "usage": {"total_tokens": 5 * len(documents)},
            "results": results[: request[BODY].get("top_n", len(results))],
        }
    )


async def _images(request: web.Request) -> web.Response:
    usage = {
        "input_tokens": 9,
        "output_tokens": 40,
        "total_tokens": 49,
        "input_tokens_details": {"text_tokens": 9, "image_tokens": 0},
    }
    return web.json_response(
        {"created": 1_760_000_000, "data": [{"b64_json": PNG}], "usage": usage}
    )


async def _speech(request: web.Request, seen: Seen) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
    await answer.prepare(request)
    await answer.write(AUDIO_CHUNKS[0])
    await asyncio.to_thread(seen.hold.wait, 10)
    for chunk in AUDIO_CHUNKS[1:]:
        await answer.write(chunk)
    await answer.write_eof()
    return answer


async def _transcription(request: web.Request) -> web.StreamResponse:
    form = request[BODY]
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
    if form.get("response_format") == "text":
        return web.Response(text="what was said\n")
    if form.get("stream") != "true":
        words = [{"word": word} for word in ("what", "was", "said")]
        more = {"words": words} if form.get("response_format") == "verbose_json" else {}
        return web.json_response({"text": "what was said", "usage": usage, **more})
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for word in ("what ", "was ", "said"):
        event = {"type": "transcript.text.delta", "delta": word}
        await answer.write(f"data: {web.json_response(event).text}\n\n".encode())
    if form.get("prompt") == "hold":
        await asyncio.sleep(10)
    done = {"type": "transcript.text.done", "text": "what was said", "usage": usage}
    await answer.write(f"data: {web.json_response(done).text}\n\n".encode())
    await answer.write_eof()
    return answer


async def _moved(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("/v1/realtime?model=any")


async def _realtime(request: web.Request, seen: Seen) -> web.WebSocketResponse:
    """Says each event of a client back; does as some of them say."""
    socket = web.WebSocketResponse(protocols=["realtime"])
    await socket.prepare(request)
    await socket.send_json({"type": "session.created", "model": request.query.get("model")})
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
            continue
        event = message.json()
        if event["type"] == "response.create":
            usage = {
                "input_tokens": 8,
                "output_tokens": 5,
                "total_tokens": 13,
                "input_token_details": {"cached_tokens": 2},
            }
            await socket.send_json({"type": "response.done", "response": {"usage": usage}})
        elif event["type"] == "double.begin":
            await socket.send_json({"type": "response.created", "response": {"usage": None}})
        elif event["type"] == "double.close":
            await socket.close(code=event["code"], message=b"as told")
        elif event["type"] == "double.cut":
            assert request.transport is not None
            request.transport.abort()
        elif event["type"] == "double.flood":
            for _ in range(event["messages"]):
                await socket.send_bytes(b"x" * 65_536)
                seen.bodies.append({})
        else:
            await socket.send_json({"type": "double.said", "said": event})
    seen.closes.append(socket.close_code)
    return socket
