"""OpenAI's responses from and to chat, and the store that keeps them; without a server.

The bodies are written after https://platform.openai.com/docs/api-reference/responses and
…/responses-streaming, and the types of `openai` 3.54.0 (29 November 2026).
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.dialects.responses import Request, Responses
from gateway.errors import GatewayError
from gateway.response_store import Kept, ResponseStore
from tests.doubles.chat_scripts import TOOL_CALLS, chunks, whole

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "name": "w", "description": "d", "parameters": SCHEMA, "strict": True}
CALLED = {
    "type": "function",
    "function": {"name": "w", "description": "d", "parameters": SCHEMA, "strict": True},
}


def made(**fields: Any) -> Responses:
    raw = msgspec.json.encode({"model": "m", "input": "Hi"} | fields)
    return Responses(Request(raw), [], "req_1", 1_760_000_000)


def chat_of(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(made(**fields).chat.raw)
    return found


def said(*items: Any) -> Any:
    return chat_of(input=list(items))["messages"]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"max_output_tokens": 9, "temperature": 0.5}, {"max_tokens": 9, "temperature": 0.5}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"metadata": {"a": "b"}, "store": False, "truncation": "auto"}, {}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}},
         {"response_format": {"type": "json_object"}}),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
         {"response_format": {
             "type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}),
        ({"tools": [TOOL]}, {"tools": [CALLED]}),
        ({"tools": [TOOL], "tool_choice": "required"},
         {"tools": [CALLED], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "w"}},
         {"tools": [CALLED],
          "tool_choice": {"type": "function", "function": {"name": "w"}}}),
        ({"tools": [TOOL, TOOL | {"name": "v"}], "tool_choice": {
            "type": "allowed_tools", "mode": "required", "tools": [{"name": "w"}]}},
         {"tools": [CALLED], "tool_choice": "required"}),
    ],
)  # fmt: skip
def test_options(given: dict[str, Any], becomes: dict[str, Any]) -> None:
    plain = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert chat_of(**given) == plain | becomes


def test_instructions_at_the_beginning_are_one_message() -> None:
    found = chat_of(
        instructions="A",
        input=[
            {"role": "developer", "content": "B"},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"role": "system", "content": "C"},
        ],
    )
    assert found["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "C"},
    ]


def test_what_the_assistant_did_in_one_turn_is_one_message() -> None:
    picture = {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}
    call = {"type": "function_call", "name": "w", "arguments": "{}"}
    found = said(
        {"role": "user", "content": [picture, {"type": "input_text", "text": "Where?"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": "Let me see."},
        call | {"call_id": "c1"},
        call | {"call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": [picture]},
        {"type": "function_call_output", "call_id": "c2", "output": "12"},
        {"role": "user", "content": "So?"},
    )
    shown = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    function = {"type": "function", "function": {"name": "w", "arguments": "{}"}}
    assert found == [
        {"role": "user", "content": [shown, {"type": "text", "text": "Where?"}]},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", **function}, {"id": "c2", **function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "tool", "tool_call_id": "c2", "content": "12"},
        {"role": "user", "content": [shown]},
        {"role": "user", "content": "So?"},
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": ""}, "names no model"),
        ({"input": []}, "no input"),
        ({"input": 3}, r"\$\.input"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, r"\$\.input\[0\]\.content"),
        ({"input": [{"role": "robot", "content": "x"}]}, r"\$\.input\[0\]\.role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "'item_reference' is not supported"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
         "by id or URL"),
        ({"tools": [{"type": "web_search"}]}, "'web_search' is not supported"),
        ({"conversation": "conv_1"}, "A stored conversation"),
        ({"background": True, "stream": True}, "in the background is not supported"),
        ({"background": True, "store": False}, "must be stored"),
        ({"text": {"format": {"type": "xml"}}}, r"\$\.text\.format\.type"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(GatewayError, match=says) as refused:
        made(**fields)
    assert refused.value.status == 400


# -- answers


def test_answer_with_reasoning_text_tools_and_usage() -> None:
    content = whole("Hello", reasoning="hm", calls=TOOL_CALLS, finish="tool_calls")
    found = msgspec.json.decode(made(tools=[TOOL], metadata={"a": "b"}).answer(content))
    assert (found["id"], found["object"], found["status"]) == ("resp_1", "response", "completed")
    assert (found["metadata"], found["tools"], found["store"]) == ({"a": "b"}, [TOOL], True)
    assert [item["type"] for item in found["output"]] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert {item["status"] for item in found["output"]} == {"completed"}
    thought, message, call, _ = found["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"][0]["text"] == "Hello"
    assert (call["call_id"], call["arguments"]) == ("call_1", '{"city":"Köln"}')
    assert found["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 11,
    }


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_off_is_incomplete(finish: str, reason: str) -> None:
    found = msgspec.json.decode(made().answer(whole("Hel", finish=finish)))
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert found["output"][0]["status"] == "incomplete"
    assert found["completed_at"] is None


# -- streams


def fed(content: bytes, *, step: int = 1, **fields: Any) -> list[dict[str, Any]]:
    response = made(stream=True, **fields)
    parts = [part + b"\n\n" for part in content.split(b"\n\n")[:-1]]
    groups = [b"".join(parts[at : at + step]) for at in range(0, len(parts), step)]
    out = b"".join([response.feed(group) for group in groups]) + response.end()
    return read(out)


def read(out: bytes) -> list[dict[str, Any]]:
    found = []
    for part in out.split(b"\n\n")[:-1]:
        if part.startswith(b":"):
            continue
        name, data = part.split(b"\n")
        found.append(msgspec.json.decode(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


@pytest.mark.parametrize("step", [1, 3, 100])
def test_stream_has_openais_order(step: int) -> None:
    content = chunks("Hi", reasoning="h", calls=TOOL_CALLS[:1], finish="tool_calls", ping=True)
    found = fed(content, step=step)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    places = [event["output_index"] for event in found if "output_index" in event]
    assert places == sorted(places)
    last = found[-1]["response"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert last["output"] == done
    assert last["usage"]["total_tokens"] == 11


def test_a_stream_and_a_whole_answer_are_the_same_response() -> None:
    script: dict[str, Any] = {"reasoning": "hm", "calls": TOOL_CALLS, "finish": "tool_calls"}
    streamed = fed(chunks("Hello", **script))[-1]["response"]
    answered = msgspec.json.decode(made().answer(whole("Hello", **script)))
    streamed["completed_at"] = answered["completed_at"] = None
    assert streamed == answered


def test_a_stream_that_was_cut_off_ends_incomplete() -> None:
    last = fed(chunks("Hi", finish="length"))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_stream_that_breaks_ends_with_an_error_and_the_failed_response() -> None:
    response = made(stream=True)
    begun = read(response.feed(chunks("Hi").split(b"data: [DONE]")[0]))
    error, failed = read(response.broken(GatewayError("upstream_broke", "It broke.")))
    assert error == {
        "type": "error",
        "sequence_number": len(begun),
        "code": "stream_broken",
        "message": "It broke.",
        "param": None,
    }
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert failed["response"]["output"][0]["status"] == "incomplete"


# -- the store


def kept(number: int, **fields: Any) -> Kept:
    plain = Kept(
        id=f"resp_{number}",
        project_id="prj_a",
        previous_id=f"resp_{number - 1}" if number else None,
        created_s=1000.0 + number,
        beat_s=1000.0,
        status="completed",
        items=b"[]",
        response=b"{}",
    )
    return replace(plain, **fields)


def test_store_keeps_for_a_project_and_deletes(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, 10_000_000, 3600)
    store.put(kept(0))
    other_worker = ResponseStore(tmp_path, 10_000_000, 3600)
    assert other_worker.get("prj_a", "resp_0") == kept(0)
    assert other_worker.get("prj_b", "resp_0") is None
    assert not other_worker.delete("prj_b", "resp_0")
    assert other_worker.delete("prj_a", "resp_0")
    assert store.get("prj_a", "resp_0") is None
    assert (tmp_path / "responses").stat().st_mode & 0o077 == 0
    for each in (store, other_worker):
        each.close()


def test_store_gives_a_conversation_whole_or_not(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, 10_000_000, 3600)
    for number in range(3):
        store.put(kept(number))
    assert store.chain("prj_a", "resp_2") == [kept(0), kept(1), kept(2)]
    store.delete("prj_a", "resp_1")
    assert store.chain("prj_a", "resp_2") is None
    store.close()


def test_store_drops_what_is_old_and_what_is_too_much(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, 600_000, 50)
    store.put(kept(0))
    store.put(kept(60))
    assert store.get("prj_a", "resp_0") is None
    for number in range(61, 101):
        store.put(kept(number, response=b"x" * 50_000))
    assert store.get("prj_a", "resp_60") is None
    assert store.get("prj_a", "resp_100") is not None
    assert (tmp_path / "responses" / "responses.db").stat().st_size < 1_500_000
    store.close()


def test_store_ends_only_what_is_in_progress(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, 10_000_000, 3600)
    for number in range(2):
        store.put(kept(number, status="in_progress"))
    assert store.beat(["resp_0", "resp_1", "resp_9"], 2000.0) == {"resp_0", "resp_1"}
    store.end("resp_0", "cancelled", b'{"a":1}')
    store.end("resp_0", "completed", b'{"a":2}')
    found = store.get("prj_a", "resp_0")
    assert found is not None
    assert (found.status, found.response, found.beat_s) == ("cancelled", b'{"a":1}', 2000.0)
    assert store.beat(["resp_0", "resp_1"], 2001.0) == {"resp_1"}
    store.close()


def test_store_that_is_damaged_says_so(tmp_path: Path) -> None:
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses" / "responses.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        ResponseStore(tmp_path, 10_000_000, 3600).put(kept(0))
