"""`/v1/batches`: asked for here, worked on by the app. See `core.contracts.batch`."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec

from core.contracts import batch
from core.contracts.batch import ENDED, Batch, BatchRequest, Folder
from core.contracts.route_table import ApiKey
from core.kernel import clock, ids
from gateway.body import invalid, not_json
from gateway.errors import GatewayError
from gateway.http_request import Response
from gateway.relay import Exchange
from gateway.surface.files import check_ttl, ids_of_page, in_thread, is_live, page, whole
from gateway.surface.worker import Handler, Worker, answered, missing, not_allowed

PATH = "/v1/batches"
_WINDOW = "24h"
_MOST_METADATA, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_MOST_UNFINISHED = 100


class _ExpiresAfter(msgspec.Struct):
    seconds: int
    anchor: Literal["created_at"] = "created_at"


class _Asked(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: _ExpiresAfter | None = None


_decode = msgspec.json.Decoder(_Asked).decode


class Batches:
    """The batches of all projects, as one worker serves them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._data_dir = worker.config.data_dir

    def route(self, method: str, path: str) -> tuple[str, Handler] | None:
        """The name of an endpoint and what serves it; None when the path is none of these."""
        if path == PATH:
            known: dict[str, tuple[str, Handler]] = {
                "POST": ("batches", self._create),
                "GET": ("batches.kept", self._list),
            }
            return known.get(method) or ("unknown", partial(not_allowed, allowed="GET or POST"))
        if not path.startswith(PATH + "/"):
            return None
        match method, path.removeprefix(PATH + "/").split("/"):
            case "GET", [batch_id]:
                return "batches.kept", partial(self._show, batch_id=batch_id)
            case "POST", [batch_id, "cancel"]:
                return "batches", partial(self._cancel, batch_id=batch_id)
        return None

    async def _create(self, exchange: Exchange) -> Response | None:
        worker = self._worker
        key = await worker.access.admit(exchange.request, exchange.fact)
        raw = await exchange.read_body(worker.config.max_body_bytes)
        asked = _read(raw)
        self._check_key(key, asked.endpoint)
        request = _request(key, asked)
        folder = Folder(self._data_dir, key.project_id)
        await in_thread(self._begin, folder, request)
        found = await in_thread(folder.batch, request.id)
        assert found is not None
        return answered(document(found), exchange.fact)

    def _check_key(self, key: ApiKey, endpoint: str) -> None:
        if self._worker.access.by_id(key.id) is None:
            raise GatewayError(
                "permission",
                "A batch needs an API key: an access token ends before the batch does.",
                code="api_key_needed",
            )
        scope = batch.ENDPOINTS[endpoint]
        if key.scopes and scope not in key.scopes:
            raise GatewayError(
                "permission",
                f"This API key may not use {endpoint}; it may use: {', '.join(key.scopes)}.",
                code="scope_not_allowed",
            )

    def _begin(self, folder: Folder, request: BatchRequest) -> None:
        file = folder.file(request.input_file_id)
        if file is None or not is_live(file):
            raise missing("file", request.input_file_id)
        if file.purpose != "batch":
            raise GatewayError(
                "invalid_request",
                f"{file.id} was made by a batch; upload the input with purpose 'batch'.",
                param="input_file_id",
            )
        known = (folder.batch(batch_id) for batch_id in folder.batch_ids())
        if sum(each is not None and each.status not in ENDED for each in known) >= _MOST_UNFINISHED:
            raise GatewayError(
                "rate_limited",
                f"{_MOST_UNFINISHED} batches of this project have not ended. Wait for one.",
                param="batches",
                retry_after_s=60,
            )
        folder.add_batch(request)

    async def _list(self, exchange: Exchange) -> Response | None:
        key = await self._worker.access.admit(exchange.request, exchange.fact)
        query = exchange.request.query
        folder = Folder(self._data_dir, key.project_id)

        def read() -> dict[str, Any]:
            limit = whole(query.get("limit"), 20, 100)
            known = ids_of_page(folder.batch_ids(), query.get("after"), None)[: limit + 1]
            found = (folder.batch(each) for each in known)
            return page([document(each) for each in found if each is not None], limit)

        return answered(await in_thread(read), exchange.fact)

    async def _show(self, exchange: Exchange, batch_id: str) -> Response | None:
        _, found = await self._found(exchange, batch_id)
        return answered(document(found), exchange.fact)

    async def _cancel(self, exchange: Exchange, batch_id: str) -> Response | None:
        folder, found = await self._found(exchange, batch_id)
        if found.state.status in ENDED:
            raise GatewayError(
                "invalid_request",
                f"Batch {batch_id} has ended ({found.state.status}): it cannot be cancelled.",
                param="batch_id",
                status=409,
            )
        if found.cancelling_unix_s is None:
            await in_thread(folder.cancel, batch_id)
            now: Batch | None = await in_thread(folder.batch, batch_id)
            found = now or found
        return answered(document(found), exchange.fact)

    async def _found(self, exchange: Exchange, batch_id: str) -> tuple[Folder, Batch]:
        key = await self._worker.access.admit(exchange.request, exchange.fact)
        folder = Folder(self._data_dir, key.project_id)
        found = await in_thread(folder.batch, batch_id)
        if found is None:
            raise missing("batch", batch_id)
        return folder, found


def document(found: Batch) -> dict[str, Any]:
    """A batch as OpenAI's API shows it."""
    request, state = found.request, found.state
    ended = {f"{status}_at": None for status in ("completed", "failed", "expired", "cancelled")}
    has_ended = state.status in ENDED
    if has_ended:
        ended[f"{state.status}_at"] = state.ended_unix_s  # type: ignore[assignment]
    errors = [msgspec.to_builtins(each) for each in state.errors]
    return {
        "id": request.id,
        "object": "batch",
        "endpoint": request.endpoint,
        "model": state.model,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": request.input_file_id,
        "completion_window": _WINDOW,
        "status": found.status,
        "output_file_id": state.output_file_id if has_ended else None,
        "error_file_id": state.error_file_id if has_ended else None,
        "created_at": request.created_unix_s,
        "in_progress_at": state.in_progress_unix_s,
        "expires_at": request.expires_unix_s,
        "finalizing_at": state.finalizing_unix_s,
        "cancelling_at": found.cancelling_unix_s,
        **ended,
        "request_counts": {
            "total": state.total, "completed": state.completed, "failed": state.failed,
        },
        "usage": {
            "input_tokens": state.input_tokens,
            "input_tokens_details": {"cached_tokens": state.cached_tokens},
            "output_tokens": state.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": state.input_tokens + state.output_tokens,
        },
        "metadata": request.metadata,
    }  # fmt: skip


def _read(raw: bytes) -> _Asked:
    try:
        asked = _decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(error) from None
    if asked.endpoint not in batch.ENDPOINTS:
        raise GatewayError(
            "invalid_request",
            f"A batch cannot ask {asked.endpoint[:100]!r}; it can ask: "
            f"{', '.join(batch.ENDPOINTS)}.",
            param="endpoint",
        )
    if asked.completion_window != _WINDOW:
        raise GatewayError(
            "invalid_request",
            f"'completion_window' must be {_WINDOW!r}, not {asked.completion_window[:20]!r}.",
            param="completion_window",
        )
    if asked.output_expires_after is not None:
        check_ttl("output_expires_after", asked.output_expires_after.seconds)
    metadata = asked.metadata or {}
    too_long = [
        name
        for name, value in metadata.items()
        if len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE
    ]
    if len(metadata) > _MOST_METADATA or too_long:
        raise GatewayError(
            "invalid_request",
            f"Metadata has at most {_MOST_METADATA} names of {_LONGEST_NAME} characters, with "
            f"values of {_LONGEST_VALUE}.",
            param="metadata",
        )
    return asked


def _request(key: ApiKey, asked: _Asked) -> BatchRequest:
    now_s = int(clock.unix_s())
    return BatchRequest(
        id=ids.new_id("batch"),
        project_id=key.project_id,
        key_id=key.id,
        user_id=key.user_id,
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        created_unix_s=now_s,
        expires_unix_s=now_s + int(batch.WINDOW_S),
        metadata=asked.metadata,
        output_ttl_s=None if (kept := asked.output_expires_after) is None else kept.seconds,
    )
