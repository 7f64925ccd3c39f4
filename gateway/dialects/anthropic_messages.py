"""Anthropic's `/v1/messages`: what the caller sends, as an OpenAI chat body.

Source of the format: https://platform.claude.com/docs/en/api/messages and
…/api/messages-count-tokens, and the types of the official Python client, `anthropic` 2.14.0
(29 November 2026).

What has no counterpart in OpenAI chat is refused by name when the answer would miss something for
it (server tools, the Files API, MCP servers), and left out when it only tunes Anthropic's own
service (`cache_control`, `service_tier` …). Fields that Anthropic does not have are passed on:
the replica may know them (`min_p`, `chat_template_kwargs` …).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec

from gateway.body import Parsed
from gateway.dialects import chat
from gateway.dialects.anthropic_answers import MessageAnswer
from gateway.dialects.chat import unsupported
from gateway.errors import GatewayError

_SAME = ("temperature", "top_p", "top_k", "thinking")
_IGNORED = frozenset(
    {
        *("cache_control", "container", "context_management", "diagnostics", "inference_geo"),
        *("service_tier", "speed", "user_profile_id", "workspace_id", "betas"),
    }
)
_EFFORTS = {"max": "xhigh"}
_BETWEEN = "\n\n"


class _Source(msgspec.Struct):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    content: str | list[_Text | _Image] = ""


class _Text(msgspec.Struct, tag="text"):
    text: str


class _Image(msgspec.Struct, tag="image"):
    source: _Source


class _Document(msgspec.Struct, tag="document"):
    source: _Source
    title: str | None = None
    context: str | None = None


class _SearchResult(msgspec.Struct, tag="search_result"):
    title: str
    source: str
    content: list[_Text]


class _Thinking(msgspec.Struct, tag="thinking"):
    thinking: str = ""


class _RedactedThinking(msgspec.Struct, tag="redacted_thinking"):
    data: str = ""


class _ToolUse(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(msgspec.Struct, tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text | _Image | _Document | _SearchResult] | None = None


_Shown = _Text | _Image | _Document | _SearchResult
_Block = (
    _Text | _Image | _Document | _SearchResult | _Thinking | _RedactedThinking
    | _ToolUse | _ToolResult
)  # fmt: skip


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None
    type: str | None = None


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Format(msgspec.Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Request(msgspec.Struct):
    """A body; the fields in `_SAME` are checked by the replica, which knows their limits."""

    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    system: str | list[_Text] = ""
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: _Metadata | None = None
    output_config: _OutputConfig | None = None
    mcp_servers: list[Any] | None = None


_KNOWN = frozenset(_Request.__struct_fields__)


class Messages(MessageAnswer):
    """One request to `/v1/messages`, and its answer."""

    def __init__(self, raw: bytes, request_id: str) -> None:
        """Translate a body.

        Args:
            raw: As the caller sent it.
            request_id: Of the request; the message's id is made of it.

        Raises:
            GatewayError: It is not valid, or asks for what has no counterpart.
        """
        document = chat.document(raw)
        request = chat.converted(document, _Request)
        if request.max_tokens is None:
            raise GatewayError("invalid_request", "max_tokens: Field required.", param="max_tokens")
        self.chat = _chat(document, request)
        super().__init__(request.model, request_id, request.stop_sequences or [])


def to_count(raw: bytes) -> Parsed:
    """The chat body whose prompt `/v1/messages/count_tokens` counts. Raises GatewayError."""
    document = chat.document(raw)
    return _chat({**document, "stream": False}, chat.converted(document, _Request))


def _chat(document: dict[str, Any], request: _Request) -> Parsed:
    if not request.model:
        raise GatewayError(
            "invalid_request",
            "The request names no model. List yours with GET /v1/models.",
            param="model",
        )
    if request.mcp_servers:
        raise unsupported("The MCP connector", "mcp_servers")
    passed_on = {
        name: value
        for name, value in document.items()
        if name in _SAME or (name not in _KNOWN and name not in _IGNORED)
    }
    body: dict[str, Any] = {
        **passed_on,
        "model": request.model,
        "messages": [*_system(request.system), *_messages(request.messages)],
        **_options(request),
    }
    return chat.parsed(body, stream=bool(document.get("stream")))


def _options(request: _Request) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if request.max_tokens is not None:
        options["max_tokens"] = request.max_tokens
    if request.stop_sequences:
        options["stop"] = request.stop_sequences
    if request.tools:
        options["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None and request.tools:
        options |= _tool_choice(request.tool_choice)
    if request.metadata is not None and request.metadata.user_id:
        options["user"] = request.metadata.user_id
    if request.output_config is not None:
        options |= _output(request.output_config)
    return options


def _tool(tool: _Tool) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(f"The tool {tool.name!r} of type {tool.type!r}", "tools")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: _ToolChoice) -> dict[str, Any]:
    named = {"type": "function", "function": {"name": choice.name}}
    kinds: dict[str, Any] = {"auto": "auto", "any": "required", "none": "none", "tool": named}
    chosen: dict[str, Any] = {"tool_choice": kinds[choice.type]}
    if choice.disable_parallel_tool_use:
        chosen["parallel_tool_calls"] = False
    return chosen


def _output(config: _OutputConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if config.effort:
        options["reasoning_effort"] = _EFFORTS.get(config.effort, config.effort)
    if config.format is not None:
        schema = {"name": "output", "schema": config.format.schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return options


# -- messages


def _system(system: str | list[_Text]) -> Iterator[dict[str, Any]]:
    text = system if isinstance(system, str) else _BETWEEN.join(block.text for block in system)
    if text:
        yield {"role": "system", "content": text}


def _messages(messages: Iterable[_Message]) -> Iterator[dict[str, Any]]:
    # Turns of one role that follow each other are one turn, as Anthropic documents it.
    for role, turns in groupby(messages, key=lambda message: message.role):
        blocks = [block for turn in turns for block in _blocks(turn.content)]
        if role == "assistant":
            yield _assistant(blocks)
        elif role == "user":
            yield from _user(blocks)
        else:
            yield from _system([block for block in blocks if isinstance(block, _Text)])


def _blocks(content: str | list[_Block]) -> list[_Block]:
    return [_Text(content)] if isinstance(content, str) else content


def _assistant(blocks: Iterable[_Block]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, _Text):
            texts.append(block.text)
        elif isinstance(block, _Thinking):
            thoughts.append(block.thinking)
        elif isinstance(block, _ToolUse):
            arguments = chat.encode(block.input).decode()
            function = {"name": block.name, "arguments": arguments}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif not isinstance(block, _RedactedThinking):
            kind = str(block.__struct_config__.tag)
            raise unsupported(f"A block of type {kind!r} in an assistant's turn", "messages")
    said: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        said["reasoning_content"] = "".join(thoughts)
    if calls:
        said |= {"content": said["content"] or None, "tool_calls": calls}
    return said


def _user(blocks: Iterable[_Block]) -> Iterator[dict[str, Any]]:
    """Tool results first: they must follow the call; what they show beside text comes after."""
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, _ToolResult):
            content = block.content or ""
            shown = [_Text(content)] if isinstance(content, str) else content
            result = [part for each in shown for part in _parts(each)]
            texts = [part["text"] for part in result if part["type"] == "text"]
            parts += [part for part in result if part["type"] != "text"]
            answered = {"role": "tool", "tool_call_id": block.tool_use_id}
            yield {**answered, "content": _BETWEEN.join(texts)}
        elif isinstance(block, _Text | _Image | _Document | _SearchResult):
            parts += _parts(block)
        else:
            kind = str(block.__struct_config__.tag)
            raise unsupported(f"A block of type {kind!r} in a user's turn", "messages")
    if parts:
        yield {"role": "user", "content": _joined(parts)}


def _joined(parts: Sequence[dict[str, Any]]) -> str | Sequence[dict[str, Any]]:
    """Text alone as a string, which every chat template takes."""
    if all(part["type"] == "text" for part in parts):
        return _BETWEEN.join(part["text"] for part in parts)
    return parts


def _parts(block: _Shown) -> list[dict[str, Any]]:
    if isinstance(block, _Text):
        return [_text(block.text)]
    if isinstance(block, _Image):
        return [{"type": "image_url", "image_url": {"url": _url(block.source, "image")}}]
    if isinstance(block, _SearchResult):
        found = [block.title, block.source, *(text.text for text in block.content)]
        return [_text("\n".join(found))]
    return [*(_text(said) for said in (block.title, block.context) if said), *_file(block)]


def _file(block: _Document) -> list[dict[str, Any]]:
    source = block.source
    if source.type == "text":
        return [_text(source.data)]
    if source.type == "content":
        content = source.content
        shown = [_Text(content)] if isinstance(content, str) else content
        return [part for each in shown for part in _parts(each)]
    if source.type == "base64":
        file = {"filename": block.title or "document.pdf", "file_data": _url(source, "document")}
        return [{"type": "file", "file": file}]
    raise unsupported(f"A document by {source.type!r}", "messages")


def _url(source: _Source, what: str) -> str:
    if source.type == "base64":
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url":
        return source.url
    raise unsupported(f"The source {source.type!r} of an {what}", "messages")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
