"""What a model server says, in OpenAI chat's wire format: whole answers and streams.

Written after https://platform.openai.com/docs/api-reference/chat (29 November 2026);
`reasoning_content` as vLLM and llama.cpp give it.
"""

from __future__ import annotations

from typing import Any

import msgspec

TOOL_CALLS: list[dict[str, Any]] = [
    {"id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}},
    {"id": "call_2", "function": {"name": "time", "arguments": ""}},
]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 4,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
_FRAME = {"id": "chatcmpl-1", "created": 1_760_000_000, "model": "m"}


def whole(
    text: str = "Hello",
    *,
    reasoning: str = "",
    calls: list[dict[str, Any]] | None = None,
    finish: str = "stop",
    **choice: Any,
) -> bytes:
    """A whole answer."""
    said: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        said["reasoning_content"] = reasoning
    if calls:
        said["tool_calls"] = [{"type": "function", **call} for call in calls]
    only = {"index": 0, "message": said, "finish_reason": finish} | choice
    return msgspec.json.encode(
        _FRAME | {"object": "chat.completion", "choices": [only], "usage": USAGE}
    )


def chunks(
    text: str = "Hello",
    *,
    reasoning: str = "",
    calls: list[dict[str, Any]] | None = None,
    finish: str = "stop",
    ping: bool = False,
) -> bytes:
    """The same as a stream: a character an event, and a call's arguments in two parts."""
    parts = [{"role": "assistant", "content": ""}]
    parts += [{"reasoning_content": letter} for letter in reasoning]
    parts += [{"content": letter} for letter in text]
    for number, call in enumerate(calls or ()):
        parts += [{"tool_calls": [part]} for part in _call_parts(number, call)]
    events = [_event([{"index": 0, "delta": part, "finish_reason": None}]) for part in parts]
    events.append(_event([{"index": 0, "delta": {}, "finish_reason": finish}]))
    events.append(_event([], usage=USAGE))
    if ping:
        events.insert(1, b": ping\n\n")
    return b"".join([*events, b"data: [DONE]\n\n"])


def _call_parts(number: int, call: dict[str, Any]) -> list[dict[str, Any]]:
    index = call.get("index", number)
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    middle = len(arguments) // 2
    begun = {"index": index, "id": call["id"], "type": "function"}
    return [
        begun | {"function": {"name": name, "arguments": ""}},
        *(
            {"index": index, "function": {"arguments": part}}
            for part in (arguments[:middle], arguments[middle:])
            if part
        ),
    ]


def _event(choices: list[dict[str, Any]], **fields: Any) -> bytes:
    chunk = _FRAME | {"object": "chat.completion.chunk", "choices": choices} | fields
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
