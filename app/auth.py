"""Log-in as plain HTTP routes of the app's own server.

The log-in page is not a Streamlit page: a cookie that scripts cannot read can only be set by an
HTTP answer. `app.guard` checks the token in it against the session's row on every request.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from html import escape
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from app import login_page
from app.guard import SESSION_COOKIE
from app.warming import visits
from core.accounts import services as accounts
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, InvalidInput, PermissionDenied, RateLimited, TooLarge
from core.kernel.settings import settings

_CSRF_COOKIE = "bud_csrf"
_MAX_FORM_BYTES = 16 * 1024


async def show_log_in(request: Request) -> Response:
    """GET /auth/login."""
    visits.seen()
    target = _local_path(request.query_params.get("next"))
    if await run_in_threadpool(accounts.logged_in, _token(request)) is not None:
        return RedirectResponse(target, HTTPStatus.SEE_OTHER)
    return _page(request, login_page.LOG_IN, target)


async def log_in(request: Request) -> Response:
    """POST /auth/login: sets the session cookie."""
    form: dict[str, str] = {}
    try:
        form = await _form(request)
        done = await run_in_threadpool(
            accounts.log_in,
            form.get("email", ""),
            Secret(form.get("password", "")),
            request.client.host if request.client else "unknown",
        )
    except BudError as error:
        target = _local_path(form.get("next"))
        return _page(request, login_page.LOG_IN, target, error, email=form.get("email", ""))
    target = _local_path(form.get("next"))
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
    if await run_in_threadpool(accounts.logged_in, _token(request)) is None:
        return RedirectResponse("/auth/login", HTTPStatus.SEE_OTHER)
    return _page(request, login_page.CHANGE_FORM, _local_path(request.query_params.get("next")))


async def change_password(request: Request) -> Response:
    """POST /auth/password."""
    form: dict[str, str] = {}
    try:
        form = await _form(request)
        if form.get("new") != form.get("again"):
            raise InvalidInput("The two new passwords differ.", remedy="Type the same one twice.")
        await run_in_threadpool(
            accounts.change_password,
            _token(request),
            Secret(form.get("old", "")),
            Secret(form.get("new", "")),
        )
    except BudError as error:
        return _page(request, login_page.CHANGE_FORM, _local_path(form.get("next")), error)
    return RedirectResponse(_local_path(form.get("next")), HTTPStatus.SEE_OTHER)


async def log_out(request: Request) -> Response:
    """POST /auth/logout."""
    try:
        await _form(request)
    except BudError as error:
        return PlainTextResponse(str(error), error.http_status)
    await run_in_threadpool(accounts.log_out, _token(request))
    answer = RedirectResponse("/auth/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


async def health(_request: Request) -> Response:
    """GET /healthz: the app answers and its database can be read."""
    await run_in_threadpool(accounts.logged_in, "probe")
    return PlainTextResponse("ok")


def _token(request: Request) -> str:
    return request.cookies.get(SESSION_COOKIE, "")


def _page(
    request: Request,
    body: str,
    target: str,
    error: BudError | None = None,
    *,
    email: str = "",
) -> Response:
    nonce = request.cookies.get(_CSRF_COOKIE) or secrets.token_urlsafe(24)
    message = f'<p class="error" role="alert">{escape(str(error))}</p>' if error else ""
    html = login_page.render(
        body,
        csrf=_csrf(nonce, _token(request)),
        next=escape(target),
        message=message,
        email=escape(email),
    )
    answer = HTMLResponse(html, error.http_status if error else HTTPStatus.OK)
    answer.set_cookie(_CSRF_COOKIE, nonce, httponly=True, samesite="strict", secure=settings().tls)
    answer.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "same-origin"
    if isinstance(error, RateLimited):
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return answer


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form that this site's own page has sent.

    Raises:
        TooLarge: It is far over what these forms can hold.
        PermissionDenied: It comes from elsewhere, or from a page of before the last log-in.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise TooLarge("The form is too large.", remedy="Load the page again.")
    form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    nonce = request.cookies.get(_CSRF_COOKIE, "")
    expected = _csrf(nonce, _token(request)).encode()
    matches = hmac.compare_digest(expected, form.get("csrf", "").encode())
    if not nonce or not matches or not _from_this_site(request):
        raise PermissionDenied(
            "The form did not come from this page.", remedy="Load the page again, then try again."
        )
    return form


def _csrf(nonce: str, token: str) -> str:
    """What a form must carry: only who holds this browser's two cookies can work it out."""
    return hmac.new(nonce.encode(), token.encode(), hashlib.sha256).hexdigest()


def _from_this_site(request: Request) -> bool:
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


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
