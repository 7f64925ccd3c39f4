"""Resumable downloads: the transfer that all sources share, and files at a URL."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from core.kernel.errors import (
    BudError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unavailable,
    UpstreamFailed,
)
from core.kernel.settings import settings
from core.registry.adapters import guarded_http

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES = 1 << 20
_MAX_STALLS = 3
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_MODEL_SUFFIXES = (".gguf", ".safetensors")
_FILE_NAME = re.compile(r"filename=\"?([^\";]+)", re.IGNORECASE)

Open = Callable[[dict[str, str]], "AbstractContextManager[httpx.Response]"]
Attempt = Callable[["Written"], None]


class ConnectionBroke(Exception):
    """A transfer ended before its end, and may be tried again; the cause is the client's error."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL; `etag` and `size_bytes` are None where the server does not say."""

    name: str
    size_bytes: int | None
    etag: str | None


def look_up(url: str) -> RemoteFile:
    """What lies at a URL, without downloading it.

    Raises:
        InvalidInput: The address is refused, or it is a web page or no model file.
        NotFound, PermissionDenied, UpstreamFailed: What the server answers.
        TooLarge: It is over BUD_MAX_MODEL_GB.
        Unavailable: It cannot be reached.
    """
    import httpx

    try:
        with guarded_http.stream("GET", url) as answer:
            _require_found(answer, url)
            name = _name_of(answer, url)
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind in ("text/html", "application/xhtml+xml"):
                raise InvalidInput(
                    f"{guarded_http.shown(url)} answers with a web page, not with a file.",
                    remedy="Copy the address of the download itself; "
                    "a page that asks for a log-in cannot be used.",
                )
            length = answer.headers.get("Content-Length", "")
            size_bytes = int(length) if length.isdigit() else None
            check_size(size_bytes, name)
            first = next(answer.iter_raw(16), b"")
            _check_form(name, first)
            return RemoteFile(name, size_bytes, _strong_etag(answer))
    except httpx.HTTPError as error:
        raise _unreachable(url) from error


def fetch(
    url: str,
    file: RemoteFile,
    target: Path,
    on_bytes: Callable[[int], None],
    wait: Callable[[float], None],
) -> str:
    """Download the file at a URL to `target`; see `transfer`.

    Raises:
        InvalidInput: It changed since it was looked up.
        NotFound, PermissionDenied, UpstreamFailed, Unavailable: What the server answers.
    """

    def opened(headers: dict[str, str]) -> AbstractContextManager[httpx.Response]:
        if headers and file.etag is not None:
            headers = {**headers, "If-Range": file.etag}
        return guarded_http.stream("GET", url, headers=headers)

    def accept(answer: httpx.Response) -> None:
        _require_found(answer, url)
        if file.etag is not None and _strong_etag(answer) not in (None, file.etag):
            raise InvalidInput(
                f"{file.name} was changed at its source while it was downloaded.",
                remedy="Add it again.",
            )

    if file.etag is None:
        # Nothing says that what is here is of the same file: begin anew.
        on_bytes(-target.stat().st_size if target.exists() else 0)
        target.unlink(missing_ok=True)
    is_resumable = file.etag is not None
    try:
        return transfer(
            over_http(opened, accept, is_resumable=is_resumable),
            target,
            file.size_bytes,
            on_bytes,
            wait,
        )
    except ConnectionBroke as error:
        raise _unreachable(url) from error


def transfer(
    attempt: Attempt,
    target: Path,
    size_bytes: int | None,
    on_bytes: Callable[[int], None],
    wait: Callable[[float], None],
) -> str:
    """Download to `target`, going on after what is there already, and hash it on the way.

    A connection that breaks is made again, as long as bytes come.

    Args:
        attempt: Adds the bytes that are missing; ConnectionBroke where it may be tried again.
        target: Where the bytes go; its folder exists.
        size_bytes: How many there must be in the end; None when nobody said.
        on_bytes: Called with the number of bytes of each chunk; negative when what was there
            already is of no use. May raise to stop.
        wait: Waits so many seconds before the next try; may raise to stop.

    Returns:
        The SHA-256 of the file, as hex.

    Raises:
        InvalidInput: More bytes came than were announced.
        TooLarge: It is over BUD_MAX_MODEL_GB.
        ConnectionBroke: It cannot be reached, or breaks off again and again.
    """
    with Written(target, size_bytes, on_bytes) as written:
        received, stalls = False, 0
        while not written.is_whole:
            before_bytes = written.count
            try:
                attempt(written)
                if size_bytes is None:
                    break
                if not written.is_whole:
                    raise ConnectionBroke(f"{written.count} of {size_bytes} bytes came")
            except ConnectionBroke:
                grew = written.count > before_bytes
                received, stalls = received or grew, 0 if grew else stalls + 1
                # Out of reach from the beginning is not worth waiting for.
                if not received or stalls > _MAX_STALLS:
                    raise
                wait(float(2**stalls))
        return written.sha256()


def over_http(
    open_at: Open, accept: Callable[[httpx.Response], None], *, is_resumable: bool = True
) -> Attempt:
    """A transfer's attempt over HTTP.

    Args:
        open_at: Opens the request with headers, such as a Range.
        accept: Raises when an answer is not the file.
        is_resumable: Whether to ask for the missing bytes only.
    """
    import httpx

    def attempt(written: Written) -> None:
        resume = written.count and is_resumable
        headers = {"Range": f"bytes={written.count}-"} if resume else {}
        try:
            with open_at(headers) as answer:
                if not headers or answer.status_code != _RANGE_NOT_SATISFIABLE:
                    take(written, answer)
                    return
            # There is more here than there: what is here is of another file.
            with open_at({}) as answer:
                take(written, answer)
        except httpx.TransportError as error:
            raise ConnectionBroke(type(error).__name__) from error

    def take(written: Written, answer: httpx.Response) -> None:
        accept(answer)
        if answer.status_code != _PARTIAL_CONTENT:
            written.begin_anew()
        # As they come: a larger chunk would be lost when the connection breaks in it.
        for chunk in answer.iter_raw():
            written.add(chunk)

    return attempt


class Written:
    """A file that is being written, and the hash of what it holds so far.

    Entered, it has read what is there already; `count` is the number of bytes it holds.
    """

    def __init__(
        self, target: Path, size_bytes: int | None, on_bytes: Callable[[int], None]
    ) -> None:
        self._size_bytes, self._on_bytes, self._name = size_bytes, on_bytes, target.name
        target.touch()
        self._file = target.open("r+b")
        self._digest = hashlib.sha256()
        self.count = 0

    def __enter__(self) -> Written:
        while chunk := self._file.read(CHUNK_BYTES):
            self._digest.update(chunk)
            self.count += len(chunk)
            self._on_bytes(0)
        if self._size_bytes is not None and self.count > self._size_bytes:
            self.begin_anew()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._file.close()

    @property
    def is_whole(self) -> bool:
        """Whether it has all bytes that were announced."""
        return self._size_bytes is not None and self.count == self._size_bytes

    def begin_anew(self) -> None:
        """Throw away what is there."""
        if self.count:
            self._on_bytes(-self.count)
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.count = hashlib.sha256(), 0

    def add(self, chunk: bytes) -> None:
        """Append bytes. InvalidInput, or TooLarge, when there are more than there may be."""
        count = self.count + len(chunk)
        if self._size_bytes is not None and count > self._size_bytes:
            self.begin_anew()
            raise InvalidInput(
                f"{self._name} is longer than the {self._size_bytes:,} bytes that its source "
                "announced.",
                remedy="Do not trust this source, or add the file again if it has just changed.",
            )
        check_size(count, self._name)
        self._file.write(chunk)
        self._digest.update(chunk)
        self.count = count
        self._on_bytes(len(chunk))

    def sha256(self) -> str:
        """The hash of all of it, which is on the disk then."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()


def check_size(size_bytes: int | None, name: str) -> None:
    """Raise TooLarge when a file is over BUD_MAX_MODEL_GB."""
    limit_gb = settings().max_model_gb
    if size_bytes is not None and size_bytes > limit_gb * 10**9:
        raise TooLarge(
            f"{name} is over the limit of {limit_gb} GB.",
            value=f"{size_bytes / 1e9:.2f} GB",
            remedy="Use a smaller model, or let an operator raise BUD_MAX_MODEL_GB.",
        )


def _require_found(answer: httpx.Response, url: str) -> None:
    status, where = answer.status_code, guarded_http.shown(url)
    if status in (200, 206):
        return
    if status in (404, 410):
        raise NotFound(f"There is no file at {where} ({status}).", remedy="Check the address.")
    if status in (401, 403):
        raise PermissionDenied(
            f"{where} may not be read ({status}).",
            remedy="Use an address that needs no log-in, or add the file from this machine.",
        )
    raise UpstreamFailed(
        f"{where} answered {status}.",
        remedy="Retry the job in a few minutes; it goes on where it was.",
    )


def _name_of(answer: httpx.Response, url: str) -> str:
    named = _FILE_NAME.search(answer.headers.get("Content-Disposition", ""))
    path = named[1] if named else unquote(urlsplit(url).path)
    name = PurePosixPath(path.replace("\\", "/")).name.strip()
    return name if name not in ("", ".", "..") else "model"


def _check_form(name: str, first: bytes) -> None:
    if not name.lower().endswith(_MODEL_SUFFIXES):
        raise InvalidInput(
            f"{name} is no model file: its name ends in neither .gguf nor .safetensors.",
            remedy="Use the address of such a file; an archive must be unpacked first.",
        )
    if name.lower().endswith(".gguf") and first[:4] != b"GGUF":
        raise InvalidInput(
            f"{name} does not begin like a GGUF file.",
            value=first[:16],
            remedy="Check in a browser what lies at this address.",
        )


def _strong_etag(answer: httpx.Response) -> str | None:
    # A weak one, and a date, say only that the file means the same, not that its bytes are.
    etag = answer.headers.get("ETag")
    return etag if etag is not None and etag.startswith('"') else None


def _unreachable(url: str) -> BudError:
    return Unavailable(
        f"{guarded_http.shown(url)} cannot be reached, or breaks off again and again.",
        remedy="Check the address and the network of this machine, then retry the job.",
    )
