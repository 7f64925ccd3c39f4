"""OpenAI's own Python client, unchanged, at `/v1/responses` of a gateway process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.doubles.chat_scripts import TOOL_CALLS
from tests.doubles.conformance import CHAT, KEY, Served, served, until

SCRIPT = {"text": "Hello", "reasoning": "hm", "calls": TOOL_CALLS, "finish": "tool_calls"}
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}


class City(BaseModel):
    name: str


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("openai")) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def does(**knobs: Any) -> dict[str, Any]:
    """What the double is to do with one request: a field that no dialect knows is passed on."""
    return {"extra_body": {"double": knobs}}


def test_response_with_reasoning_tools_and_usage(gateway: Served, client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=CHAT, input="Hello", tools=[TOOL], metadata={"a": "b"}, **does(script=SCRIPT)
    )
    assert response.output_text == "Hello"
    thought, _, weather, _ = response.output
    assert thought.type == "reasoning"
    assert weather.type == "function_call"
    assert (weather.name, weather.arguments) == ("weather", '{"city":"Köln"}')
    assert (response.status, response.metadata) == ("completed", {"a": "b"})
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 4)
    fact = gateway.fact(endpoint="responses", stream=False)
    assert (fact.model, fact.status, fact.output_tokens) == (CHAT, 200, 4)


def test_stream_ends_with_the_same_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model=CHAT, input="Hello", **does(script=SCRIPT)) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert final.output_text == "Hello"
    assert client.responses.retrieve(final.id).output_text == "Hello"


def test_structured_output(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model=CHAT, input="Hello", text_format=City, **does(script={"text": '{"name":"Köln"}'})
    )
    assert parsed.output_parsed == City(name="Köln")


def test_kept_responses_are_shown_continued_and_deleted(
    gateway: Served, client: openai.OpenAI
) -> None:
    first = client.responses.create(model=CHAT, input="One", instructions="Be brief.")
    second = client.responses.create(model=CHAT, input="Two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    items = list(client.responses.input_items.list(second.id, limit=1, order="asc"))
    assert [getattr(item, "role", "") for item in items] == ["user", "assistant", "user"]
    counted = client.responses.input_tokens.count(
        model=CHAT, input="Two", previous_response_id=first.id,
        **does(counter="/v1/chat/completions/input_tokens"),
    )  # fmt: skip
    assert counted.input_tokens == 7
    stranger = client.with_options(api_key="bud-other")
    with pytest.raises(openai.NotFoundError):
        stranger.responses.retrieve(first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="Previous response") as refused:
        client.responses.create(model=CHAT, input="Three", previous_response_id=second.id)
    assert refused.value.code == "previous_response_not_found"


def test_what_is_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    response = client.responses.create(model=CHAT, input="Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_response_in_the_background_goes_on_without_its_caller(
    gateway: Served, client: openai.OpenAI
) -> None:
    slow = client.responses.create(model=CHAT, input="Hello", background=True, **does(delay_s=0.02))
    assert (slow.status, slow.output) == ("in_progress", [])
    until(lambda: client.responses.retrieve(slow.id).status == "completed")
    assert client.responses.retrieve(slow.id).output_text == " t0 t1 t2 t3"
    assert gateway.fact(endpoint="responses.background", status=200).output_tokens == 4
    bad = client.responses.create(model=CHAT, input="Hello", background=True, **does(status=500))
    until(lambda: client.responses.retrieve(bad.id).status == "failed")
    assert client.responses.retrieve(bad.id).error is not None


def test_cancel_reaches_the_replica(gateway: Served, client: openai.OpenAI) -> None:
    before = gateway.double_state()
    endless = client.responses.create(
        model=CHAT, input="Hello", background=True, **does(delay_s=60.0)
    )
    until(lambda: gateway.double_state()["requests"] == before["requests"] + 1)
    assert client.responses.cancel(endless.id).status == "cancelled"
    until(lambda: gateway.double_state()["cancelled"] == before["cancelled"] + 1)
    assert client.responses.retrieve(endless.id).status == "cancelled"
    waited = client.responses.create(model=CHAT, input="Hello")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(waited.id)


@pytest.mark.parametrize("knobs", [{"break_after": 2}, {"error_after": 2}])
def test_a_stream_that_breaks_ends_with_the_failed_response(
    gateway: Served, client: openai.OpenAI, knobs: dict[str, int]
) -> None:
    stream = client.responses.create(
        model=CHAT, input="Hello", stream=True, **does(tokens=9, delay_s=0.05, **knobs)
    )
    *_, error, failed = list(stream)
    assert (error.type, failed.type) == ("error", "response.failed")
    assert failed.response.status == "failed"
    assert client.responses.retrieve(failed.response.id).status == "failed"


def test_a_caller_that_leaves_cancels_at_the_replica(
    gateway: Served, client: openai.OpenAI
) -> None:
    before = gateway.double_state()["cancelled"]
    with client.responses.create(
        model=CHAT, input="Hello", stream=True, **does(tokens=9999, delay_s=0.01)
    ) as stream:
        next(iter(stream))
    until(lambda: gateway.double_state()["cancelled"] == before + 1)
    assert gateway.fact(endpoint="responses", status=499).error_class == "client_closed"


def test_errors_are_openais(gateway: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="bud-wrong").responses.create(model=CHAT, input="x")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nothing", input="x")
    with pytest.raises(openai.BadRequestError, match="'web_search'"):
        client.responses.create(model=CHAT, input="x", tools=[{"type": "web_search"}])
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.get(f"{gateway.url}/v1/responses/resp_1/nothing", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
