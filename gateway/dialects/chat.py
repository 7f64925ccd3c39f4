"""OpenAI chat as the dialects read it: requests' fields, whole answers, and the events of streams.

Source of the format: https://platform.openai.com/docs/api-reference/chat and …/chat-streaming (29
November 2026); `reasoning_content` is DeepSeek's (and vLLM's, SGLang's, llama.cpp's),
`reasoning` OpenRouter's, `stop_reason` vLLM's and `matched_stop` SGLang's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from gateway.body import Parsed, invalid, not_json
from gateway.errors import GatewayError, from_upstream
from gateway.usage import Usage

_END = b"\n\n"
_DATA = b"data:"
_Type = TypeVar("_Type")


class Function(msgspec.Struct):
    """What a tool call calls; in a stream `arguments` is the next part of the JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or in a stream a part of the one with this index."""

    function: Function = msgspec.field(default_factory=Function)
    id: str | None = None
    index: int | None = None


class Said(msgspec.Struct):
    """A message, or in a stream what is added to it."""

    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """What is said to the user."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text") or "") for part in self.content)
        return self.content or self.refusal or ""

    @property
    def thought(self) -> str:
        """The reasoning, as far as the replica shows it."""
        return self.reasoning_content or self.reasoning or ""


class Logprobs(msgspec.Struct):
    """Log probabilities of the tokens, as they came."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """One choice of an answer or of an event."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: str | int | None = None
    matched_stop: str | int | list[Any] | None = None

    @property
    def said(self) -> Said:
        """The message, or what an event adds to it."""
        return self.message or self.delta or Said()

    @property
    def stop_text(self) -> str | None:
        """The stop sequence that was met, when the replica says."""
        found = self.stop_reason or self.matched_stop
        return found if isinstance(found, str) else None


class Details(msgspec.Struct):
    """Part of `usage`."""

    reasoning_tokens: int | None = None


class ChatUsage(Usage):
    """Token counts with the part of the output that was reasoning."""

    completion_tokens_details: Details | None = None


class Chat(msgspec.Struct):
    """A whole answer, or one event of a stream."""

    choices: list[Choice] | None = None
    usage: ChatUsage | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def first(self) -> Choice | None:
        """The choice with index 0: dialects without `n` have no place for others."""
        return next((choice for choice in self.choices or () if choice.index == 0), None)


class Mark(enum.Enum):
    """What a stream has beside chat events."""

    PING = "a comment that keeps the connection"
    DONE = "the end"


_decode = msgspec.json.Decoder(Chat).decode
encode = msgspec.json.Encoder().encode


def document(raw: bytes) -> dict[str, Any]:
    """A request body as a dictionary.

    Raises:
        GatewayError: It is no JSON object.
    """
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None


def converted(value: object, kind: type[_Type], place: str = "$") -> _Type:
    """`value` as `kind`.

    Args:
        value: Part of a decoded body.
        kind: A struct of the dialect.
        place: Where in the body it stands, such as `$.input[2]`.

    Raises:
        GatewayError: A field is missing or has the wrong type; it is named.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid(error, place) from None


def unsupported(what: str, param: str) -> GatewayError:
    """A part of a dialect that has no counterpart here."""
    return GatewayError("invalid_request", f"{what} is not supported by this gateway.", param=param)


def parsed(body: dict[str, Any], *, stream: bool) -> Parsed:
    """A chat body for the replica; of a stream usage is asked, since the dialects tell it."""
    options = {"include_usage": True} if stream else None
    if stream:
        body = {**body, "stream": True, "stream_options": options}
    return Parsed(encode(body), body["model"], stream, options, body.get("max_tokens"))


def answer(content: bytes, model: str) -> Chat:
    """Read a whole answer.

    Raises:
        GatewayError: It is an error, or no chat answer.
    """
    try:
        found = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = Chat()
    if found.first is not None:
        return found
    if _is_error(found):
        raise from_upstream(500, content, model)
    raise _no_chat(model)


def events(content: bytes, model: str) -> Iterator[Chat | Mark]:
    """Read whole events.

    Args:
        content: As `gateway.sse.EventStream.feed` gives them.
        model: The name the caller knows the model by.

    Raises:
        GatewayError: One of them is an error, or no chat event.
    """
    for event in content.split(_END):
        if not event:
            continue
        payload = _payload(event)
        if not payload:
            yield Mark.PING
        elif payload == b"[DONE]":
            yield Mark.DONE
        else:
            yield _chunk(payload, model)


def event(name: str, content: dict[str, Any]) -> bytes:
    """A named event for the caller."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(content))


def _payload(event: bytes) -> bytes:
    lines = [line[len(_DATA) :] for line in event.split(b"\n") if line.startswith(_DATA)]
    return b"\n".join(lines).strip()


def _chunk(payload: bytes, model: str) -> Chat:
    try:
        found = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _no_chat(model) from None
    if _is_error(found):
        raise from_upstream(500, payload, model)
    return found


def _is_error(found: Chat) -> bool:
    return bool(found.error) and bytes(found.error) != b"null" and not found.choices


def _no_chat(model: str) -> GatewayError:
    return GatewayError("upstream_error", f"What the server of {model!r} answers is no chat.")
