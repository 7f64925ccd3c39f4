"""Doubles of hosted providers' model lists, in the wire formats they publish, on loopback.

Each kind is below a path of its own: `/openai`, `/anthropic`, `/azure`, `/vertex`, `/bedrock`,
`/together`. A wrong key gets what the provider answers to one.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-right-7f3a9c"


@dataclass
class Providers:
    """Which key is right, what to answer instead, and what was asked."""

    key: str = KEY
    status: int | None = None
    body: bytes | None = None
    redirect: str | None = None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(providers: Providers) -> Iterator[Providers]:
    """Serve on a free port of loopback; `providers.url` says where."""

    class Handler(_Handler):
        pass

    Handler.providers = providers
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    providers.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield providers
    finally:
        server.shutdown()
        server.server_close()


def _openai_list(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [{"object": "model", **row} for row in rows]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    providers: Providers

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _handle(self, sent: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.providers.requests.append((self.path, headers, sent))
        if self.providers.redirect is not None:
            self._answer(302, b"", {"Location": self.providers.redirect})
            return
        if self.providers.status is not None or self.providers.body is not None:
            self._answer(self.providers.status or 200, self.providers.body or b"{}")
            return
        parts = urlsplit(self.path)
        kind, _, rest = parts.path.lstrip("/").partition("/")
        status, body = getattr(self, f"_{kind}")(rest, parse_qs(parts.query), headers, sent)
        self._answer(status, json.dumps(body).encode())

    def _bearer_is_right(self, headers: dict[str, str]) -> bool:
        return headers.get("authorization") == f"Bearer {self.providers.key}"

    def _openai(self, rest: str, _query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        if rest != "v1/models":
            return 404, {"error": {"message": "Invalid URL"}}
        if not self._bearer_is_right(headers):
            error = {"message": "Incorrect API key provided: sk-wr**ng.", "type": "invalid_request"}
            return 401, {"error": {**error, "code": "invalid_api_key"}}
        mini = {"id": "gpt-4o-mini", "created": 1721172741, "owned_by": "system"}
        return 200, _openai_list(
            mini, {"id": "gpt-4o", "created": 1715367049, "owned_by": "system"}
        )

    def _groq(self, rest: str, _query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        if rest != "openai/v1/models" or not self._bearer_is_right(headers):
            return 401, {"error": {"message": "Invalid API Key", "code": "invalid_api_key"}}
        row = {"id": "llama-3.1-8b-instant", "created": 1693721698, "context_window": 131072}
        return 200, _openai_list(row)

    def _together(self, rest: str, _query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        if rest != "v1/models" or not self._bearer_is_right(headers):
            return 401, {"error": {"message": "Invalid API key provided."}}
        row = {"id": "Qwen/Qwen3-8B", "object": "model", "created": 0, "type": "chat"}
        return 200, [{**row, "display_name": "Qwen3 8B", "context_length": 40960}]

    def _anthropic(self, rest: str, query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        if headers.get("anthropic-version") != "2023-06-01" or rest != "v1/models":
            return 400, {"type": "error", "error": {"type": "invalid_request_error"}}
        if headers.get("x-api-key") != self.providers.key:
            error = {"type": "authentication_error", "message": "invalid x-api-key"}
            return 401, {"type": "error", "error": error}
        row = {"type": "model", "created_at": "2025-02-19T00:00:00Z"}
        if "after_id" not in query:
            data = [{**row, "id": "claude-3-7-sonnet-20250219", "display_name": "Claude 3.7"}]
            return 200, {"data": data, "has_more": True, "last_id": data[0]["id"]}
        data = [{**row, "id": "claude-3-5-haiku-20241022", "display_name": "Claude 3.5 Haiku"}]
        return 200, {"data": data, "has_more": False, "last_id": data[0]["id"]}

    def _azure(self, rest: str, query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        if rest != "openai/models" or "api-version" not in query:
            return 404, {"error": {"code": "404", "message": "Resource not found"}}
        if headers.get("api-key") != self.providers.key:
            return 401, {"error": {"code": "401", "message": "Access denied"}}
        row = {"id": "gpt-4o-2024-08-06", "status": "succeeded", "lifecycle_status": "preview"}
        return 200, {"object": "list", "data": [{**row, "created_at": 1722902400}]}

    def _vertex(self, rest: str, query: Any, headers: dict[str, str], sent: bytes) -> Any:
        if rest == "token":
            form = parse_qs(sent.decode())
            claims = form["assertion"][0].split(".")[1]
            issuer = json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"]
            if issuer != "bud@project.iam.gserviceaccount.com":
                return 400, {"error": "invalid_grant", "error_description": "account not found"}
            return 200, {"access_token": self.providers.key, "expires_in": 3599}
        if not self._bearer_is_right(headers) or not rest.endswith("publishers/google/models"):
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        if "pageToken" in query:
            return 200, {"publisherModels": [{"name": "publishers/google/models/gemini-2.0-flash"}]}
        rows = [{"name": "publishers/google/models/gemini-1.5-pro", "versionId": "002"}]
        return 200, {"publisherModels": rows, "nextPageToken": "more"}

    def _bedrock(self, rest: str, _query: Any, headers: dict[str, str], _sent: bytes) -> Any:
        signed = headers.get("authorization", "")
        if rest != "foundation-models" or f"Credential={self.providers.key}/" not in signed:
            return 403, {"message": "The security token included in the request is invalid."}
        row = {"modelArn": "arn:aws:bedrock:…", "providerName": "Amazon"}
        return 200, {
            "modelSummaries": [
                {**row, "modelId": "amazon.nova-lite-v1:0", "modelName": "Nova Lite"}
            ]
        }

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
