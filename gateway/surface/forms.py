"""Forms with files (`multipart/form-data`): taken in by pieces, and written anew for a replica.

Each field is written with its name, its file name and its type under a boundary of our own, so that
what the replica reads is what was read here. The field `model` is left out, and put in with the
name that the replica knows it by.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http import HttpProcessingError

from core.kernel import clock
from gateway.errors import GatewayError
from gateway.http_request import SLOWEST_BODY_BYTES_PER_S
from gateway.surface.spool import Spool

_CHUNK_BYTES = 64 * 1024
_MOST_FIELDS = 64
_MOST_TEXT_BYTES = 1024
# Of all texts of a form together; what is over that is taken for files.
_MOST_TEXTS_BYTES = 256 * 1024
_FILE = "file"
_PLAIN = frozenset({"", "binary", "8bit", "7bit"})
_TO_ESCAPE = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


class _TooLarge(Exception):
    pass


class _Bounded:
    """A body that is not read on over its limit, in whatever part of a form that is."""

    def __init__(self, content: StreamReader, max_bytes: int) -> None:
        self._content, self._max_bytes = content, max_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def read(self, *given: Any, **named: Any) -> bytes:
        self._check()
        return await self._content.read(*given, **named)

    async def readline(self, *given: Any, **named: Any) -> bytes:
        self._check()
        return await self._content.readline(*given, **named)

    def _check(self) -> None:
        if self._content.total_bytes > self._max_bytes:
            raise _TooLarge


class FormReader:
    """Reads one form as it comes.

    Args:
        content_type: The request's.
        content: Its body.
        max_bytes: Of the body.
        caller_s: How long the caller may be silent.
        asked: The request's Content-Length; 0 when it says none.

    Raises:
        GatewayError: It is no form, or over the limit by its own word.
    """

    def __init__(
        self, content_type: str, content: StreamReader, max_bytes: int, caller_s: float, asked: int
    ) -> None:
        self._content, self._max_bytes, self._caller_s = content, max_bytes, caller_s
        self._began_s = clock.monotonic_s()
        if asked > max_bytes:
            raise self._too_large()
        if not content_type.lower().startswith("multipart/form-data"):
            raise GatewayError(
                "invalid_request",
                f"This route takes a form: Content-Type multipart/form-data, not "
                f"{content_type[:80] or 'none'!r}.",
                status=415,
            )
        try:
            bounded: Any = _Bounded(content, max_bytes)
            self._reader = MultipartReader({"Content-Type": content_type}, bounded)
        except ValueError as error:
            raise _malformed(error) from None

    async def fields(self) -> AsyncIterator[BodyPartReader]:
        """Each field; what is left of one is passed over. Raises GatewayError."""
        for _ in range(_MOST_FIELDS):
            part = await self._in_time(self._reader.next())
            if part is None:
                return
            if not isinstance(part, BodyPartReader) or not part.name:
                raise _malformed("a field has no name")
            _require_plain(part)
            yield part
        raise _malformed(f"it has over {_MOST_FIELDS} fields")

    async def chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        """What a field holds. Raises GatewayError."""
        while not part.at_eof():
            chunk = await self._in_time(part.read_chunk(_CHUNK_BYTES))
            yield bytes(chunk)

    @property
    def received_bytes(self) -> int:
        """Of the body, so far."""
        return self._content.total_bytes

    async def text(self, part: BodyPartReader) -> str:
        """A short field. Raises GatewayError."""
        value = b""
        async for chunk in self.chunks(part):
            value += chunk
            if len(value) > _MOST_TEXT_BYTES:
                raise _malformed(f"the field {part.name!r} has over {_MOST_TEXT_BYTES} bytes")
        return value.decode("utf-8", "replace").strip()

    async def _in_time(self, reading: Any) -> Any:
        """As for any body: silence ends it, and so does a trickle."""
        may_take_s = self._caller_s + self._content.total_bytes / SLOWEST_BODY_BYTES_PER_S
        left_s = may_take_s - (clock.monotonic_s() - self._began_s)
        try:
            async with asyncio.timeout(max(min(self._caller_s, left_s), 0.0)):
                return await reading
        except TimeoutError:
            raise GatewayError(
                "invalid_request",
                f"The form did not come within {self._caller_s:.0f} s.",
                status=408,
            ) from None
        except _TooLarge:
            raise self._too_large() from None
        except (ValueError, RuntimeError, AssertionError) as error:
            raise _malformed(error) from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise _malformed("the body is not HTTP/1.1") from None

    def _too_large(self) -> GatewayError:
        return GatewayError(
            "too_large",
            f"The upload is over the limit of {self._max_bytes / 1_000_000:g} MB. "
            "Send less, or raise BUD_MAX_UPLOAD_MB.",
        )


class Form:
    """A form that has been taken in: first its texts go on, then its files.

    Attributes:
        model: What its field of that name says.
        names: Of its texts.
        values: What those say; it may be changed until the form goes on.
        unread: Why there is more to read than that, in fields that are no plain text or where no
            file belongs; "" when there is not.
    """

    def __init__(self, folder: Path) -> None:
        self.model = self.unread = ""
        self.names: list[str] = []
        self.values: list[str] = []
        self._types: list[str] = []
        self._texts_bytes = 0
        self._boundary = os.urandom(16).hex()
        self._spool = Spool(folder)

    @property
    def content_type(self) -> str:
        """Of what a replica gets."""
        return f"multipart/form-data; boundary={self._boundary}"

    async def take(self, reader: FormReader) -> None:
        """Read all of it. Raises GatewayError."""
        async for part in reader.fields():
            if part.name == "model":
                if self.model:
                    raise _malformed("the field 'model' is there twice")
                self.model = await reader.text(part)
            elif part.filename is None:
                await self._take_text(reader, part)
            else:
                if part.name != _FILE:
                    self.unread = f"the field {(part.name or '')[:40]!r} is a file"
                await self._take_file(reader, part, b"")
        await self._spool.flush()
        if not self.model:
            raise GatewayError(
                "invalid_request",
                "The form has no field 'model'. List yours with GET /v1/models.",
                param="model",
            )

    async def _take_text(self, reader: FormReader, part: BodyPartReader) -> None:
        """Keep a text; what is none, or too long, goes the way of files."""
        name, content_type = part.name or "", part.headers.get("Content-Type", "")
        content, room_bytes = b"", _MOST_TEXTS_BYTES - self._texts_bytes
        async for chunk in reader.chunks(part):
            content += chunk
            if len(content) > room_bytes:
                break
        text = _decoded(content, content_type) if len(content) <= room_bytes else None
        if text is None:
            self.unread = f"the field {name[:40]!r} is too long, or no text in UTF-8"
            await self._take_file(reader, part, content)
            return
        self._texts_bytes += len(content)
        self.names.append(name)
        self.values.append(text)
        self._types.append(content_type)

    async def _take_file(self, reader: FormReader, part: BodyPartReader, begun: bytes) -> None:
        content_type = part.headers.get("Content-Type", "")
        await self._spool.write(self._head(part.name or "", part.filename, content_type) + begun)
        async for chunk in reader.chunks(part):
            await self._spool.write(chunk)
        await self._spool.write(b"\r\n")

    def size_bytes(self, model: str) -> int:
        """Of the whole body for a replica that knows the model by this name."""
        return len(self._first(model)) + self._spool.size_bytes + len(self._last)

    async def pieces(self, model: str) -> AsyncIterator[bytes]:
        """The whole body."""
        yield self._first(model)
        async for piece in self._spool.pieces():
            yield piece
        yield self._last

    def close(self) -> None:
        """Free what it takes."""
        self._spool.close()

    def _first(self, model: str) -> bytes:
        texts = zip(self.names, self.values, self._types, strict=True)
        fields = [("model", model, ""), *texts]
        return b"".join(
            self._head(name, None, content_type) + text.encode() + b"\r\n"
            for name, text, content_type in fields
        )

    @property
    def _last(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()

    def _head(self, name: str, filename: str | None, content_type: str) -> bytes:
        head = f'--{self._boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"'
        if filename is not None:
            head += f'; filename="{_escaped(filename)}"'
        if content_type:
            # Its quotes are the type's own; a line break cannot be in a header that was parsed.
            head += f"\r\nContent-Type: {content_type}"
        return f"{head}\r\n\r\n".encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    return text.translate(_TO_ESCAPE)


def _decoded(content: bytes, content_type: str) -> str | None:
    """A field's text; None when it is none that everybody reads alike."""
    charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in ("", "utf-8", "us-ascii"):
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _require_plain(part: BodyPartReader) -> None:
    """Nobody encodes fields any more; what a replica would make of one that is, is not known."""
    encoding = part.headers.get("Content-Transfer-Encoding", "")
    if encoding.lower() not in _PLAIN or "Content-Encoding" in part.headers:
        raise _malformed(f"the field {part.name!r} is encoded; send it as it is")


def _malformed(why: object) -> GatewayError:
    return GatewayError("invalid_request", f"The form cannot be read: {str(why)[:200]}.")
