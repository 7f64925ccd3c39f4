"""The middleware that lets nobody in without a live session: pages, files, and open sockets."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState

from app import last_project
from core.accounts import services as accounts

SESSION_COOKIE = "bud_session"

# Log-in and health; Streamlit's own health probe and page frame, which hold nothing private;
# `/internal/` asks for a token of its own.
_OPEN_PATHS = (
    "/auth/",
    "/healthz",
    "/internal/",
    "/_stcore/health",
    "/_stcore/host-config",
    "/static/",
    "/favicon",
    "/manifest",
    "/robots.txt",
)
_CLOSE_POLICY_VIOLATION = 1008
_RUN_WHOLE_SCRIPT = BackMsg(rerun_script=ClientState()).SerializeToString()


class RequireSession:
    """Refuses what has no live session: pages go to the log-in, sockets and files get an error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer."""
        path = scope.get("path", "")
        if scope["type"] not in ("http", "websocket") or path.startswith(_OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        token = HTTPConnection(scope).cookies.get(SESSION_COOKIE, "")
        who = await run_in_threadpool(accounts.logged_in, token)
        may_enter = who is not None and not who.user.must_change_password
        if scope["type"] == "websocket":
            if may_enter:
                await self._app(scope, _while_alive(receive, token), send)
                return
            await receive()
            await send({"type": "websocket.close", "code": _CLOSE_POLICY_VIOLATION})
        elif may_enter and who is not None:
            elsewhere = await run_in_threadpool(last_project.named_address, scope, who)
            answer = RedirectResponse(elsewhere, HTTPStatus.SEE_OTHER) if elsewhere else self._app
            await answer(scope, receive, send)
        else:
            target = "/auth/password" if who is not None else "/auth/login"
            await _refusal(scope, path, target)(scope, receive, send)


def _while_alive(receive: Receive, token: str) -> Receive:
    """What a socket receives; once its session has ended, only the wish to run the whole script.

    The page script looks at the session and shows the log-in. A message passed on as it came
    would first run the callback or fragment it names, with the rights of the ended session.
    """

    async def receive_checked() -> Message:
        message = await receive()
        if message["type"] != "websocket.receive":
            return message
        if await run_in_threadpool(accounts.logged_in, token) is not None:
            return message
        return {"type": "websocket.receive", "bytes": _RUN_WHOLE_SCRIPT}

    return receive_checked


def _refusal(scope: Scope, path: str, target: str) -> Response:
    if "text/html" not in Headers(scope=scope).get("accept", ""):
        return PlainTextResponse("Log in first.", HTTPStatus.UNAUTHORIZED)
    query = scope.get("query_string", b"").decode()
    wanted = path + (f"?{query}" if query else "")
    suffix = f"?next={quote(wanted)}" if wanted != "/" else ""
    return RedirectResponse(target + suffix, HTTPStatus.SEE_OTHER)
