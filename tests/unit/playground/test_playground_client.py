"""The streaming client: text, numbers, errors with a remedy, and a stop that reaches upstream."""

from __future__ import annotations

import asyncio

import pytest

from core.kernel.crypto import Secret
from core.kernel.errors import BudError, InvalidInput, NotFound, Unavailable, UpstreamFailed
from core.playground.adapters import gateway as client
from core.playground.adapters.gateway import ChatStream, Finished
from core.playground.schemas import ChatRequest, Endpoint
from tests.doubles.scripted_gateway import Exchange, ScriptedGateway
from tests.machine import slowness

REQUEST = ChatRequest(
    model="tiny", messages=[{"role": "user", "content": "Hi"}], temperature=0.5, seed=0
)


def stream(gateway: ScriptedGateway) -> ChatStream:
    url = f"http://127.0.0.1:{gateway.port}"
    return ChatStream(Endpoint(base_url=url, key=Secret("bud-k")), REQUEST)


def read(chat: ChatStream) -> tuple[str, str, Finished]:
    async def everything() -> tuple[str, str, Finished]:
        pieces = [piece async for piece in chat.pieces()]
        text = "".join(piece.content for piece in pieces)
        return text, "".join(piece.reasoning for piece in pieces), chat.finished()

    return asyncio.run(everything())


def test_an_answer_comes_with_its_numbers(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.stream("a", "b", "c", pause_s=0.05, cached=4)

    gateway.behave = behave
    text, _, finished = read(stream(gateway))
    assert text == "abc"
    assert (finished.input_tokens, finished.output_tokens, finished.cached_tokens) == (10, 3, 4)
    assert finished.finish_reason == "stop"
    assert finished.request_id == "req_1"
    assert finished.ttft_ms is not None
    assert 0 < finished.ttft_ms < finished.duration_ms
    # Two tokens after the first, 50 ms apart.
    assert finished.tokens_per_s is not None
    assert 5 / slowness() < finished.tokens_per_s <= 21


def test_the_request_carries_what_is_set_and_nothing_else(gateway: ScriptedGateway) -> None:
    read(stream(gateway))
    assert gateway.keys == ["bud-k"]
    assert gateway.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "seed": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_what_a_model_thinks_is_kept_apart(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.piece(reasoning_content="hmm")
        exchange.piece(content="42")
        exchange.event("[DONE]")

    gateway.behave = behave
    assert read(stream(gateway))[:2] == ("42", "hmm")


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (400, InvalidInput, "Change the parameters"),
        (404, NotFound, "Choose another model"),
        (413, InvalidInput, "shorter"),
        (429, Unavailable, "Wait"),
        (500, UpstreamFailed, "Regenerate"),
        (503, Unavailable, "deployment"),
    ],
)
def test_a_refusal_is_shown_in_the_gateways_words(
    gateway: ScriptedGateway, status: int, kind: type[BudError], remedy: str
) -> None:
    gateway.behave = lambda exchange: exchange.error(status, "It says why.")
    with pytest.raises(kind) as caught:
        read(stream(gateway))
    assert caught.value.what == "It says why."
    assert remedy in caught.value.remedy


def test_a_refusal_that_is_no_json_is_shown_as_it_is(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(502, "text/html")
        exchange._handler.wfile.write(b"<h1>Bad gateway</h1>")

    gateway.behave = behave
    with pytest.raises(UpstreamFailed, match="Bad gateway"):
        read(stream(gateway))


def test_a_new_key_is_tried_again_until_the_gateway_knows_it(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        if len(gateway.keys) < 3:
            exchange.error(401, "Unknown key.")
        else:
            exchange.stream("ok")

    gateway.behave = behave
    assert read(stream(gateway))[0] == "ok"


def test_a_key_that_stays_unknown_is_refused(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_KEY_PATIENCE_S", 0.1)
    gateway.behave = lambda exchange: exchange.error(401, "Unknown key.")
    with pytest.raises(Unavailable, match="Unknown key"):
        read(stream(gateway))


def test_an_error_in_the_middle_keeps_what_came_before(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.piece(content="half")
        exchange.event({"error": {"message": "The replica died.", "type": "upstream_broke"}})

    gateway.behave = behave
    chat, pieces = stream(gateway), []

    async def collect() -> None:
        async for piece in chat.pieces():
            pieces.append(piece.content)

    with pytest.raises(UpstreamFailed, match="The replica died"):
        asyncio.run(collect())
    assert pieces == ["half"]


def test_an_answer_without_an_end_is_an_error(gateway: ScriptedGateway) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.piece(content="half")

    gateway.behave = behave
    with pytest.raises(UpstreamFailed, match="broke off"):
        read(stream(gateway))


def test_no_gateway_is_said_so() -> None:
    endpoint = Endpoint(base_url="http://127.0.0.1:9", key=Secret("k"))
    with pytest.raises(Unavailable, match="does not answer"):
        read(ChatStream(endpoint, REQUEST))


@pytest.mark.parametrize("said", [0, 2])
def test_a_stop_closes_the_connection(gateway: ScriptedGateway, said: int) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        for _ in range(said):
            exchange.piece(content="x")
        exchange.until_closed()

    gateway.behave = behave
    chat = stream(gateway)

    async def stopped_soon() -> int:
        got = []

        async def collect() -> None:
            async for piece in chat.pieces():
                got.append(piece)

        task = asyncio.create_task(collect())
        while len(got) < said or not gateway.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(got)

    assert asyncio.run(stopped_soon()) == said
    assert gateway.closed_by_client.wait(5)
