"""Anthropic's `/v1/messages`: answers, streams and errors, made of OpenAI chat's.

Source of the format: https://platform.claude.com/docs/en/api/messages,
…/build-with-claude/streaming
and …/api/errors, and the types of the official Python client, `anthropic` 2.14.0 (29 November
2026).
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects import chat
from gateway.dialects.chat import Chat, ChatUsage, Choice, Mark, ToolCall
from gateway.errors import GatewayError

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED = 529


class MessageAnswer:
    """One answer as Anthropic gives it, whole or as a stream.

    Of a stream the prompt's tokens are known at its end only: `message_start` says 0 and
    `message_delta`, whose counts are cumulative, says how many there were.

    Args:
        model: The name the caller knows the model by.
        request_id: Of the request; the message's id is made of it.
        stop_sequences: What the caller asked to stop at.
    """

    def __init__(self, model: str, request_id: str, stop_sequences: list[str]) -> None:
        self.background = False
        self._model = model
        self._request_id = request_id
        self._stop_sequences = stop_sequences
        self._usage: ChatUsage | None = None
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._started = False
        self._index = -1
        self._block = ""
        self._tool_index = -1
        self._has_tools = False

    # -- whole

    def answer(self, content: bytes) -> bytes:
        """A whole chat answer as a message. Raises GatewayError: it is no chat answer."""
        found = chat.answer(content, self._model)
        choice = found.first
        assert choice is not None  # `chat.answer` sees to it
        said = choice.said
        blocks: list[dict[str, Any]] = []
        if said.thought:
            blocks.append({"type": "thinking", "thinking": said.thought, "signature": ""})
        if said.text:
            blocks.append({"type": "text", "text": said.text})
        blocks += [self._tool_use(call) for call in said.tool_calls or ()]
        self._learn(choice)
        message = self._message(blocks, _usage(found.usage))
        message["stop_reason"] = self._stopped()
        message["stop_sequence"] = self._stop_sequence
        return chat.encode(message)

    def _tool_use(self, call: ToolCall) -> dict[str, Any]:
        self._has_tools = True
        used: dict[str, Any] = {"type": "tool_use"}
        used["id"] = call.id or self._tool_id(call.index or 0)
        return used | {"name": call.function.name or "", "input": _input(call.function.arguments)}

    def _message(self, blocks: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": "msg_" + self._request_id.removeprefix("req_"),
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _tool_id(self, number: int) -> str:
        return f"toolu_{self._request_id.removeprefix('req_')}_{number}"

    def _learn(self, choice: Choice) -> None:
        """Why it stopped."""
        if choice.finish_reason:
            self._stop_reason = _STOP_REASONS.get(choice.finish_reason, "end_turn")
        if choice.stop_text in self._stop_sequences and self._stop_reason == "end_turn":
            self._stop_reason, self._stop_sequence = "stop_sequence", choice.stop_text

    def _stopped(self) -> str:
        # Some servers end a tool call with "stop".
        if self._has_tools and self._stop_reason in (None, "end_turn"):
            return "tool_use"
        return self._stop_reason or "end_turn"

    # -- a stream

    def feed(self, events: bytes) -> bytes:
        """Chat events as Anthropic's. Raises GatewayError: one is an error or no chat event."""
        out: list[bytes] = []
        for found in chat.events(events, self._model):
            if found is Mark.DONE:
                continue
            self._start(out)
            if isinstance(found, Chat):
                self._add(found, out)
            else:
                out.append(chat.event("ping", {"type": "ping"}))
        return b"".join(out)

    def end(self) -> bytes:
        """The last events, with the reason for the end and the usage."""
        out: list[bytes] = []
        self._start(out)
        self._close(out)
        delta = {"stop_reason": self._stopped(), "stop_sequence": self._stop_sequence}
        ended = {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}
        out.append(chat.event("message_delta", ended))
        out.append(chat.event("message_stop", {"type": "message_stop"}))
        return b"".join(out)

    def broken(self, error: GatewayError) -> bytes:
        """The error as the last event."""
        return chat.event("error", _error(error, self._request_id))

    def _start(self, out: list[bytes]) -> None:
        if self._started:
            return
        self._started = True
        message = self._message([], _usage(None))
        out.append(chat.event("message_start", {"type": "message_start", "message": message}))

    def _add(self, found: Chat, out: list[bytes]) -> None:
        if found.usage is not None:
            self._usage = found.usage
        choice = found.first
        if choice is None:
            return
        said = choice.said
        if said.thought:
            self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
            self._delta({"type": "thinking_delta", "thinking": said.thought}, out)
        if said.text:
            self._open("text", {"type": "text", "text": ""}, out)
            self._delta({"type": "text_delta", "text": said.text}, out)
        for call in said.tool_calls or ():
            self._call(call, out)
        self._learn(choice)

    def _call(self, call: ToolCall, out: list[bytes]) -> None:
        number = call.index if call.index is not None else self._tool_index + bool(call.id)
        if number < self._tool_index or (number == self._tool_index and self._block != "tool_use"):
            raise GatewayError(
                "upstream_broke",
                f"The server of {self._model!r} went back to a tool call that it had left.",
            )
        if number > self._tool_index:
            self._tool_index = number
            self._has_tools = True
            self._close(out)
            used: dict[str, Any] = {"type": "tool_use", "id": call.id or self._tool_id(number)}
            used |= {"name": call.function.name or "", "input": {}}
            self._open("tool_use", used, out)
        if call.function.arguments:
            part = {"type": "input_json_delta", "partial_json": call.function.arguments}
            self._delta(part, out)

    def _open(self, kind: str, block: dict[str, Any], out: list[bytes]) -> None:
        if self._block == kind:
            return
        self._close(out)
        self._block = kind
        self._index += 1
        begun = {"type": "content_block_start", "index": self._index, "content_block": block}
        out.append(chat.event("content_block_start", begun))

    def _delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        added = {"type": "content_block_delta", "index": self._index, "delta": delta}
        out.append(chat.event("content_block_delta", added))

    def _close(self, out: list[bytes]) -> None:
        if self._block:
            self._block = ""
            ended = {"type": "content_block_stop", "index": self._index}
            out.append(chat.event("content_block_stop", ended))


def status_of(error: GatewayError) -> int:
    """The HTTP status that Anthropic's clients expect: what is not ready is overloaded."""
    return _OVERLOADED if error.status == 503 else error.status


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The error as Anthropic's JSON document."""
    return chat.encode(_error(error, request_id))


def _error(error: GatewayError, request_id: str) -> dict[str, Any]:
    status = status_of(error)
    other = "api_error" if status >= 500 else "invalid_request_error"
    kind = _ERROR_TYPES.get(status, other)
    told = {"type": kind, "message": error.message}
    return {"type": "error", "error": told, "request_id": request_id}


def _usage(usage: ChatUsage | None) -> dict[str, int]:
    """Anthropic counts what was read from the cache apart from the rest of the prompt."""
    cached_tokens = (usage.cached_tokens if usage else None) or 0
    prompt_tokens = (usage.prompt_tokens if usage else None) or 0
    return {
        "input_tokens": max(prompt_tokens - cached_tokens, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": (usage.completion_tokens if usage else None) or 0,
    }


def _input(arguments: str | None) -> dict[str, Any]:
    """A call's arguments as an object; what is cut off is kept as text.

    Source of the wrapper's name: …/agents-and-tools/tool-use/fine-grained-tool-streaming.
    """
    if not arguments:
        return {}
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        return {"INVALID_JSON": arguments}
