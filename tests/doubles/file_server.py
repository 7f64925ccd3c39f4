"""A plain web server over a few files, on loopback: ranges, ETags, redirects; and it may lie."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Site:
    """What the double holds by path, and how it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    content_type: str = "application/octet-stream"
    etags: bool = True
    break_after_bytes: int | None = None
    stop_after_requests: int | None = None
    claimed_bytes: int | None = None
    extra_bytes: int = 0
    bytes_a_second: int | None = None
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [wanted for _, wanted, _ in self.requests]


@contextmanager
def serving(site: Site, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve `site` on a free port of loopback, with TLS if need be; `site.url` says where."""

    class Handler(_Handler):
        pass

    Handler.site = site
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    site: Site

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        wanted = self.headers.get("Range")
        self.site.requests.append((path, wanted, self.headers.get("If-Range")))
        if len(self.site.requests) > (self.site.stop_after_requests or len(self.site.requests)):
            self.connection.close()
        elif path in self.site.redirects:
            self._head(302, {"Location": self.site.redirects[path]})
        elif self.site.status is not None or path not in self.site.files:
            self._head(self.site.status or 404, {})
        else:
            self._file(self.site.files[path], wanted)

    def _file(self, content: bytes, wanted: str | None) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if self.headers.get("If-Range") not in (None, etag):
            wanted = None
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        headers = {"Content-Type": self.site.content_type}
        # Without a length, as in HTTP/1.0, nobody notices that there is more than was said.
        if not self.site.extra_bytes or len(self.site.requests) == 1:
            headers["Content-Length"] = str(self.site.claimed_bytes or len(content) - first)
        if self.site.etags:
            headers["ETag"] = etag
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._head(206 if wanted else 200, headers)
        body = content[first:]
        if len(self.site.requests) > 1:
            body += bytes(self.site.extra_bytes)
        try:
            self._write(body[: self.site.break_after_bytes])
        except OSError:
            self.close_connection = True

    def _write(self, body: bytes) -> None:
        if self.site.bytes_a_second is None:
            self.wfile.write(body)
            return
        step = max(self.site.bytes_a_second // 20, 1)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(0.05)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
