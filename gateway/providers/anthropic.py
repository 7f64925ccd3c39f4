"""Anthropic's Messages API.

Sources (November 2026), below https://platform.claude.com/docs/en/: api/messages (fields, usage),
build-with-claude/streaming (events), build-with-claude/handling-stop-reasons,
build-with-claude/structured-outputs, agents-and-tools/tool-use/implement-tool-use, api/errors.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.providers import chat
from gateway.providers.base import Outgoing, Provider, Refusal, require_chat, translated
from gateway.providers.openai_compatible import json_headers, read_refusal
from gateway.providers.streams import Chunks, SseTranslator, Translator

_VERSION = "2023-06-01"
# The interface wants a limit; every model has at least this one.
_DEFAULT_MAX_TOKENS = 4096
# Its own fields, which callers may send beside OpenAI's.
_OWN_FIELDS = ("top_k", "thinking", "output_config", "service_tier", "context_management")
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Anthropic(Provider):
    """One of Anthropic's models."""

    def request(self, path: str, body: Parsed) -> Outgoing:
        """An OpenAI chat request as one for messages."""
        require_chat(path, "Anthropic")
        headers = json_headers(body) | {
            "x-api-key": self.account.credentials.get("api_key", ""),
            "anthropic-version": _VERSION,
        }
        document = _request(chat.document(body, "Anthropic"), self.account.model)
        return Outgoing(f"{self.account.path}/messages", headers, msgspec.json.encode(document))

    def answer(self, content: bytes) -> bytes:
        """A message as a chat completion."""
        try:
            message = msgspec.json.decode(content)
            blocks = message["content"]
            return chat.completion(
                content="".join(each["text"] for each in blocks if each["type"] == "text"),
                reasoning="".join(
                    each["thinking"] for each in blocks if each["type"] == "thinking"
                ),
                tool_calls=[
                    chat.tool_call(each["id"], each["name"], each["input"])
                    for each in blocks
                    if each["type"] == "tool_use"
                ],
                finish_reason=_FINISH.get(message["stop_reason"], "stop"),
                usage=_usage(message["usage"]),
                answer_id=message["id"],
            )
        except (msgspec.DecodeError, KeyError, TypeError):
            raise chat.no_answer("Anthropic") from None

    def stream(self) -> Translator:
        """Anthropic's events as chunks."""
        return _Events(self.account.model)

    def refusal(self, content: bytes) -> Refusal:
        """`{"type": "error", "error": {"type", "message"}}`."""
        return read_refusal(content)


def _request(document: dict[str, Any], model: str) -> dict[str, Any]:
    messages = document["messages"]
    own = {name: document[name] for name in _OWN_FIELDS if document.get(name) is not None}
    schema = chat.json_schema(document)
    if schema == {}:
        raise GatewayError(
            "capability",
            "Anthropic has no 'json_object'. Give a schema, with 'json_schema'.",
            param="response_format",
        )
    if schema is not None:
        form = {"type": "json_schema", "schema": schema}
        own["output_config"] = {**own.get("output_config", {}), "format": form}
    temperature = document.get("temperature")
    return {
        "model": model,
        "max_tokens": chat.max_tokens(document) or _DEFAULT_MAX_TOKENS,
        "messages": _messages(messages),
        **chat.given(
            system=[_block(part) for part in chat.system(messages)],
            # OpenAI's scale goes to 2, this one to 1.
            temperature=None if temperature is None else min(temperature, 1.0),
            top_p=document.get("top_p"),
            stop_sequences=chat.stops(document),
            stream=document.get("stream") or None,
            metadata={"user_id": document["user"]} if document.get("user") else None,
            tools=[_tool(each) for each in chat.tools(document)],
            tool_choice=_tool_choice(document),
        ),
        **own,
    }


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation; neighbours of one role are one message, as tools' results must be."""
    found: list[dict[str, Any]] = []
    for role, message in chat.turns(messages):
        theirs = "assistant" if role == "assistant" else "user"
        blocks = [_block(part) for part in chat.parts(message)]
        if role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id", "")}
            blocks = [result | chat.given(content=blocks)]
        for call in chat.calls(message):
            use = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            blocks.append(use)
        if found and found[-1]["role"] == theirs:
            found[-1]["content"] += blocks
        elif blocks:
            found.append({"role": theirs, "content": blocks})
    return found


def _block(part: chat.Part) -> dict[str, Any]:
    cache = chat.given(cache_control=part.cache)
    if part.text:
        return {"type": "text", "text": part.text, **cache}
    if part.url:
        kind = "document" if part.url.partition("?")[0].lower().endswith(".pdf") else "image"
        return {"type": kind, "source": {"type": "url", "url": part.url}}
    if not part.mime_type.startswith("image/") and part.mime_type != "application/pdf":
        raise GatewayError(
            "capability", f"Anthropic does not read {part.mime_type!r}.", param="messages"
        )
    kind = "document" if part.mime_type == "application/pdf" else "image"
    source = {"type": "base64", "media_type": part.mime_type, "data": part.base64}
    return {"type": kind, "source": source}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {
        "name": function.get("name", ""),
        "input_schema": schema,
        **chat.given(
            description=function.get("description"),
            strict=function.get("strict") or None,
        ),
    }


def _tool_choice(document: dict[str, Any]) -> dict[str, Any] | None:
    if not document.get("tools"):
        return None
    kind, name = chat.tool_choice(document)
    names = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}
    choice: dict[str, Any] = {"type": names.get(kind, "auto")}
    if name:
        choice["name"] = name
    if document.get("parallel_tool_calls") is False and kind != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage as OpenAI counts it: here, input tokens leave out what went from or to the cache."""
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    inputs = (usage.get("input_tokens") or 0) + read + written
    return chat.usage(inputs, usage.get("output_tokens") or 0, cached_tokens=read)


class _Events(SseTranslator):
    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model
        self._chunks = Chunks()
        self._usage: dict[str, Any] = {}

    def event(self, name: str, data: bytes) -> bytes:
        """One of Anthropic's events; those that are new or say nothing are left out."""
        try:
            event = msgspec.json.decode(data)
            return self._translated(event)
        except (msgspec.DecodeError, KeyError, TypeError):
            self.failure = chat.no_answer("Anthropic")
            return self.failure.event()

    def _translated(self, event: dict[str, Any]) -> bytes:
        chunks = self._chunks
        match event:
            case {"type": "message_start", "message": message}:
                self._usage = dict(message["usage"])
                return chunks.delta(content="")
            case {"type": "content_block_start", "content_block": {"type": "tool_use"} as block}:
                return chunks.tool_call(block["id"], block["name"])
            case {"type": "content_block_delta", "delta": delta}:
                return self._delta(delta)
            case {"type": "message_delta", "delta": delta}:
                self._usage |= {k: v for k, v in event.get("usage", {}).items() if v is not None}
                reason = delta.get("stop_reason")
                return chunks.delta(_FINISH.get(reason, "stop")) if reason else b""
            case {"type": "message_stop"}:
                return chunks.end(_usage(self._usage))
            case {"type": "ping"}:
                return b": ping\n\n"
            case {"type": "error", "error": error}:
                refusal = Refusal(str(error.get("message", "")), error.get("type"))
                status = _STATUS.get(error.get("type", ""), 500)
                self.failure = translated(status, refusal, self._model)
                return self.failure.event()
        return b""

    def _delta(self, delta: dict[str, Any]) -> bytes:
        match delta["type"]:
            case "text_delta":
                return self._chunks.delta(content=delta["text"])
            case "input_json_delta":
                text = delta["partial_json"]
                return self._chunks.tool_arguments(text) if text else b""
            case "thinking_delta":
                return self._chunks.delta(reasoning_content=delta["thinking"])
        return b""
