"""Reads OpenAI's chat requests and writes OpenAI's chat answers, for adapters of other forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from core.kernel import clock, ids
from gateway.body import Parsed
from gateway.errors import GatewayError

# What would change the answer and cannot be translated; other unknown fields are left out.
_REFUSED = ("logprobs", "logit_bias", "audio", "functions", "function_call")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message: a text, or a file given inline (base64) or by URL.

    `cache` is Anthropic's `cache_control`, which callers may set on any part.
    """

    text: str = ""
    mime_type: str = ""
    base64: str = ""
    url: str = ""
    cache: Any = None


def document(body: Parsed, kind: str) -> dict[str, Any]:
    """The request's document, with messages that are a list of objects.

    Raises:
        GatewayError: The messages are none, or a field asks for what `kind` cannot do.
    """
    found: dict[str, Any] = msgspec.json.decode(body.raw)
    messages = found.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise _invalid("'messages' must be a list of objects.", "messages")
    asked = [name for name in _REFUSED if found.get(name)]
    if asked:
        raise GatewayError("capability", f"{kind} has no {asked[0]!r}.", param=asked[0])
    if found.get("n") not in (None, 1):
        raise GatewayError("capability", f"{kind} gives one choice an answer.", param="n")
    return found


def parts(message: dict[str, Any]) -> Iterator[Part]:
    """The parts of a message; empty texts, which providers refuse, are left out."""
    content = message.get("content")
    if content is None:
        return
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _invalid("'content' must be a text or a list of parts.", "messages")
    for each in content:
        part = _part(each)
        if part.text or part.base64 or part.url:
            yield part


def _part(part: Any) -> Part:
    try:
        match part:
            case {"type": "text" | "refusal" as kind}:
                return Part(text=str(part[kind]), cache=part.get("cache_control"))
            case {"type": "image_url"}:
                return _file(part["image_url"]["url"])
            case {"type": "file"}:
                return _file(part["file"]["file_data"])
            case {"type": "input_audio"}:
                audio = part["input_audio"]
                return Part(mime_type=f"audio/{audio['format']}", base64=audio["data"])
    except (KeyError, TypeError):
        raise _invalid(f"A part of type {part['type']!r} is not whole.", "messages") from None
    kind = part.get("type") if isinstance(part, dict) else part
    raise GatewayError(
        "capability", f"A part of type {kind!r} is not understood.", param="messages"
    )


def _file(url: str) -> Part:
    head, is_inline, data = url.partition(";base64,")
    if is_inline and head.startswith("data:"):
        return Part(mime_type=head[5:].partition(";")[0], base64=data)
    return Part(url=url)


def text(message: dict[str, Any]) -> str:
    """All text of a message."""
    return "".join(part.text for part in parts(message))


def system(messages: list[dict[str, Any]]) -> list[Part]:
    """The parts of the instructions; providers take them apart from the messages."""
    return [
        part
        for message in messages
        if message.get("role") in ("system", "developer")
        for part in parts(message)
    ]


def turns(messages: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each message that is no instruction, with its role: user, assistant or tool."""
    for message in messages:
        role = message.get("role")
        if role in ("user", "assistant", "tool"):
            yield role, message
        elif role not in ("system", "developer"):
            raise _invalid(f"There is no role {role!r}.", "messages")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the assistant; `extra` is what a provider wants back with it."""

    id: str
    name: str
    arguments: dict[str, Any]
    extra: dict[str, Any]


def calls(message: dict[str, Any]) -> list[Call]:
    """The tool calls of a message. Raises GatewayError: their arguments are no JSON object."""
    found = message.get("tool_calls") or []
    try:
        return [
            Call(
                each["id"],
                each["function"]["name"],
                msgspec.json.decode(each["function"]["arguments"] or "{}", type=dict[str, Any]),
                each.get("extra_content") or {},
            )
            for each in found
        ]
    except (KeyError, TypeError, AttributeError, msgspec.DecodeError):
        raise _invalid("A tool call's arguments are not a JSON object.", "messages") from None


def tools(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions that may be called: name, description, parameters (a JSON schema)."""
    found = document.get("tools") or []
    if not all(isinstance(each, dict) and isinstance(each.get("function"), dict) for each in found):
        raise GatewayError(
            "capability", "Only tools of type 'function' are understood.", param="tools"
        )
    return [each["function"] for each in found]


def tool_choice(document: dict[str, Any]) -> tuple[str, str]:
    """How tools are chosen: "auto", "none", "required" or "function", with the function's name."""
    choice = document.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        return "function", str((choice.get("function") or {}).get("name", ""))
    return str(choice), ""


def max_tokens(document: dict[str, Any]) -> int | None:
    """The longest answer in tokens, by either of its names."""
    found: int | None = document.get("max_completion_tokens") or document.get("max_tokens")
    return found


def stops(document: dict[str, Any]) -> list[str]:
    """The texts that end an answer."""
    stop = document.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def json_schema(document: dict[str, Any]) -> dict[str, Any] | None:
    """The schema that the answer must have; {} for any JSON, None for none."""
    wanted = document.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema: dict[str, Any] = (wanted.get("json_schema") or {}).get("schema") or {}
        return schema
    return {} if wanted.get("type") == "json_object" else None


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def usage(
    input_tokens: int,
    output_tokens: int,
    *,
    cached_tokens: int | None = None,
    reasoning_tokens: int | None = None,
) -> dict[str, Any]:
    """OpenAI's usage: input with what was cached, output with what was thought."""
    found: dict[str, Any] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    if cached_tokens is not None:
        found["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    if reasoning_tokens is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return found


def tool_call(call_id: str, name: str, arguments: Any, **extra: Any) -> dict[str, Any]:
    """A tool call as a whole answer has it."""
    encoded = msgspec.json.encode(arguments).decode()
    function = {"name": name, "arguments": encoded}
    return {"id": call_id, "type": "function", "function": function, **extra}


def completion(
    *,
    content: str,
    reasoning: str,
    tool_calls: list[dict[str, Any]],
    finish_reason: str,
    usage: dict[str, Any],
    answer_id: str = "",
) -> bytes:
    """A whole chat answer as JSON; the thinking is in `reasoning_content`, as at DeepSeek."""
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    message |= given(tool_calls=tool_calls, reasoning_content=reasoning or None)
    if not tool_calls:
        message["content"] = content
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    return msgspec.json.encode(
        {
            "id": answer_id or ids.new_id("chatcmpl"),
            "object": "chat.completion",
            "created": int(clock.unix_s()),
            "model": "",
            "choices": [choice],
            "usage": usage,
        }
    )


def no_answer(kind: str) -> GatewayError:
    """The error for an answer that is not of the provider's form."""
    return GatewayError("upstream_error", f"{kind} answered with what is no answer.")


def _invalid(message: str, param: str) -> GatewayError:
    return GatewayError("invalid_request", message, param=param)
