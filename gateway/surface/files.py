"""`/v1/files`: what batches read and write, by project. What lies where: `core.contracts.batch`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from aiohttp import BodyPartReader

from core.contracts import batch
from core.contracts.batch import Folder, StoredFile
from core.contracts.route_table import ApiKey
from core.kernel import clock, ids
from gateway.errors import GatewayError
from gateway.http_request import Response
from gateway.relay import Exchange
from gateway.surface.forms import FormReader
from gateway.surface.spool import no_room
from gateway.surface.worker import Handler, Worker, answered, form_reader, missing, not_allowed

PATH = "/v1/files"
_PURPOSE: Literal["batch"] = "batch"
_PIECE_BYTES = 256 * 1024
_ROOM_EVERY_BYTES = 8 * 1024 * 1024
_MOST_LISTED = 10_000
_MOST_DIGITS = 10
_TTL_S = range(3600, 30 * 86_400 + 1)

_Result = TypeVar("_Result")


class Files:
    """The files of all projects, as one worker serves them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._data_dir = worker.config.data_dir

    def route(self, method: str, path: str) -> tuple[str, Handler] | None:
        """The name of an endpoint and what serves it; None when the path is none of these."""
        if path == PATH:
            known: dict[str, tuple[str, Handler]] = {
                "POST": ("files", self._create),
                "GET": ("files.kept", self._list),
            }
            return known.get(method) or ("unknown", partial(not_allowed, allowed="GET or POST"))
        if not path.startswith(PATH + "/"):
            return None
        match method, path.removeprefix(PATH + "/").split("/"):
            case "GET", [file_id]:
                return "files.kept", partial(self._show, file_id=file_id)
            case "DELETE", [file_id]:
                return "files.kept", partial(self._delete, file_id=file_id)
            case "GET", [file_id, "content"]:
                return "files.kept", partial(self._content, file_id=file_id)
        return None

    async def _create(self, exchange: Exchange) -> Response | None:
        key = await self._worker.access.admit(exchange.request, exchange.fact)
        with self._worker.uploads.one(key.project_id):
            return await self._uploaded(exchange, key)

    async def _uploaded(self, exchange: Exchange, key: ApiKey) -> Response | None:
        reader = await form_reader(exchange, self._worker)
        await in_thread(self._require_room, exchange.request.content_bytes)
        folder = Folder(self._data_dir, key.project_id)
        file_id = ids.new_id("file")
        partial_file = folder.content(file_id).with_suffix(".content.partial")
        partial_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            stored = await self._received(reader, file_id, partial_file)
            exchange.fact.request_bytes = reader.received_bytes
            # An upload takes its time: the key may have been revoked meanwhile.
            await self._worker.access.admit(exchange.request, exchange.fact)
            await in_thread(partial_file.replace, folder.content(file_id))
            await in_thread(folder.add_file, stored)
        finally:
            partial_file.unlink(missing_ok=True)
        return answered(document(stored), exchange.fact)

    async def _received(self, reader: FormReader, file_id: str, path: Path) -> StoredFile:
        texts: dict[str, str] = {}
        filename: str | None = None
        async for part in reader.fields():
            if part.name == "file":
                filename = part.filename or "upload.jsonl"
                await self._written(reader, part, path)
            else:
                texts[part.name or ""] = await reader.text(part)
        if filename is None:
            raise _invalid("The form has no field 'file'.", "file")
        if texts.get("purpose") != _PURPOSE:
            raise _invalid(
                f"Files are kept for batches here: 'purpose' must be {_PURPOSE!r}, not "
                f"{texts.get('purpose', 'none')!r}.",
                "purpose",
            )
        now_s = int(clock.unix_s())
        ttl_s = _ttl_s(texts.get("expires_after[seconds]"))
        return StoredFile(
            id=file_id,
            filename=filename[:255],
            purpose=_PURPOSE,
            size_bytes=path.stat().st_size,
            created_unix_s=now_s,
            expires_unix_s=None if ttl_s is None else now_s + ttl_s,
        )

    async def _written(self, reader: FormReader, part: BodyPartReader, path: Path) -> None:
        pieces, held_bytes, unasked_bytes = list[bytes](), 0, 0
        with path.open("wb") as file:
            async for chunk in reader.chunks(part):
                pieces.append(chunk)
                held_bytes += len(chunk)
                if held_bytes < _PIECE_BYTES:
                    continue
                await in_thread(file.write, b"".join(pieces))
                unasked_bytes += held_bytes
                pieces, held_bytes = [], 0
                if unasked_bytes >= _ROOM_EVERY_BYTES:
                    unasked_bytes = 0
                    await in_thread(self._require_room)
            await in_thread(file.write, b"".join(pieces))

    def _require_room(self, more_bytes: int = 0) -> None:
        """Raises GatewayError: there is none for so much more, beside what others upload now."""
        most_bytes = self._worker.config.files_max_bytes
        if batch.used_bytes(self._data_dir) + max(more_bytes, 1) > most_bytes:
            raise GatewayError(
                "too_large",
                f"All files together have reached the limit of {most_bytes / 1_000_000:g} MB. "
                "Delete what is not needed any more, or raise BUD_FILES_MAX_MB.",
                status=507,
                code="storage_full",
            )

    async def _list(self, exchange: Exchange) -> Response | None:
        key = await self._worker.access.admit(exchange.request, exchange.fact)
        query = exchange.request.query
        folder = Folder(self._data_dir, key.project_id)

        def read() -> dict[str, Any]:
            kept = ids_of_page(folder.file_ids(), query.get("after"), query.get("order"))
            limit = whole(query.get("limit"), _MOST_LISTED, _MOST_LISTED)
            wanted = query.get("purpose")
            found: list[StoredFile] = []
            for file_id in kept:
                file = folder.file(file_id)
                if file is not None and is_live(file) and wanted in (None, file.purpose):
                    found.append(file)
                    if len(found) > limit:
                        break
            return page([document(each) for each in found], limit)

        return answered(await in_thread(read), exchange.fact)

    async def _show(self, exchange: Exchange, file_id: str) -> Response | None:
        _, file = await self._found(exchange, file_id)
        return answered(document(file), exchange.fact)

    async def _delete(self, exchange: Exchange, file_id: str) -> Response | None:
        folder, file = await self._found(exchange, file_id)
        await in_thread(folder.delete_file, file.id)
        return answered({"id": file.id, "object": "file", "deleted": True}, exchange.fact)

    async def _content(self, exchange: Exchange, file_id: str) -> Response | None:
        folder, file = await self._found(exchange, file_id)
        caller = exchange.caller
        with await in_thread(_opened, folder.content(file.id)) as content:
            caller.start(
                {
                    "X-Request-Id": exchange.fact.request_id,
                    "Content-Type": "application/octet-stream",
                },
                file.size_bytes,
            )
            exchange.fact.status = 200
            try:
                while piece := await asyncio.to_thread(content.read, _PIECE_BYTES):
                    caller.write(piece)
                    exchange.fact.response_bytes += len(piece)
                    await caller.drain()
            except BaseException:
                # No error can be told inside the content: it ends short instead.
                caller.abort()
                raise
        caller.end()
        return None

    async def _found(self, exchange: Exchange, file_id: str) -> tuple[Folder, StoredFile]:
        key = await self._worker.access.admit(exchange.request, exchange.fact)
        folder = Folder(self._data_dir, key.project_id)
        file = await in_thread(folder.file, file_id)
        if file is None or not is_live(file):
            raise missing("file", file_id)
        return folder, file


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


async def in_thread(call: Callable[..., _Result], *given: Any) -> _Result:
    """What a call gives that waits for the disk. Raises GatewayError: that fails."""
    try:
        return await asyncio.to_thread(call, *given)
    except FileNotFoundError:
        raise GatewayError("not_found", "It was deleted meanwhile.", code="not_found") from None
    except OSError as error:
        raise no_room(error) from error


def document(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI's API shows it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_unix_s,
        "expires_at": file.expires_unix_s,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def ids_of_page(known: list[str], after: str | None, order: str | None) -> list[str]:
    """The ids of a list in its order, from behind one that may be deleted by now."""
    if order == "asc":
        return [each for each in known if after is None or each > after]
    return [each for each in reversed(known) if after is None or each < after]


def page(shown: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of a list; what is over the limit says that there is more."""
    has_more, shown = len(shown) > limit, shown[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": has_more,
    }


def whole(text: str | None, default: int, most: int) -> int:
    """A limit of a list. Raises GatewayError."""
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _MOST_DIGITS or not 1 <= int(text) <= most:
        raise _invalid(f"'limit' is from 1 to {most:,}, not {text[:20]!r}.", "limit")
    return int(text)


def _ttl_s(text: str | None) -> int | None:
    if text is None:
        return None
    seconds = int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else -1
    check_ttl("expires_after", seconds)
    return seconds


def check_ttl(param: str, seconds: int) -> None:
    """How long a file may be kept. Raises GatewayError."""
    if seconds not in _TTL_S:
        raise _invalid(f"{param!r} is from {_TTL_S[0]:,} to {_TTL_S[-1]:,} seconds.", param)


def is_live(file: StoredFile) -> bool:
    """Whether it has not expired."""
    return file.expires_unix_s is None or file.expires_unix_s > clock.unix_s()


def _invalid(message: str, param: str) -> GatewayError:
    return GatewayError("invalid_request", message, param=param)
