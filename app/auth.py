"""Log-in as plain HTTP routes, and the middleware that lets nobody else in.

The log-in page is not a Streamlit page: a cookie that scripts cannot read can only be set by an
HTTP answer. The token in it is checked against the session's row on every request.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from app import login_page
from core.accounts import services as accounts
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, InvalidInput, PermissionDenied
from core.kernel.settings import settings

SESSION_COOKIE = "bud_session"
_CSRF_COOKIE = "bud_csrf"
_OPEN_PATHS = ("/auth/", "/healthz", "/internal/", "/_stcore/health", "/_stcore/host-config")
_OPEN_FILES = ("/static/", "/favicon", "/manifest", "/robots.txt")
_CLOSE_POLICY_VIOLATION = 1008

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequireSession:
    """Refuses what has no live session: pages go to the log-in, sockets and files get an error."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer."""
        path = scope.get("path", "")
        if scope["type"] not in ("http", "websocket") or path.startswith(_OPEN_PATHS + _OPEN_FILES):
            await self._app(scope, receive, send)
            return
        token = HTTPConnection(scope).cookies.get(SESSION_COOKIE, "")
        who = await run_in_threadpool(accounts.logged_in, token)
        if who is not None and not who.user.must_change_password:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _CLOSE_POLICY_VIOLATION})
        else:
            target = "/auth/password" if who is not None else "/auth/login"
            await _refusal(scope, path, target)(scope, receive, send)


def _refusal(scope: Scope, path: str, target: str) -> Response:
    if "text/html" not in Headers(scope=scope).get("accept", ""):
        return PlainTextResponse("Log in first.", HTTPStatus.UNAUTHORIZED)
    query = scope.get("query_string", b"").decode()
    wanted = path + (f"?{query}" if query else "")
    suffix = f"?next={quote(wanted)}" if wanted != "/" else ""
    return RedirectResponse(target + suffix, HTTPStatus.SEE_OTHER)


async def show_log_in(request: Request) -> Response:
    """GET /auth/login."""
    token = request.cookies.get(SESSION_COOKIE, "")
    if await run_in_threadpool(accounts.logged_in, token) is not None:
        return RedirectResponse(_local_path(request.query_params.get("next")), 303)
    return _page(request, login_page.LOG_IN, _local_path(request.query_params.get("next")))


async def log_in(request: Request) -> Response:
    """POST /auth/login: sets the session cookie."""
    form = await request.form()
    target = _local_path(str(form.get("next", "")))
    try:
        _check_csrf(request, str(form.get("csrf", "")))
        done = await run_in_threadpool(
            accounts.log_in,
            str(form.get("email", "")),
            Secret(str(form.get("password", ""))),
            request.client.host if request.client else "unknown",
        )
    except BudError as error:
        return _page(request, login_page.LOG_IN, target, error, email=str(form.get("email", "")))
    if done.must_change_password:
        target = f"/auth/password?next={quote(target)}"
    answer = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        SESSION_COOKIE,
        done.token.reveal(),
        max_age=settings().session_hours * 3600,
        httponly=True,
        samesite="lax",
        secure=settings().tls,
    )
    return answer


async def show_change_password(request: Request) -> Response:
    """GET /auth/password."""
    token = request.cookies.get(SESSION_COOKIE, "")
    if await run_in_threadpool(accounts.logged_in, token) is None:
        return RedirectResponse("/auth/login?next=/auth/password", HTTPStatus.SEE_OTHER)
    return _page(request, login_page.CHANGE_FORM, _local_path(request.query_params.get("next")))


async def change_password(request: Request) -> Response:
    """POST /auth/password."""
    form = await request.form()
    target = _local_path(str(form.get("next", "")))
    try:
        _check_csrf(request, str(form.get("csrf", "")))
        if form.get("new") != form.get("again"):
            raise InvalidInput("The two new passwords differ.", remedy="Type the same one twice.")
        await run_in_threadpool(
            accounts.change_password,
            request.cookies.get(SESSION_COOKIE, ""),
            Secret(str(form.get("old", ""))),
            Secret(str(form.get("new", ""))),
        )
    except BudError as error:
        return _page(request, login_page.CHANGE_FORM, target, error)
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


async def log_out(request: Request) -> Response:
    """POST /auth/logout."""
    form = await request.form()
    try:
        _check_csrf(request, str(form.get("csrf", "")))
    except PermissionDenied as error:
        return PlainTextResponse(str(error), error.http_status)
    await run_in_threadpool(accounts.log_out, request.cookies.get(SESSION_COOKIE, ""))
    answer = RedirectResponse("/auth/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


async def health(_request: Request) -> Response:
    """GET /healthz: the app answers and its database can be read."""
    await run_in_threadpool(accounts.logged_in, "probe")
    return PlainTextResponse("ok")


def _page(
    request: Request,
    body: str,
    target: str,
    error: BudError | None = None,
    *,
    email: str = "",
) -> Response:
    csrf = request.cookies.get(_CSRF_COOKIE) or secrets.token_urlsafe(24)
    message = f'<p class="error" role="alert">{escape(str(error))}</p>' if error else ""
    html = login_page.render(
        body, csrf=escape(csrf), next=escape(target), message=message, email=escape(email)
    )
    answer = HTMLResponse(html, error.http_status if error else HTTPStatus.OK)
    answer.set_cookie(_CSRF_COOKIE, csrf, httponly=True, samesite="strict", secure=settings().tls)
    answer.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _check_csrf(request: Request, sent: str) -> None:
    """The form must carry the cookie's value, and come from this site."""
    expected = request.cookies.get(_CSRF_COOKIE, "")
    origin = request.headers.get("origin")
    same_site = origin in (None, "null") or urlsplit(origin).netloc == request.headers.get("host")
    if not expected or not hmac.compare_digest(expected, sent) or not same_site:
        raise PermissionDenied(
            "The form did not come from this page.", remedy="Load the page again, then log in."
        )


def _local_path(wanted: str | None) -> str:
    """A path of this site; anything that could lead elsewhere becomes `/`."""
    if not wanted or not wanted.startswith("/") or wanted.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(wanted)
    if parts.scheme or parts.netloc or any(ord(letter) < 32 for letter in wanted):
        return "/"
    return "/" if wanted.startswith("/auth/") else wanted


routes = [
    Route("/auth/login", show_log_in, methods=["GET"]),
    Route("/auth/login", log_in, methods=["POST"]),
    Route("/auth/password", show_change_password, methods=["GET"]),
    Route("/auth/password", change_password, methods=["POST"]),
    Route("/auth/logout", log_out, methods=["POST"]),
    Route("/healthz", health, methods=["GET"]),
]
