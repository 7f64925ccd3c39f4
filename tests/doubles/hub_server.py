"""A double of the Hugging Face hub: its wire format over a few files, on loopback.

Model info with file metadata, lists of an author's models in pages, `resolve` that redirects LFS
files to storage with byte ranges, gated and missing repositories; and on request it breaks off,
stalls, or is slow.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "5a3e" * 10
_PAGE = 2


@dataclass
class Hub:
    """What the double holds and how it behaves.

    Attributes:
        listed: What lists say of repositories, by id, with the fields of `expand[]`.
        moved: The new id of a repository by its old one.
        busy: How many requests for lists are refused with 429 first.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    listed: dict[str, dict[str, object]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    busy: int = 0
    licence: str = "apache-2.0"
    gated: set[str] = field(default_factory=set)
    break_after_bytes: int | None = None
    corrupt: bool = False
    bytes_a_second: int | None = None
    status: int | None = None
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    def downloads(self) -> list[str | None]:
        """The Range header of each request for a model's file, its documents left out."""
        asked = [each for each in self.requests if each[0].startswith("/storage/")]
        return [wanted for path, wanted, _ in asked if not path.endswith(".md")]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port of loopback; `hub.url` says where."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        sent = self.headers.get("Authorization")
        self.hub.requests.append((path, self.headers.get("Range"), sent))
        if self.hub.status is not None:
            self._answer(self.hub.status, {"error": "on request"})
        elif path == "/api/models":
            self._list(parse_qs(urlsplit(self.path).query))
        elif path.startswith("/api/models/") and "expand[]" in unquote(self.path):
            self._expand(path.removeprefix("/api/models/"))
        elif path.startswith("/api/models/"):
            repo_id, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._info(repo_id, revision or "main")
        elif "/resolve/" in path:
            repo_id, _, rest = path.removeprefix("/").partition("/resolve/")
            self._resolve(repo_id, rest.partition("/")[2])
        else:
            self._store(path.removeprefix("/storage/"))

    def _list(self, query: dict[str, list[str]]) -> None:
        if self.hub.busy:
            self.hub.busy -= 1
            self._answer(429, {"error": "rate limit"}, {"Retry-After": "0"})
            return
        author, first = query["author"][0], int(query.get("cursor", ["0"])[0])
        found = [each for repo_id, each in self.hub.listed.items() if repo_id.startswith(author)]
        following = first + _PAGE
        link = f'<{self.hub.url}/api/models?author={author}&cursor={following}>; rel="next"'
        headers = {"Link": link} if following < len(found) else {}
        self._answer(200, found[first:following], headers)

    def _expand(self, repo_id: str) -> None:
        if repo_id in self.hub.moved:
            to = f"{self.hub.url}/api/models/{self.hub.moved[repo_id]}?expand[]=downloads"
            self._answer(307, {}, {"Location": to})
        elif repo_id in self.hub.listed:
            self._answer(200, self.hub.listed[repo_id])
        else:
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _info(self, repo_id: str, revision: str) -> None:
        if repo_id in self.hub.gated and not self.headers.get("Authorization"):
            self._answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        elif repo_id not in self.hub.files:
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v1", REVISION):
            self._answer(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            self._answer(200, self._described(repo_id))

    def _described(self, repo_id: str) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in self.hub.files[repo_id].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
            sibling["blobId"] = blob.hexdigest()
            if name.endswith((".gguf", ".safetensors")):
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {
            "_id": "1",
            "id": repo_id,
            "modelId": repo_id,
            "sha": REVISION,
            "private": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": {"license": self.hub.licence},
            "siblings": siblings,
        }

    def _resolve(self, repo_id: str, name: str) -> None:
        if name not in self.hub.files.get(repo_id, {}):
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        self._answer(302, {}, {"Location": f"{self.hub.url}/storage/{repo_id}/{name}"})

    def _store(self, path: str) -> None:
        owner, name, file = path.split("/", 2)
        content = self.hub.files[f"{owner}/{name}"][file]
        if self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if first >= len(content):
            self._answer(416, {}, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._write(content[first:])

    def _write(self, content: bytes) -> None:
        limit = self.hub.break_after_bytes
        if limit is not None and limit < len(content):
            self.wfile.write(content[:limit])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        if self.hub.bytes_a_second is None:
            self.wfile.write(content)
            return
        step = max(self.hub.bytes_a_second // 20, 1)
        try:
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
