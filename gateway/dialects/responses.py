"""OpenAI's `/v1/responses`: what the caller sends, as an OpenAI chat body.

Source of the format: https://platform.openai.com/docs/api-reference/responses and the types of the
official Python client, `openai` 3.54.0 (29 November 2026).

Tools that OpenAI runs itself (web search, code interpreter, MCP …), conversations, stored prompts
and the Files API are refused by name. Fields that are not known here are passed on: the replica
may know them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from core.kernel import ids
from gateway.body import Parsed
from gateway.dialects import chat
from gateway.dialects.chat import unsupported
from gateway.dialects.responses_answers import ResponseAnswer
from gateway.dialects.responses_items import Conversation
from gateway.errors import GatewayError

_SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier"),
    *("prompt_cache_key", "service_tier"),
)
_REFUSED = {
    "conversation": "A stored conversation",
    "prompt": "A stored prompt",
    "moderation": "Moderation of a response",
    "context_management": "Context management",
}
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str = "output"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Allowed(msgspec.Struct):
    name: str = ""


class _ToolChoice(msgspec.Struct):
    type: str
    name: str = ""
    mode: Literal["auto", "required"] = "auto"
    tools: list[_Allowed] = []


class _Request(msgspec.Struct):
    model: str = ""
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    truncation: str | None = None


_KNOWN = frozenset(_Request.__struct_fields__) | frozenset(_REFUSED)


class Request:
    """A body that was read and is valid, as far as it can be told without earlier responses.

    Args:
        raw: As the caller sent it.

    Raises:
        GatewayError: It is not valid, or asks for what has no counterpart.
    """

    def __init__(self, raw: bytes) -> None:
        self.document = chat.document(raw)
        self.fields = chat.converted(self.document, _Request)
        if not self.fields.model:
            raise GatewayError(
                "invalid_request",
                "The request names no model. List yours with GET /v1/models.",
                param="model",
            )
        for name, what in _REFUSED.items():
            if self.document.get(name):
                raise unsupported(what, name)
        self.items = _items(self.fields.input)
        if self.background and self.fields.stream:
            raise unsupported("A stream of a response in the background", "stream")
        if self.background and not self.store:
            raise GatewayError(
                "invalid_request",
                "A response in the background must be stored: leave 'store' out.",
                param="store",
            )

    @property
    def background(self) -> bool:
        """Whether the caller does not wait for the answer."""
        return bool(self.fields.background)

    @property
    def store(self) -> bool:
        """Whether the response is to be found later; as at OpenAI, unless the caller says no."""
        return self.fields.store is not False

    @property
    def previous_id(self) -> str | None:
        """The response whose conversation this one goes on with."""
        return self.fields.previous_response_id

    def chat(self, earlier: Iterable[dict[str, Any]]) -> Parsed:
        """The chat body.

        Args:
            earlier: The items of the conversation so far, from earlier responses.

        Raises:
            GatewayError: An item or a tool has no counterpart; it is named.
        """
        fields, document = self.fields, self.document
        conversation = Conversation(fields.instructions)
        for item in earlier:
            conversation.add(item, "$.previous_response_id")
        for number, item in enumerate(self.items):
            conversation.add(item, f"$.input[{number}]")
        body: dict[str, Any] = {
            **{key: value for key, value in document.items() if key not in _KNOWN},
            "model": fields.model,
            "messages": conversation.messages(),
            **{name: document[name] for name in _SAME if document.get(name) is not None},
            **_options(fields),
        }
        return chat.parsed(body, stream=bool(fields.stream))

    def shown(self) -> dict[str, Any]:
        """The fields of the request that a response object repeats."""
        document = self.document
        text = document.get("text") or {}
        return {
            "background": self.background,
            "instructions": self.fields.instructions,
            "max_output_tokens": self.fields.max_output_tokens,
            "max_tool_calls": self.fields.max_tool_calls,
            "metadata": self.fields.metadata or {},
            "model": self.fields.model,
            "parallel_tool_calls": document.get("parallel_tool_calls") is not False,
            "previous_response_id": self.previous_id,
            "reasoning": document.get("reasoning") or {"effort": None, "summary": None},
            "store": self.store,
            "temperature": document.get("temperature"),
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            "tool_choice": document.get("tool_choice") or "auto",
            "tools": document.get("tools") or [],
            "top_logprobs": self.fields.top_logprobs or 0,
            "top_p": document.get("top_p"),
            "truncation": "disabled",
            "user": document.get("user"),
        }


class Responses(ResponseAnswer):
    """One request to `/v1/responses`, and its answer."""

    def __init__(
        self, request: Request, earlier: Iterable[dict[str, Any]], request_id: str, created_s: int
    ) -> None:
        """Translate a body.

        Args:
            request: The body, read.
            earlier: The items of the conversation so far.
            request_id: Of the request; the response's id is made of it.
            created_s: Now, in Unix seconds.

        Raises:
            GatewayError: An item or a tool has no counterpart; it is named.
        """
        self.request = request
        self.background = request.background
        self.chat = request.chat(earlier)
        super().__init__(request.shown(), request_id, created_s)


def _items(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The input as items in their full form, each with an id."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not given:
        raise GatewayError("invalid_request", "The request has no input.", param="input")
    return [_item(item) for item in given]


def _item(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if kind not in _PREFIXES:
        raise unsupported(f"An input item of type {kind!r}", "input")
    full = {"id": ids.new_id(_PREFIXES[kind]), **item, "type": kind}
    if kind == "message" and isinstance(item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        full["content"] = [{"type": part, "text": item["content"]}]
    if kind != "reasoning":
        full.setdefault("status", "completed")
    return full


def _options(fields: _Request) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if fields.max_output_tokens is not None:
        options["max_tokens"] = fields.max_output_tokens
    if fields.reasoning is not None and fields.reasoning.effort:
        options["reasoning_effort"] = fields.reasoning.effort
    if fields.top_logprobs or "message.output_text.logprobs" in (fields.include or ()):
        options |= {"logprobs": True, "top_logprobs": fields.top_logprobs or 0}
    if fields.text is not None:
        options |= _text(fields.text)
    if fields.tools:
        options |= _tools(fields.tools, fields.tool_choice)
    return options


def _text(text: _Text) -> dict[str, Any]:
    options: dict[str, Any] = {"verbosity": text.verbosity} if text.verbosity else {}
    form = text.format
    if form is None or form.type == "text":
        return options
    if form.type == "json_object":
        return options | {"response_format": {"type": "json_object"}}
    schema: dict[str, Any] = {"name": form.name, "schema": form.schema or {}}
    if form.strict is not None:
        schema["strict"] = form.strict
    if form.description is not None:
        schema["description"] = form.description
    return options | {"response_format": {"type": "json_schema", "json_schema": schema}}


def _tools(tools: list[_Tool], choice: str | _ToolChoice | None) -> dict[str, Any]:
    for tool in tools:
        if tool.type != "function":
            raise unsupported(f"The tool {tool.type!r}", "tools")
    if isinstance(choice, _ToolChoice):
        if choice.type == "allowed_tools":
            # Chat servers do not know the list, but what is not offered cannot be chosen.
            allowed = {tool.name for tool in choice.tools}
            tools = [tool for tool in tools if tool.name in allowed]
            return {"tools": [_tool(tool) for tool in tools], "tool_choice": choice.mode}
        if choice.type != "function":
            raise unsupported(f"The tool choice {choice.type!r}", "tool_choice")
    found: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, _ToolChoice):
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice is not None:
        found["tool_choice"] = choice
    return found


def _tool(tool: _Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
