"""Anthropic's messages from and to OpenAI chat, without a server.

The bodies are written after https://platform.claude.com/docs/en/api/messages, …/tool-use and
…/build-with-claude/streaming, and the types of `anthropic` 2.14.0 (29 November 2026).
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dialects import anthropic_answers
from gateway.dialects.anthropic_messages import Messages, to_count
from gateway.errors import GatewayError
from tests.doubles.chat_scripts import TOOL_CALLS, chunks, whole

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBO"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ASK = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def translated(**fields: Any) -> dict[str, Any]:
    made = Messages(msgspec.json.encode(ASK | fields), "req_1")
    found: dict[str, Any] = msgspec.json.decode(made.chat.raw)
    return found


def turns(*messages: Any) -> Any:
    return translated(messages=list(messages))["messages"]


def events(content: bytes) -> list[dict[str, Any]]:
    found = []
    for part in content.split(b"\n\n")[:-1]:
        name, data = part.split(b"\n")
        document = msgspec.json.decode(data.removeprefix(b"data: "))
        assert name == b"event: " + document["type"].encode()
        found.append(document)
    return found


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"stop_sequences": ["X"]}, {"stop": ["X"]}),
        ({"top_k": 5, "temperature": 0.5}, {"top_k": 5, "temperature": 0.5}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"min_p": 0.1, "chat_template_kwargs": {"a": 1}},
         {"min_p": 0.1, "chat_template_kwargs": {"a": 1}}),
        ({"service_tier": "auto", "cache_control": {"type": "ephemeral"}}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
         {"response_format": {"type": "json_schema", "json_schema": {
             "name": "output", "schema": SCHEMA, "strict": True}}}),
        ({"tool_choice": {"type": "any"}}, {}),
    ],
)  # fmt: skip
def test_options(given: dict[str, Any], becomes: dict[str, Any]) -> None:
    plain = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    assert translated(**given) == plain | becomes


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True},
         {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "tool", "name": "w"},
         {"tool_choice": {"type": "function", "function": {"name": "w"}}}),
        ({"type": "none"}, {"tool_choice": "none"}),
    ],
)  # fmt: skip
def test_tools(choice: dict[str, Any], becomes: dict[str, Any]) -> None:
    tool = {"name": "w", "description": "Weather", "input_schema": SCHEMA, "cache_control": None}
    found = translated(tools=[tool], tool_choice=choice)
    function = {"name": "w", "description": "Weather", "parameters": SCHEMA}
    assert found["tools"] == [{"type": "function", "function": function}]
    assert becomes.items() <= found.items()


def test_system_and_turns_of_one_role_are_joined() -> None:
    found = translated(
        system=[{"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
        messages=[{"role": "user", "content": "1"}, {"role": "user", "content": "2"}],
    )
    assert found["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "1\n\n2"},
    ]


def test_pictures_and_documents() -> None:
    blocks = [
        {"type": "text", "text": "See"},
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}},
    ]
    (turn,) = turns({"role": "user", "content": blocks})
    assert turn["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "text", "text": "T"},
        {"type": "text", "text": "body"},
    ]


def test_tool_calls_and_their_results() -> None:
    used = {"type": "tool_use", "id": "t1", "name": "w", "input": {"city": "Köln"}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    image = {"type": "image", "source": PNG}
    results = [
        {"type": "text", "text": "So?"},
        {"type": "tool_result", "tool_use_id": "t1", "content": "12"},
        {"type": "tool_result", "tool_use_id": "t2", "content": [image, *ask_text("sun")]},
    ]
    found = turns(
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [thought, *ask_text("Let me see."), used]},
        {"role": "user", "content": results},
    )
    function = {"name": "w", "arguments": '{"city":"Köln"}'}
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "12"},
        {"role": "tool", "tool_call_id": "t2", "content": "sun"},
        {
            "role": "user",
            "content": [
                *ask_text("So?"),
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            ],
        },
    ]


def ask_text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"model": ""}, "names no model"),
        ({"model": 3}, r"\$\.model"),
        ({"messages": "x"}, r"\$\.messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"\$\.messages\[0\]\.role"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "missing required"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "'video'"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image", "source": PNG}]}]},
         "'image' in an assistant's turn is not supported"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, "source 'file'"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "'web_search_20250305' is not supported"),
        ({"mcp_servers": [{"name": "x"}]}, "MCP"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(GatewayError, match=says) as refused:
        translated(**fields)
    assert refused.value.status == 400


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"a":' * 3000])
def test_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(GatewayError, match="not valid"):
        Messages(raw, "req_1")


def test_count_tokens_needs_no_limit_and_never_streams() -> None:
    body = to_count(msgspec.json.encode({**ASK, "max_tokens": None, "stream": True}))
    assert msgspec.json.decode(body.raw) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert not body.stream


# -- answers


def message(content: bytes, **fields: Any) -> dict[str, Any]:
    made = Messages(msgspec.json.encode(ASK | fields), "req_1")
    found: dict[str, Any] = msgspec.json.decode(made.answer(content))
    return found


def test_answer_with_reasoning_text_tools_and_usage() -> None:
    found = message(whole("Hello", reasoning="hm", calls=TOOL_CALLS, finish="tool_calls"))
    assert found == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Köln"}},
            {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 4,
        },
    }


@pytest.mark.parametrize(
    ("choice", "reason", "sequence"),
    [
        ({"finish_reason": "stop"}, "end_turn", None),
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"finish_reason": "content_filter"}, "refusal", None),
        ({"finish_reason": "stop", "stop_reason": "X"}, "stop_sequence", "X"),
        ({"finish_reason": "stop", "matched_stop": "X"}, "stop_sequence", "X"),
        ({"finish_reason": "stop", "stop_reason": 128009}, "end_turn", None),
    ],
)
def test_stop_reasons(choice: dict[str, Any], reason: str, sequence: str | None) -> None:
    found = message(whole("Hello", **choice), stop_sequences=["X"])
    assert (found["stop_reason"], found["stop_sequence"]) == (reason, sequence)


def test_arguments_that_are_cut_off_are_kept() -> None:
    calls = [{"id": "c", "function": {"name": "w", "arguments": '{"city": "Kö'}}]
    (block,) = message(whole("", calls=calls, finish="length"))["content"]
    assert block["input"] == {"INVALID_JSON": '{"city": "Kö'}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>", "no chat"),
        (b'{"choices":[]}', "no chat"),
        (b'{"error":{"message":"boom"}}', "boom"),
    ],
)
def test_what_is_no_answer(content: bytes, says: str) -> None:
    with pytest.raises(GatewayError, match=says):
        message(content)


# -- streams


def fed(content: bytes, *, step: int = 1) -> list[dict[str, Any]]:
    made = Messages(msgspec.json.encode(ASK | {"stream": True}), "req_1")
    parts = [part + b"\n\n" for part in content.split(b"\n\n")[:-1]]
    groups = [b"".join(parts[at : at + step]) for at in range(0, len(parts), step)]
    return events(b"".join([made.feed(group) for group in groups]) + made.end())


@pytest.mark.parametrize("step", [1, 3, 100])
def test_stream_has_anthropics_order(step: int) -> None:
    content = chunks("Hello", reasoning="hm", calls=TOOL_CALLS, finish="tool_calls", ping=True)
    found = fed(content, step=step)
    assert [(event["type"], event.get("index")) for event in found] == [
        ("message_start", None),
        ("ping", None),
        ("content_block_start", 0), *[("content_block_delta", 0)] * 2, ("content_block_stop", 0),
        ("content_block_start", 1), *[("content_block_delta", 1)] * 5, ("content_block_stop", 1),
        ("content_block_start", 2), *[("content_block_delta", 2)] * 2, ("content_block_stop", 2),
        ("content_block_start", 3), ("content_block_stop", 3),
        ("message_delta", None),
        ("message_stop", None),
    ]  # fmt: skip
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"]["input_tokens"] == 5
    assert found[-2]["usage"]["output_tokens"] == 4
    assert [event["content_block"]["type"] for event in found if "content_block" in event] == [
        "thinking", "text", "tool_use", "tool_use",
    ]  # fmt: skip
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello"
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"city":"Köln"}'


def test_an_empty_stream_is_an_empty_message() -> None:
    kinds = [event["type"] for event in fed(b"data: [DONE]\n\n")]
    assert kinds == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'data: {"error":{"message":"boom"}}\n\n', "boom"),
        (b"data: {nonsense\n\n", "no chat"),
        (chunks("", calls=[TOOL_CALLS[0] | {"index": 1}, TOOL_CALLS[0] | {"index": 0}]), "back"),
    ],
)
def test_a_bad_event_ends_with_an_error(content: bytes, says: str) -> None:
    with pytest.raises(GatewayError, match=says):
        fed(content)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (GatewayError("authentication", "x"), 401, "authentication_error"),
        (GatewayError("permission", "x"), 403, "permission_error"),
        (GatewayError("not_found", "x"), 404, "not_found_error"),
        (GatewayError("too_large", "x"), 413, "request_too_large"),
        (GatewayError("context_length", "x"), 400, "invalid_request_error"),
        (GatewayError("upstream_error", "x", status=429), 429, "rate_limit_error"),
        (GatewayError("no_replica", "x"), 529, "overloaded_error"),
        (GatewayError("timeout", "x"), 504, "timeout_error"),
        (GatewayError("internal", "x"), 500, "api_error"),
        (GatewayError("upstream_broke", "x"), 502, "api_error"),
    ],
)
def test_errors(error: GatewayError, status: int, kind: str) -> None:
    assert anthropic_answers.status_of(error) == status
    assert msgspec.json.decode(anthropic_answers.error_body(error, "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "req_1",
    }
