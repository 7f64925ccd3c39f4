"""Trying a route: a request through the real gateway, its answer, and the code that sends it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.widgets import Kpi, empty_state, escape, formats, kpi_row, link_to, show_error
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.kernel.settings import settings
from core.playground import endpoints, snippets
from core.playground import services as playground
from core.playground.endpoints import ApiEndpoint, Way
from core.routing.schemas import RouteView

# The route to try: the key of its input, and its name in the address.
CHOSEN = "try"
_KEPT = "gateway-answer"
_DRAW_S = 0.15
_LABELS: dict[Way, str] = {
    "json": "Body (JSON)",
    "form": "Fields (JSON)",
    "socket": "Model and first event (JSON)",
    "batch": "Request of a line (JSON)",
}
# What cannot be sent from here.
_TAKEN_ALONG: dict[Way, str] = {
    "socket": "A session is a socket that stays open: take the code along, which opens one.",
    "batch": "Batches are files of many such requests, asked when nobody else needs the model: "
    "take the code along. Those that run stand on the page Jobs.",
}
_AUDIO = ("mp3", "wav", "m4a", "ogg", "flac", "webm", "mp4", "mpeg", "mpga")
# Headers that say something of the request; the others are HTTP's own.
_HEADERS = ("x-request-id", "x-bud-fallback", "retry-after", "content-type", "traceparent")


@dataclass(frozen=True)
class _Shown:
    """An answer that has come, kept while the page is drawn again."""

    status: int
    headers: dict[str, str]
    text: str
    content: bytes
    first_ms: float | None
    duration_ms: float
    is_cut: bool
    error: BudError | None = None


def try_view(actor: Actor, project_id: str, routes: Sequence[RouteView]) -> None:
    """Choose a route and an endpoint, write the body, send it; or take the code along."""
    names = [route.model for route in routes]
    left, middle, right = st.columns([3, 3, 1], vertical_alignment="bottom")
    model = left.selectbox("Route", names, key=CHOSEN, bind="query-params")
    route = next(each for each in routes if each.model == model)
    able = endpoints.for_capabilities(route.capabilities)
    endpoint = middle.selectbox(
        "Endpoint", able, format_func=lambda each: f"{each.name} · {each.path}",
        key=f"try-endpoint-{'-'.join(route.capabilities)}",
    )  # fmt: skip
    if endpoint is None:
        empty_state(
            "Not to be tried here",
            "This route can do nothing that an endpoint of the gateway asks for.",
            icon="search",
        )
        return
    stream = endpoint.can_stream and right.toggle("Stream", key="try-stream")
    given = endpoint.body(route.model, stream=stream)
    key = f"try-body-{route.model}-{endpoint.path}-{stream}"
    text = st.text_area(
        _LABELS[endpoint.way],
        json.dumps(given, indent=2, ensure_ascii=False),
        key=key,
        height=260 if endpoint.way == "json" else 140,
    )
    body, is_good = _body(text or "", given, key)
    if endpoint.way in _TAKEN_ALONG:
        st.caption(_TAKEN_ALONG[endpoint.way])
    else:
        place = f"{project_id} {route.model} {endpoint.path}"
        _sending(actor, project_id, endpoint, body, place, can_send=is_good)
    _code(endpoint, body, is_good=is_good)


def _body(text: str, given: dict[str, Any], key: str) -> tuple[dict[str, Any], bool]:
    """The body as it was last good, and whether it is now; shows what is wrong.

    Args:
        text: What was written.
        given: The body that the input began with.
        key: The input's.
    """
    last_good = f"last-good-{key}"
    try:
        st.session_state[last_good] = endpoints.read_body(text)
    except BudError as error:
        show_error(error)
        return st.session_state.get(last_good, given), False
    return st.session_state[last_good], True


def _sending(
    actor: Actor,
    project_id: str,
    endpoint: ApiEndpoint,
    body: dict[str, Any],
    place: str,
    *,
    can_send: bool,
) -> None:
    uploaded = None
    if endpoint.way == "form":
        uploaded = st.file_uploader("Audio", key="try-file", type=list(_AUDIO))
    with st.container(horizontal=True, vertical_alignment="center"):
        send = st.button(
            "Send", type="primary", icon=":material/send:", key="try-send",
            disabled=not can_send or (endpoint.way == "form" and uploaded is None),
        )  # fmt: skip
        st.caption(
            "Sent with your own Playground key: it counts in limits and metrics as any request.",
            width="stretch",
        )
    if send:
        file = (uploaded.name, uploaded.getvalue()) if uploaded is not None else None
        st.session_state[_KEPT] = place, _send(actor, project_id, endpoint, body, file)
    kept_place, shown = st.session_state.get(_KEPT, ("", None))
    if shown is not None and kept_place == place:
        _show(shown)


def _send(
    actor: Actor,
    project_id: str,
    endpoint: ApiEndpoint,
    body: dict[str, Any],
    file: tuple[str, bytes] | None,
) -> _Shown:
    """Send it, and show the answer as it comes. A click elsewhere ends it, also upstream."""
    place = st.empty()
    text, content, drawn_s = "", b"", 0.0
    place.status(f"POST {endpoint.path}: waiting for the first byte", expanded=False)
    try:
        with playground.try_it(actor, project_id, endpoint, body, file) as answer:
            broke: BudError | None = None
            try:
                content = b"" if answer.is_text else answer.content()
                for piece in answer.chunks() if answer.is_text else ():
                    text += piece
                    if time.monotonic() - drawn_s > _DRAW_S:
                        drawn_s = time.monotonic()
                        place.code(text[-4000:], language=None, wrap_lines=True)
            except BudError as error:
                broke = error
            return _Shown(
                answer.status, dict(answer.headers), text, content, answer.first_ms,
                answer.duration_ms, answer.is_cut, broke,
            )  # fmt: skip
    except BudError as error:
        return _Shown(0, {}, "", b"", None, 0.0, is_cut=False, error=error)
    finally:
        place.empty()


def _show(shown: _Shown) -> None:
    with st.container(border=True, key="try-answer"):
        if shown.error is not None:
            show_error(shown.error)
        if not shown.status:
            return
        color = "green" if shown.status < 400 else "red"
        st.markdown(f"**Answer** :{color}-badge[HTTP {shown.status}]")
        kpi_row(
            [
                Kpi("First byte", formats.ms(shown.first_ms)),
                Kpi("Whole answer", formats.ms(shown.duration_ms)),
                Kpi("Size", formats.size(len(shown.content or shown.text.encode()))),
            ],
            key="try",
            border=False,
        )
        st.code(
            "\n".join(f"{n.title()}: {shown.headers[n]}" for n in _HEADERS if n in shown.headers),
            language=None,
        )
        _show_body(shown)
        if shown.is_cut:
            st.caption("It is longer: the first part is shown, and the rest was not read.")
        if fallback := shown.headers.get("x-bud-fallback"):
            st.info(f"No target answered; the fallback {escape(fallback)} did.")
        request_id = shown.headers.get("x-request-id", "")
        link_to(
            "metrics", f"Request {request_id} in Metrics, within 2 s", icon="monitoring",
            query={"request": request_id},
        )  # fmt: skip


def _show_body(shown: _Shown) -> None:
    kind = shown.headers.get("content-type", "")
    if not shown.content:
        st.code(_pretty(shown.text), language="json", wrap_lines=True, height=320)
    elif kind.startswith("audio/"):
        st.audio(shown.content, format=kind)
    else:
        st.caption(f"An answer of {escape(kind)} is not shown.")


def _pretty(text: str) -> str:
    with suppress(ValueError):
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def _code(endpoint: ApiEndpoint, body: dict[str, Any], *, is_good: bool) -> None:
    st.markdown("#### As code")
    if not is_good:
        st.caption("With the body as it was before the mistake.")
    url = settings().gateway_url
    curl, python, javascript = st.tabs(["curl", "Python", "JavaScript"])
    curl.code(snippets.curl_to(endpoint, url, body), language="bash", wrap_lines=True)
    python.code(snippets.python_to(endpoint, url, body), language="python", wrap_lines=True)
    javascript.code(
        snippets.javascript_to(endpoint, url, body), language="javascript", wrap_lines=True
    )
    of_python, of_javascript = snippets.PACKAGES[endpoint.library]
    st.caption(
        f"Runs as it is once `BUD_API_KEY` is a key of this project; needs "
        f"`pip install {of_python}` or `npm install {of_javascript}`."
        f"{' The audio is in `speech.mp3`.' if endpoint.way == 'form' else ''}"
    )
    link_to("api_keys", "Create an API key", icon="key")
