"""Anthropic's own Python client, unchanged, against a gateway process: double and real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.doubles.chat_scripts import TOOL_CALLS
from tests.doubles.conformance import CHAT, KEY, REAL, Served, served, until

HELLO: Any = [{"role": "user", "content": "Hello"}]
CALL: dict[str, Any] = {"model": CHAT, "max_tokens": 64, "messages": HELLO}
SCRIPT = {"text": "Hello", "reasoning": "hm", "calls": TOOL_CALLS, "finish": "tool_calls"}
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("anthropic"), real=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


def does(**knobs: Any) -> dict[str, Any]:
    """What the double is to do with one request: a field that no dialect knows is passed on."""
    return {"extra_body": {"double": knobs}}


def test_message_with_reasoning_tools_and_usage(
    gateway: Served, client: anthropic.Anthropic
) -> None:
    message = client.messages.create(
        **CALL, tools=[TOOL], system="Be brief.", **does(script=SCRIPT)
    )
    thought, text, weather, time = message.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert isinstance(weather, anthropic.types.ToolUseBlock)
    assert (weather.name, weather.input) == ("weather", {"city": "Köln"})
    assert time.type == "tool_use"
    assert (message.stop_reason, message.model) == ("tool_use", CHAT)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 4)
    assert message.usage.cache_read_input_tokens == 2
    assert message._request_id is not None
    fact = gateway.fact(request_id=message._request_id)
    assert (fact.endpoint, fact.model, fact.status) == ("messages", CHAT, 200)
    assert (fact.input_tokens, fact.output_tokens, fact.cached_tokens) == (7, 4, 2)


def test_stream_is_the_same_message(gateway: Served, client: anthropic.Anthropic) -> None:
    with client.messages.stream(**CALL, **does(script=SCRIPT)) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "Hello"
    whole = client.messages.create(**CALL, **does(script=SCRIPT))
    assert message.to_dict()["content"] == whole.to_dict()["content"]
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 4)
    fact = gateway.fact(endpoint="messages", stream=True)
    assert (fact.input_tokens, fact.output_tokens) == (7, 4)
    assert fact.ttft_ms is not None


@pytest.mark.parametrize("counter", ["/v1/chat/completions/input_tokens", "/tokenize"])
def test_tokens_are_counted_by_the_replica(client: anthropic.Anthropic, counter: str) -> None:
    counted = client.messages.count_tokens(model=CHAT, messages=HELLO, **does(counter=counter))
    assert counted.input_tokens == 7


def test_tokens_are_never_guessed(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="cannot count tokens"):
        client.messages.count_tokens(model=CHAT, messages=HELLO)


@pytest.mark.parametrize(
    ("change", "expected", "kind"),
    [
        ({"model": "nothing"}, anthropic.NotFoundError, "not_found_error"),
        ({"model": "stopped"}, anthropic.OverloadedError, "overloaded_error"),
        ({"messages": []}, None, ""),
        ({"messages": HELLO * 1 + [{"role": "user", "content": "x" * 1_100_000}]},
         anthropic.ContentTooLargeError, "request_too_large"),
        (does(status=429), anthropic.RateLimitError, "rate_limit_error"),
        (does(status=400), anthropic.BadRequestError, "invalid_request_error"),
        (does(status=500), anthropic.InternalServerError, "api_error"),
    ],
)  # fmt: skip
def test_errors_are_anthropics(
    client: anthropic.Anthropic, change: dict[str, Any], expected: Any, kind: str
) -> None:
    if expected is None:
        assert client.messages.create(**CALL | change).content
        return
    with pytest.raises(expected) as failed:
        client.messages.create(**CALL | change)
    body: Any = failed.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"].startswith("req_")
    assert failed.value.request_id == body["request_id"]


def test_wrong_keys_and_unknown_routes(gateway: Served, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as refused:
        client.with_options(api_key="bud-wrong").messages.create(**CALL)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.batches.list()
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    answer = httpx.get(f"{gateway.url}/v1/messages", headers={"x-api-key": KEY})
    assert (answer.status_code, answer.json()["type"]) == (405, "error")


@pytest.mark.parametrize("knobs", [{"break_after": 2}, {"error_after": 2}])
def test_a_stream_that_breaks_ends_with_an_error(
    gateway: Served, client: anthropic.Anthropic, knobs: dict[str, int]
) -> None:
    with pytest.raises(anthropic.APIStatusError) as failed:
        for _ in client.messages.create(**CALL, stream=True, **does(tokens=9, **knobs)):
            pass
    assert failed.value.body["error"]["type"] == "api_error"  # type: ignore[index]
    assert gateway.fact(request_id=failed.value.body["request_id"]).error_class  # type: ignore[index]


def test_a_caller_that_leaves_cancels_at_the_replica(
    gateway: Served, client: anthropic.Anthropic
) -> None:
    before = gateway.double_state()["cancelled"]
    with client.messages.create(**CALL, stream=True, **does(tokens=9999, delay_s=0.01)) as stream:
        next(iter(stream))
    until(lambda: gateway.double_state()["cancelled"] == before + 1)
    assert gateway.fact(endpoint="messages", status=499).error_class == "client_closed"


def test_real_model_in_both_dialects(gateway: Served, client: anthropic.Anthropic) -> None:
    """The starter model on llama.cpp: counts, whole answers and streams agree."""
    ask: dict[str, Any] = {"model": REAL, "messages": HELLO, "max_tokens": 4}
    ask["extra_body"] = {"temperature": 0}
    counted = client.messages.count_tokens(model=REAL, messages=HELLO)
    whole = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        streamed = stream.get_final_message()
    assert whole.content[0].to_dict() == streamed.content[0].to_dict()
    assert whole.stop_reason == streamed.stop_reason == "max_tokens"
    for usage in (whole.usage, streamed.usage):
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted.input_tokens
        assert usage.output_tokens == 4
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as other:
        response = other.responses.create(
            model=REAL, input="Hello", temperature=0, max_output_tokens=4
        )
    assert response.output_text == whole.content[0].text  # type: ignore[union-attr]
    assert response.status == "incomplete"
