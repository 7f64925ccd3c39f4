"""`/v1/responses` beside the answering itself: what is kept, and what runs without its caller."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from core.kernel import clock
from gateway.body import Parsed
from gateway.dialects.chat import converted, unsupported
from gateway.dialects.responses import Request, Responses
from gateway.errors import GatewayError
from gateway.response_store import Kept, ResponseStore

log = logging.getLogger(__name__)

PATH = "/v1/responses"
_BEAT_S = 1.0
_DEAD_AFTER_S = 15.0
_STOP_S = 3.0
_MAX_RUNNING = 256

# Asked with the project and the query; answers with JSON.
_Operation = Callable[[str, Mapping[str, str]], Awaitable[bytes]]


class _Page(msgspec.Struct):
    after: str = ""
    limit: int = 20
    order: str = "desc"


class KeptResponses:
    """The responses that one worker keeps, and those that it works on in the background.

    A response in the background belongs to the worker that took it. It says every second that it
    lives, and learns thereby what was cancelled at another worker; one whose worker was silent for
    15 seconds has failed.
    """

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._running: dict[str, asyncio.Task[None]] = {}
        self._beating: asyncio.Task[None] | None = None

    async def open(self, raw: bytes, project_id: str, request_id: str) -> Responses:
        """Read a request and what it goes on from. Raises GatewayError."""
        request = Request(raw)
        earlier = await self._earlier(project_id, request.previous_id)
        return Responses(request, earlier, request_id, int(clock.unix_s()))

    async def to_count(self, raw: bytes, project_id: str) -> Parsed:
        """The chat body whose prompt `/v1/responses/input_tokens` counts. Raises GatewayError."""
        request = Request(raw)
        request.fields.stream = False
        return request.chat(await self._earlier(project_id, request.previous_id))

    async def keep(self, translation: Responses, project_id: str) -> None:
        """Keep a response, unless its caller said not to.

        A full disk costs the caller nothing but that it is not found later.
        """
        if not translation.request.store:
            return
        try:
            await asyncio.to_thread(self._store.put, _state(translation, project_id))
        except (sqlite3.Error, OSError) as error:
            log.error("response %s is not kept: %s", translation.id, error)

    async def start(
        self, translation: Responses, project_id: str, work: Callable[[], Awaitable[None]]
    ) -> bytes:
        """Begin to work without the caller; the response as it stands.

        Args:
            translation: The request; `work` brings its answer into it.
            project_id: Whose it is.
            work: All of the way to the replica and back; it does not raise.

        Raises:
            GatewayError: Too much runs in the background already.
        """
        if len(self._running) >= _MAX_RUNNING:
            raise GatewayError(
                "upstream_error",
                f"{_MAX_RUNNING} responses are worked on in the background. Try again soon.",
                status=429,
                code="rate_limit_exceeded",
                retry_after_s=5,
            )
        begun = _state(translation, project_id)
        await self._asked(self._store.put, begun)
        task = asyncio.create_task(self._run(translation, work))
        self._running[translation.id] = task
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat())
        return begun.response

    async def close(self) -> None:
        """Wait a moment for what ends now, then close the file."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=_STOP_S)
        if self._beating is not None:
            self._beating.cancel()
        await asyncio.to_thread(self._store.close)

    # -- the resource

    def operation(self, method: str, path: str) -> _Operation | None:
        """What a request below `/v1/responses/` asks for; None when there is no such route."""
        match method, path.removeprefix(PATH + "/").split("/"):
            case "GET", [id_]:
                return partial(self.show, id_=id_)
            case "DELETE", [id_]:
                return partial(self.delete, id_=id_)
            case "POST", [id_, "cancel"]:
                return partial(self.cancel, id_=id_)
            case "GET", [id_, "input_items"]:
                return partial(self.items, id_=id_)
        return None

    async def show(self, project_id: str, query: Mapping[str, str], id_: str) -> bytes:
        """A response as JSON. Raises GatewayError: there is none."""
        if query.get("stream") == "true":
            raise unsupported("Going on with the stream of a response", "stream")
        return (await self._kept(project_id, id_)).response

    async def delete(self, project_id: str, _query: Mapping[str, str], id_: str) -> bytes:
        """Delete a response. Raises GatewayError: there is none."""
        if not await self._asked(self._store.delete, project_id, id_):
            raise _missing(id_)
        self._stop(id_)
        return msgspec.json.encode({"id": id_, "object": "response", "deleted": True})

    async def cancel(self, project_id: str, _query: Mapping[str, str], id_: str) -> bytes:
        """Cancel a response in the background; it as it stands.

        One that has ended stays as it is. Raises GatewayError: there is none, or its caller waits
        for it.
        """
        kept = await self._kept(project_id, id_)
        response = msgspec.json.decode(kept.response)
        if not response.get("background"):
            raise GatewayError(
                "invalid_request",
                "Only a response that was made with 'background' can be cancelled.",
                param="response_id",
            )
        if kept.status == "in_progress":
            cancelled = msgspec.json.encode(response | {"status": "cancelled"})
            await self._asked(self._store.end, id_, "cancelled", cancelled)
            self._stop(id_)
        return (await self._kept(project_id, id_)).response

    async def items(self, project_id: str, query: Mapping[str, str], id_: str) -> bytes:
        """What went into a response, as a page of a list. Raises GatewayError: there is none."""
        kept = await self._kept(project_id, id_)
        found = msgspec.json.decode(kept.items, type=list[dict[str, Any]])
        found = await self._earlier(project_id, kept.previous_id) + found
        page = converted({**query, "limit": _whole(query.get("limit", "20"))}, _Page, "$.query")
        if page.order != "asc":
            found.reverse()
        ids = [item["id"] for item in found]
        if page.after in ids:
            found = found[ids.index(page.after) + 1 :]
        shown = found[: page.limit]
        return msgspec.json.encode(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(found) > len(shown),
            }
        )

    async def _kept(self, project_id: str, id_: str) -> Kept:
        kept: Kept | None = await self._asked(self._store.get, project_id, id_)
        if kept is None:
            raise _missing(id_)
        if kept.status == "in_progress" and clock.unix_s() - kept.beat_s > _DEAD_AFTER_S:
            error = {
                "code": "server_error",
                "message": "The gateway's worker ended. Send it again.",
            }
            response = msgspec.json.decode(kept.response) | {"status": "failed", "error": error}
            content = msgspec.json.encode(response)
            await self._asked(self._store.end, id_, "failed", content)
            return replace(kept, status="failed", response=content)
        return kept

    async def _earlier(self, project_id: str, id_: str | None) -> list[dict[str, Any]]:
        """The items of a conversation up to a response and with it; none without one."""
        if id_ is None:
            return []
        chain = await self._asked(self._store.chain, project_id, id_)
        if chain is None:
            raise GatewayError(
                "not_found",
                f"Previous response with id {id_!r} not found: it, or one that it goes on from, "
                "was not stored, was deleted or is too old.",
                param="previous_response_id",
                code="previous_response_not_found",
                status=400,
            )
        if chain[-1].status == "in_progress":
            raise GatewayError(
                "invalid_request",
                f"Response {id_!r} is still being worked on.",
                param="previous_response_id",
            )
        items: list[dict[str, Any]] = []
        for kept in chain:
            items += msgspec.json.decode(kept.items)
            items += msgspec.json.decode(kept.response)["output"]
        return items

    async def _asked(self, what: Callable[..., Any], *given: Any) -> Any:
        try:
            return await asyncio.to_thread(what, *given)
        except (sqlite3.Error, OSError) as error:
            log.error("the kept responses cannot be read: %s", error)
            raise GatewayError("internal", "The kept responses cannot be read now.") from error

    # -- in the background

    async def _run(self, translation: Responses, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
            await self._asked(
                self._store.end, translation.id, translation.status, translation.document()
            )
        except GatewayError:
            log.error("the end of response %s is not kept", translation.id)
        finally:
            del self._running[translation.id]

    def _stop(self, id_: str) -> None:
        task = self._running.get(id_)
        if task is not None:
            task.cancel()

    async def _beat(self) -> None:
        while self._running:
            await asyncio.sleep(_BEAT_S)
            mine = list(self._running)
            try:
                wanted = await asyncio.to_thread(self._store.beat, mine, clock.unix_s())
            except (sqlite3.Error, OSError) as error:
                log.error("responses in the background cannot say that they live: %s", error)
                continue
            for id_ in mine:
                if id_ not in wanted:
                    self._stop(id_)


def _state(translation: Responses, project_id: str) -> Kept:
    now_s = clock.unix_s()
    return Kept(
        id=translation.id,
        project_id=project_id,
        previous_id=translation.request.previous_id,
        created_s=now_s,
        beat_s=now_s,
        status=translation.status,
        items=msgspec.json.encode(translation.request.items),
        response=translation.document(),
    )


def _whole(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise GatewayError(
            "invalid_request", f"'limit' is from 1 to 100, not {text[:20]!r}.", param="limit"
        )
    return int(text)


def _missing(id_: str) -> GatewayError:
    return GatewayError(
        "not_found",
        f"Response with id {id_[:100]!r} not found: it was not stored, was deleted or is too old.",
        param="response_id",
        code="response_not_found",
    )
