"""Routes of the app's own server for other Bud processes of this machine, not for browsers."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.kernel.errors import BudError
from core.kernel.settings import settings
from core.metrics import store
from core.metrics.adapters import app_store

_LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_MAX_BODY_BYTES = 1024 * 1024

_token = ""


def start() -> None:
    """Let other processes of this user find the app: write `run/app_token` with a new secret."""
    global _token
    _token = app_store.publish_address(settings().data_dir, settings().local_app_url).token


def stop() -> None:
    """Take the address back; questions are refused from now on."""
    global _token
    _token = ""
    app_store.withdraw_address(settings().data_dir)


async def _metrics(request: Request) -> Response:
    """Answer a question about metrics; 404 for everybody who does not hold the token."""
    from_here = request.client is not None and request.client.host in _LOOPBACK
    given = request.headers.get(app_store.TOKEN_HEADER, "")
    if not from_here or not app_store.token_matches(given, _token):
        return JSONResponse({"error": "not found"}, status_code=404)
    body = await _bounded_body(request)
    if body is None:
        return JSONResponse({"error": "too large"}, status_code=413)
    try:
        content = await run_in_threadpool(_answer, body)
    except BudError as error:
        return JSONResponse({"error": str(error)}, status_code=error.http_status)
    return Response(content, media_type="application/json")


async def _bounded_body(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            return None
    return bytes(body)


def _answer(body: bytes) -> bytes:
    return app_store.answer(store.own(), body)


routes = [Route(app_store.PATH, _metrics, methods=["POST"])]
