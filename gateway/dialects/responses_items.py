"""The items of a response's conversation, as OpenAI chat messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from gateway.dialects import chat
from gateway.dialects.chat import unsupported
from gateway.errors import GatewayError

_BETWEEN = "\n\n"


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: list[_Part]


class _Call(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _Output(msgspec.Struct):
    call_id: str
    output: str | list[_Part]


class _Thought(msgspec.Struct):
    text: str = ""


class _Reasoning(msgspec.Struct):
    summary: list[_Thought] = []
    content: list[_Thought] | None = None


class Conversation:
    """Chat messages, made of one item after the other.

    What the assistant said, thought and called between two turns of others is one message, and
    instructions at the beginning are one too: many chat templates take them no other way.

    Args:
        instructions: Of this request; those of earlier ones do not count.
    """

    def __init__(self, instructions: str | None) -> None:
        self._messages: list[dict[str, Any]] = []
        self._shown: list[dict[str, Any]] = []
        if instructions:
            self._messages.append({"role": "system", "content": instructions})

    def messages(self) -> list[dict[str, Any]]:
        """What was added, as chat messages."""
        self._show()
        return self._messages

    def add(self, item: dict[str, Any], place: str) -> None:
        """Add an item.

        Args:
            item: In its full form, with `type`.
            place: Where in the body it stands, for errors.

        Raises:
            GatewayError: A field is wrong, or a part has no counterpart.
        """
        match item["type"]:
            case "function_call":
                self._call(chat.converted(item, _Call, place))
            case "function_call_output":
                self._output(chat.converted(item, _Output, place))
            case "reasoning":
                self._reasoning(chat.converted(item, _Reasoning, place))
            case _:
                self._message(chat.converted(item, _Message, place))

    def _message(self, message: _Message) -> None:
        parts = [_part(part) for part in message.content]
        if message.role == "assistant":
            said = self._assistant()
            said["content"] = (said["content"] or "") + _text(parts, between="")
            return
        self._show()
        if message.role == "user":
            self._messages.append({"role": "user", "content": _content(parts)})
            return
        text = _text(parts, between=_BETWEEN)
        if len(self._messages) == 1 and self._messages[0]["role"] == "system":
            self._messages[0]["content"] += _BETWEEN + text
        else:
            self._messages.append({"role": "system", "content": text})

    def _call(self, call: _Call) -> None:
        function = {"name": call.name, "arguments": call.arguments}
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": call.call_id, "type": "function", "function": function})

    def _output(self, output: _Output) -> None:
        content = output.output
        parts = [_part(part) for part in content] if isinstance(content, list) else []
        text = content if isinstance(content, str) else _text(parts, between=_BETWEEN)
        self._messages.append({"role": "tool", "tool_call_id": output.call_id, "content": text})
        # A tool's message holds text only; what else it gave is shown after the last of them.
        self._shown += [part for part in parts if part["type"] != "text"]

    def _reasoning(self, reasoning: _Reasoning) -> None:
        text = "".join(thought.text for thought in reasoning.content or reasoning.summary)
        if text:
            said = self._assistant()
            said["reasoning_content"] = said.get("reasoning_content", "") + text

    def _assistant(self) -> dict[str, Any]:
        """The assistant's message that is going on, or a new one."""
        self._show()
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": None})
        return self._messages[-1]

    def _show(self) -> None:
        if self._shown:
            self._messages.append({"role": "user", "content": self._shown})
            self._shown = []


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text alone as a string, which every chat template takes."""
    if all(part["type"] == "text" for part in parts):
        return _text(parts, between=_BETWEEN)
    return parts


def _text(parts: Iterable[dict[str, Any]], *, between: str) -> str:
    return between.join(part["text"] for part in parts if part["type"] == "text")


def _part(part: _Part) -> dict[str, Any]:
    match part.type:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.text}
        case "refusal":
            return {"type": "text", "text": part.refusal}
        case "input_image" if part.image_url:
            image = {"url": part.image_url}
            if part.detail in ("low", "high"):
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case "input_file" if part.file_data:
            file = {"filename": part.filename or "file", "file_data": part.file_data}
            return {"type": "file", "file": file}
        case "input_audio" if part.input_audio:
            return {"type": "input_audio", "input_audio": part.input_audio}
    raise _unsupported(part)


def _unsupported(part: _Part) -> GatewayError:
    by = " by id or URL" if part.type in ("input_image", "input_file") else ""
    return unsupported(f"A part of type {part.type!r}{by}", "input")
