"""A double of S3: the part of its wire format that Bud uses, over a dict, on loopback.

Listing with prefixes, ranges with If-Match, single and multipart uploads with metadata; and on
request it is slow, breaks off, or refuses. The adapter was checked against moto's server, too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Store:
    """What the double holds: objects and metadata by bucket and key, open uploads by id."""

    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    metadata: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str, dict[int, bytes]]] = field(default_factory=dict)
    bytes_a_second: int | None = None
    break_after_bytes: int | None = None
    refuse: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def ranges(self) -> list[str | None]:
        """The Range header of each download."""
        return [wanted for method, _, wanted in self.requests if method == "GET" and wanted]


@contextmanager
def serving(store: Store) -> Iterator[Store]:
    """Serve `store` on a free port of loopback; `store.url` says where."""

    class Handler(_Handler):
        pass

    Handler.store = store
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _begin(self) -> tuple[str, str, dict[str, list[str]], bytes] | None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.store.requests.append((self.command, key, self.headers.get("Range")))
        if self.store.refuse:
            self._error(403, "InvalidAccessKeyId")
        elif bucket not in self.store.buckets:
            self._error(404, "NoSuchBucket")
        else:
            return bucket, key, query, body
        return None

    def do_GET(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        bucket, key, query, _ = begun
        if "uploads" in query:
            self._list_uploads(bucket, query["prefix"][0])
        elif "uploadId" in query:
            self._list_parts(query["uploadId"][0])
        elif not key:
            self._list(bucket, query.get("prefix", [""])[0])
        else:
            self._object(bucket, key)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        bucket, key, query, body = begun
        if "uploadId" in query:
            self._pause(len(body))
            self.store.uploads[query["uploadId"][0]][2][int(query["partNumber"][0])] = body
        else:
            self._put(bucket, key, body, self._sent_metadata())
        self._answer(200, b"", {"ETag": etag(body)})

    def do_POST(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        bucket, key, query, _ = begun
        if "uploads" in query:
            upload_id = f"upload-{len(self.store.requests)}"
            self.store.uploads[upload_id] = (bucket, key, {})
            self.store.metadata[bucket, key] = self._sent_metadata()
            body = f"<UploadId>{upload_id}</UploadId>"
            self._xml("InitiateMultipartUploadResult", body)
            return
        parts = self.store.uploads.pop(query["uploadId"][0])[2]
        content = b"".join(parts[number] for number in sorted(parts))
        self._put(bucket, key, content, self.store.metadata[bucket, key])
        self._xml("CompleteMultipartUploadResult", f"<ETag>{escape(etag(content))}</ETag>")

    def do_DELETE(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        bucket, key, query, _ = begun
        if "uploadId" in query:
            self.store.uploads.pop(query["uploadId"][0], None)
        else:
            self.store.buckets[bucket].pop(key, None)
        self._answer(204, b"")

    def _put(self, bucket: str, key: str, content: bytes, metadata: dict[str, str]) -> None:
        self.store.buckets[bucket][key] = content
        self.store.metadata[bucket, key] = metadata

    def _sent_metadata(self) -> dict[str, str]:
        given = self.headers.items()
        return {name: value for name, value in given if name.lower().startswith("x-amz-meta-")}

    def _object(self, bucket: str, key: str) -> None:
        content = self.store.buckets[bucket].get(key)
        if content is None:
            self._error(404, "NoSuchKey")
            return
        if self.headers.get("If-Match") not in (None, etag(content)):
            self._error(412, "PreconditionFailed")
            return
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        headers = {"ETag": etag(content), **self.store.metadata.get((bucket, key), {})}
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._answer(206 if wanted else 200, content[first:], headers)

    def _list(self, bucket: str, prefix: str) -> None:
        found = sorted(self.store.buckets[bucket].items())
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<ETag>{escape(etag(content))}</ETag></Contents>"
            for key, content in found
            if key.startswith(prefix)
        )
        self._xml("ListBucketResult", f"<IsTruncated>false</IsTruncated>{rows}")

    def _list_uploads(self, bucket: str, prefix: str) -> None:
        rows = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>2026-11-29T10:00:{number:02d}.000Z</Initiated></Upload>"
            for number, (upload_id, (of, key, _)) in enumerate(self.store.uploads.items())
            if of == bucket and key.startswith(prefix)
        )
        self._xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{rows}")

    def _list_parts(self, upload_id: str) -> None:
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag(content))}</ETag>"
            f"<Size>{len(content)}</Size></Part>"
            for number, content in sorted(self.store.uploads[upload_id][2].items())
        )
        self._xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{rows}")

    def _error(self, status: int, code: str) -> None:
        self._xml("Error", f"<Code>{code}</Code><Message>on request</Message>", status)

    def _xml(self, name: str, body: str, status: int = 200) -> None:
        document = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{body}</{name}>'
        self._answer(status, document.encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.store.break_after_bytes
        if limit is not None and limit < len(body):
            self.wfile.write(body[:limit])
            self.close_connection = True
            return
        if self.store.bytes_a_second is None or len(body) < 100_000:
            self.wfile.write(body)
            return
        step = max(self.store.bytes_a_second // 20, 1)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self._pause(step)

    def _pause(self, size_bytes: int) -> None:
        if self.store.bytes_a_second is not None:
            time.sleep(size_bytes / self.store.bytes_a_second)
