"""A server that speaks the gateway's streaming protocol, told by each test what to say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_CHECK_S = 0.02


class ScriptedGateway:
    """Answers `/v1/chat/completions`; `behave` is what the next requests do."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.closed_by_client = threading.Event()
        self.released = threading.Event()
        self.behave: Callable[[Exchange], None] = lambda exchange: exchange.stream("Hello", " you")
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                is_form = self.headers["Content-Type"].startswith("multipart/form-data")
                body = {"form": sent} if is_form else json.loads(sent)
                owner.requests.append(body)
                owner.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
                owner.behave(Exchange(owner, self, body))

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_CHECK_S,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Exchange:
    """One request being answered."""

    def __init__(
        self, owner: ScriptedGateway, handler: BaseHTTPRequestHandler, body: dict[str, Any]
    ) -> None:
        self._owner = owner
        self._handler = handler
        self.body = body

    def head(self, status: int, content_type: str) -> None:
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", content_type)
        self._handler.send_header("X-Request-Id", "req_1")
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()
        self._handler.close_connection = True

    def event(self, data: object) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self._handler.wfile.write(f"data: {text}\n\n".encode())

    def piece(self, **delta: str) -> None:
        self.event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta}]})

    def stream(self, *pieces: str, pause_s: float = 0.0, cached: int = 0) -> None:
        self.head(200, "text/event-stream")
        for piece in pieces:
            self.piece(content=piece)
            time.sleep(pause_s)
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": len(pieces),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        self.event({"choices": [], "usage": usage})
        self.event("[DONE]")

    def error(self, status: int, message: str, code: str = "y") -> None:
        self.head(status, "application/json")
        body = {"error": {"message": message, "type": "x", "code": code}}
        self._handler.wfile.write(json.dumps(body).encode())

    def until_closed(self) -> None:
        """Say nothing more until the client goes away (or the test ends)."""
        self._handler.connection.settimeout(_CHECK_S)
        while not self._owner.released.is_set():
            try:
                if self._handler.connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            return
        self._owner.closed_by_client.set()
