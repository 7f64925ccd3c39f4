"""The log-in routes and the middleware in front of everything, without Streamlit behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState

from app import auth, guard
from core.accounts import services as accounts
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.settings import settings
from core.projects import services as projects

EMAIL = "admin@example.org"
PASSWORD = "correct-horse-battery"


async def _private(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"private {request.url.path}")


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    async for message in socket.iter_bytes():
        await socket.send_bytes(message)


@pytest.fixture
def client(data_dir: Path, quick_passwords: None) -> Iterator[TestClient]:
    accounts.bootstrap(EMAIL, Secret(PASSWORD))
    projects.bootstrap()
    app = Starlette(
        routes=[
            *auth.routes,
            WebSocketRoute("/_stcore/stream", _echo),
            Route("/{path:path}", _private),
        ],
        middleware=[Middleware(guard.RequireSession)],
    )
    with TestClient(app, follow_redirects=False) as made:
        yield made


def _csrf(client: TestClient, path: str = "/auth/login") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found.group(1)


def _log_in(client: TestClient, **fields: str) -> object:
    form = {"email": EMAIL, "password": PASSWORD, "csrf": _csrf(client)} | fields
    return client.post("/auth/login", data=form)


def test_the_cookie_and_its_flags(client: TestClient) -> None:
    answer = _log_in(client, next="/models?q=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/models?q=x")
    cookie = answer.headers["set-cookie"].lower()
    assert "bud_session=" in cookie
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "; secure" not in cookie
    assert client.get("/models").text == "private /models"
    assert client.get("/auth/login").headers["location"] == "/"


def test_the_cookie_is_secure_behind_tls(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_TLS", "true")
    settings.cache_clear()
    client.base_url = "https://testserver"
    assert "; secure" in _log_in(client).headers["set-cookie"].lower()


def test_a_form_without_the_token_is_refused(client: TestClient) -> None:
    form = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/auth/login", data=form).status_code == 403
    token = _csrf(client)
    assert client.post("/auth/login", data=form | {"csrf": ""}).status_code == 403
    assert client.post("/auth/login", data=form | {"csrf": "é" + token}).status_code == 403
    client.cookies.delete("bud_csrf")
    assert client.post("/auth/login", data=form | {"csrf": token}).status_code == 403
    assert guard.SESSION_COOKIE not in client.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://testserver"},
    ],
)
def test_a_form_from_elsewhere_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    form = {"email": EMAIL, "password": PASSWORD, "csrf": _csrf(client)}
    assert client.post("/auth/login", data=form, headers=headers).status_code == 403
    same = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert client.post("/auth/login", data=form, headers=same).status_code == 303


def test_a_token_of_before_the_log_in_does_not_log_out(client: TestClient) -> None:
    before = _csrf(client)
    _log_in(client)
    assert client.post("/auth/logout", data={"csrf": before}).status_code == 403
    assert client.get("/models").status_code == 200
    after = _csrf(client, "/auth/password")
    assert client.post("/auth/logout", data={"csrf": after}).headers["location"] == "/auth/login"
    assert guard.SESSION_COOKIE not in client.cookies
    assert client.get("/models").status_code == 401


def test_a_huge_form_is_refused(client: TestClient) -> None:
    answer = _log_in(client, password="x" * 20_000)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/auth/logout",
        "",
    ],
)
def test_no_open_redirect(client: TestClient, wanted: str) -> None:
    assert _log_in(client, next=wanted).headers["location"] == "/"


def test_what_is_typed_is_shown_as_text(client: TestClient) -> None:
    answer = _log_in(client, email='"><script>alert(1)</script>', password="x")
    assert answer.status_code == 401
    assert "<script>" not in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    asked = client.get("/auth/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in asked.text


def test_too_many_failures_are_told_when_to_come_back(client: TestClient) -> None:
    for _ in range(10):
        assert _log_in(client, password="wrong").status_code == 401
    answer = _log_in(client)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 300
    assert "Too many failed log-ins" in answer.text


def test_the_limit_is_of_the_address_that_the_request_came_from(client: TestClient) -> None:
    for _ in range(10):
        _log_in(client, password="wrong")
    assert _log_in(client).status_code == 429
    with TestClient(client.app, client=("192.0.2.7", 50_000), follow_redirects=False) as other:
        assert _log_in(other).status_code == 303


def test_a_success_forgives_the_failures_before(client: TestClient) -> None:
    for _ in range(9):
        _log_in(client, password="wrong")
    assert _log_in(client).status_code == 303


def test_nothing_private_without_a_session(client: TestClient) -> None:
    page = client.get("/models?q=a b", headers={"accept": "text/html"})
    assert page.status_code == 303
    assert page.headers["location"] == "/auth/login?next=/models%3Fq%3Da%2520b"
    for path in ("/", "/media/x.png", "/_stcore/upload_file/1/2", "/component/x", "/static"):
        assert client.get(path).status_code == 401, path
    for path in ("/healthz", "/static/app.js", "/_stcore/health", "/_stcore/host-config"):
        assert client.get(path).status_code == 200, path
    client.cookies.set(guard.SESSION_COOKIE, "made up")
    assert client.get("/models").status_code == 401
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_stcore/stream"):
        pass


def test_a_page_without_a_project_leads_to_the_one_looked_at_last(client: TestClient) -> None:
    _log_in(client)
    html = {"accept": "text/html"}
    assert client.get("/models", headers=html).text == "private /models"
    made = projects.create_project(accounts.operator(), "A & B")
    assert client.get("/", headers=html).headers["location"] == "/?project=Default"
    who = accounts.logged_in(client.cookies[guard.SESSION_COOKIE])
    assert who is not None
    accounts.remember_project(who.actor, made.id)
    answer = client.get("/models?q=a&q=b%20c", headers=html)
    assert answer.headers["location"] == "/models?q=a&q=b+c&project=A+%26+B"
    assert client.get("/models?project=", headers=html).text == "private /models"
    assert client.get("/models").text == "private /models"
    assert client.get("/media/x.png", headers=html).status_code == 200


def test_a_one_time_password_opens_the_change_form_only(client: TestClient) -> None:
    new = accounts.add_user(Actor.system(), "ana@example.org")
    one_time = new.one_time_password.reveal()
    answer = _log_in(client, email="ana@example.org", password=one_time, next="/models")
    assert answer.headers["location"] == "/auth/password?next=/models"
    page = client.get("/models", headers={"accept": "text/html"})
    assert page.headers["location"] == "/auth/password?next=/models"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_stcore/stream"):
        pass
    form = {"csrf": _csrf(client, "/auth/password?next=/models"), "next": "/models"}
    form |= {"old": one_time, "new": "a password of mine", "again": "another of mine"}
    assert client.post("/auth/password", data=form).status_code == 400
    form["again"] = form["new"]
    assert client.post("/auth/password", data=form).headers["location"] == "/models"
    assert client.get("/models").status_code == 200


def test_an_open_socket_ends_with_its_session(client: TestClient) -> None:
    _log_in(client)
    click = BackMsg(rerun_script=ClientState(fragment_id="delete")).SerializeToString()
    with client.websocket_connect("/_stcore/stream") as socket:
        socket.send_bytes(click)
        assert socket.receive_bytes() == click
        accounts.log_out(client.cookies[guard.SESSION_COOKIE])
        socket.send_bytes(click)
        passed_on = BackMsg.FromString(socket.receive_bytes())
    assert passed_on == BackMsg(rerun_script=ClientState())
