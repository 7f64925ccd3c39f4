"""A double of GitHub: a repository's newest commit, its tree and its raw files, on loopback.

What it serves in the tests is written from the boards' public formats, with a few models.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

SHA = "feedc0de" * 5
DAY = "2026-11-20"


@dataclass
class GitHub:
    """Text by `owner/name/path`; `status` other than 200 is what it answers to everything."""

    files: dict[str, str] = field(default_factory=dict)
    status: int = 200
    url: str = ""


@contextmanager
def serving(github: GitHub) -> Iterator[GitHub]:
    """Serve on a free port of loopback; `github.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = _answer(github, unquote(self.path).lstrip("/"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    github.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()


def _answer(github: GitHub, path: str) -> tuple[int, bytes]:
    if github.status != 200:
        return github.status, b""
    if path.startswith("repos/") and "/git/trees/" in path:
        _, owner, name, *_ = path.split("/")
        start = f"{owner}/{name}/"
        files = [each.removeprefix(start) for each in github.files if each.startswith(start)]
        tree = [{"path": each, "type": "blob"} for each in files]
        return 200, json.dumps({"sha": SHA, "tree": tree, "truncated": False}).encode()
    if path.startswith("repos/"):
        commit = {"sha": SHA, "commit": {"committer": {"date": f"{DAY}T12:00:00Z"}}}
        return 200, json.dumps(commit).encode()
    owner, name, _sha, file = path.split("/", 3)
    text = github.files.get(f"{owner}/{name}/{file}")
    return (404, b"") if text is None else (200, text.encode())
