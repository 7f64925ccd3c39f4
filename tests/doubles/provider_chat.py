"""Doubles of hosted providers' chat interfaces: one answer, in each provider's wire format.

All of them say the same: " I look." after a thought where the format has thoughts, a call of
`get_weather` for Paris, 25 tokens in of which 5 from the cache, 12 tokens out. The forms are those
of the providers' public documentation as it stood in November 2026; each names its page. None was
recorded from a live service.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-right-7f3a9c"
TEXT = "I look."
TOOL, ARGUMENTS = "get_weather", {"city": "Paris"}
USAGE = (25, 12, 5)
SERVICE_ACCOUNT = "bud@project.iam.gserviceaccount.com"


def sse(*documents: Any, named: bool = False, done: bool = False) -> bytes:
    """Server-sent events; `named` gives each the name of its type, as Anthropic does."""
    lines = [
        (f"event: {each['type']}\n" if named else "") + f"data: {json.dumps(each)}\n\n"
        for each in documents
    ]
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def frame(headers: dict[str, str], payload: Any) -> bytes:
    """One message of AWS's event stream (https://smithy.io/2.0/aws/amazon-eventstream.html)."""
    packed = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value))
        + value.encode()
        for name, value in headers.items()
    )  # fmt: skip
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(packed) + len(body), len(packed))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + body
    return head + struct.pack(">I", zlib.crc32(head))


def event(name: str, payload: Any) -> bytes:
    """One of Bedrock's events."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, payload)


# https://platform.openai.com/docs/api-reference/chat/object and /chat/streaming
_CALL = {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}
_OPENAI_USAGE: dict[str, Any] = {
    "prompt_tokens": 25,
    "completion_tokens": 12,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 5},
}
_MESSAGE = {
    "role": "assistant",
    "content": TEXT,
    "tool_calls": [{"id": "call_1", "type": "function", "function": _CALL}],
}
_OPENAI_FRAME = {"id": "chatcmpl-1", "created": 1_760_000_000, "model": "gpt-4o-mini-2024-07-18"}


def _openai_whole(usage: dict[str, Any] = _OPENAI_USAGE) -> bytes:
    choice = {"index": 0, "message": _MESSAGE, "finish_reason": "tool_calls", "logprobs": None}
    document = {**_OPENAI_FRAME, "object": "chat.completion", "choices": [choice]}
    return json.dumps({**document, "usage": usage}).encode()


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**_OPENAI_FRAME, "object": "chat.completion.chunk", "choices": [choice]}


def _openai_stream(usage: dict[str, Any] = _OPENAI_USAGE, first: tuple[Any, ...] = ()) -> bytes:
    start = {"index": 0, "id": "call_1", "type": "function"}
    last = {**_OPENAI_FRAME, "object": "chat.completion.chunk", "choices": []}
    return sse(
        *first,
        _chunk(role="assistant", content=""),
        _chunk(content="I "),
        _chunk(content="look."),
        _chunk(tool_calls=[{**start, "function": {"name": TOOL, "arguments": ""}}]),
        _chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
        _chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Paris"}'}}]),
        _chunk("tool_calls"),
        {**last, "usage": usage},
        done=True,
    )


# https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter#content-streaming
_AZURE_FIRST = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
}

# https://docs.x.ai/docs/key-information/consumption-and-rate-limits: reasoning is counted apart
_XAI_USAGE: dict[str, Any] = {
    "prompt_tokens": 25,
    "completion_tokens": 4,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 8},
}

# https://api-docs.deepseek.com/api/create-chat-completion
_DEEPSEEK_USAGE: dict[str, Any] = {
    "prompt_tokens": 25,
    "completion_tokens": 12,
    "total_tokens": 37,
    "prompt_cache_hit_tokens": 5,
    "prompt_cache_miss_tokens": 20,
}

# https://platform.claude.com/docs/en/api/messages and /build-with-claude/streaming
_ANTHROPIC_USAGE = {
    "input_tokens": 14,
    "cache_creation_input_tokens": 6,
    "cache_read_input_tokens": 5,
    "output_tokens": 12,
}
_ANTHROPIC_MESSAGE = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQ"},
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "id": "call_1", "name": TOOL, "input": ARGUMENTS},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": _ANTHROPIC_USAGE,
}


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    frame = {"index": index}
    return [
        {"type": "content_block_start", **frame, "content_block": block},
        *[{"type": "content_block_delta", **frame, "delta": delta} for delta in deltas],
        {"type": "content_block_stop", **frame},
    ]


_ANTHROPIC_STREAM = sse(
    {
        "type": "message_start",
        "message": {
            **_ANTHROPIC_MESSAGE,
            "content": [],
            "stop_reason": None,
            "usage": {**_ANTHROPIC_USAGE, "output_tokens": 1},
        },
    },
    *_block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm."},
        {"type": "signature_delta", "signature": "EqQ"},
    ),
    {"type": "ping"},
    *_block(
        1,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "I "},
        {"type": "text_delta", "text": "look."},
    ),
    *_block(
        2,
        {"type": "tool_use", "id": "call_1", "name": TOOL, "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"city": '},
        {"type": "input_json_delta", "partial_json": '"Paris"}'},
    ),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 12},
    },
    {"type": "message_stop"},
    named=True,
)

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
_BEDROCK_USAGE = {
    "inputTokens": 14,
    "outputTokens": 12,
    "totalTokens": 37,
    "cacheReadInputTokens": 5,
    "cacheWriteInputTokens": 6,
}
_BEDROCK_WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "EqQ"}}},
                {"text": TEXT},
                {"toolUse": {"toolUseId": "call_1", "name": TOOL, "input": ARGUMENTS}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": _BEDROCK_USAGE,
    "metrics": {"latencyMs": 300},
}

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
_BEDROCK_STREAM = b"".join(
    [
        event("messageStart", {"role": "assistant"}),
        event(
            "contentBlockDelta",
            {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}},
        ),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "I "}}),
        event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "look."}}),
        event("contentBlockStop", {"contentBlockIndex": 1}),
        event(
            "contentBlockStart",
            {
                "contentBlockIndex": 2,
                "start": {"toolUse": {"toolUseId": "call_1", "name": TOOL}},
            },
        ),
        event(
            "contentBlockDelta",
            {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"city": "Paris"}'}}},
        ),
        event("contentBlockStop", {"contentBlockIndex": 2}),
        event("messageStop", {"stopReason": "tool_use"}),
        event("metadata", {"usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 300}}),
    ]
)

# https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse, and /gemini-api/docs/
# thought-signatures
_GEMINI_USAGE = {
    "promptTokenCount": 25,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 8,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 37,
}
_THOUGHT = {"text": "Hm.", "thought": True}
_GEMINI_CALL = {
    "functionCall": {"id": "call_1", "name": TOOL, "args": ARGUMENTS},
    "thoughtSignature": "EqQ",
}


def _gemini(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    ended = {"finishReason": finish} if finish else {}
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **ended}
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", **more}


_GEMINI_WHOLE = _gemini(
    _THOUGHT, {"text": TEXT}, _GEMINI_CALL, finish="STOP", usageMetadata=_GEMINI_USAGE
)
_GEMINI_STREAM = sse(
    _gemini(_THOUGHT, usageMetadata={"promptTokenCount": 25, "totalTokenCount": 25}),
    _gemini({"text": "I "}),
    _gemini({"text": "look."}),
    _gemini(_GEMINI_CALL),
    _gemini({"text": ""}, finish="STOP", usageMetadata=_GEMINI_USAGE),
)


@dataclass(frozen=True)
class Sample:
    """An answer, whole and as a stream; whether the format has thoughts."""

    whole: bytes
    stream: bytes
    thinks: bool = False
    content_type: str = "text/event-stream"


SAMPLES: dict[str, Sample] = {
    "openai": Sample(_openai_whole(), _openai_stream()),
    "azure_openai": Sample(_openai_whole(), _openai_stream(first=(_AZURE_FIRST,))),
    "xai": Sample(_openai_whole(_XAI_USAGE), _openai_stream(_XAI_USAGE)),
    "deepseek": Sample(_openai_whole(_DEEPSEEK_USAGE), _openai_stream(_DEEPSEEK_USAGE)),
    "anthropic": Sample(json.dumps(_ANTHROPIC_MESSAGE).encode(), _ANTHROPIC_STREAM, True),
    "bedrock": Sample(
        json.dumps(_BEDROCK_WHOLE).encode(),
        _BEDROCK_STREAM,
        True,
        "application/vnd.amazon.eventstream",
    ),
    "gemini": Sample(json.dumps(_GEMINI_WHOLE).encode(), _GEMINI_STREAM, True),
    "vertex": Sample(json.dumps(_GEMINI_WHOLE).encode(), _GEMINI_STREAM, True),
}


@dataclass
class Chats:
    """What was asked: kind, path, headers, body; and a status to answer with instead."""

    url: str = ""
    status: int = 200
    tokens: int = 0
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def serving(chats: Chats) -> Iterator[Chats]:
    """Serve on a free port of loopback, each kind below a path of its own; tokens at /token."""

    class Handler(_Handler):
        pass

    Handler.chats = chats
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    chats.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield chats
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chats: Chats

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/token":
            self.chats.tokens += 1
            granted = {"access_token": KEY, "expires_in": 3599, "token_type": "Bearer"}
            self._answer(200, "application/json", json.dumps(granted).encode())
            return
        kind, _, rest = self.path.lstrip("/").partition("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.chats.requests.append((kind, rest, headers, body))
        sample = SAMPLES[kind]
        if self.chats.status != 200:
            refused = {"error": {"message": "no", "type": "rate_limit_error"}, "message": "no"}
            self._answer(self.chats.status, "application/json", json.dumps(refused).encode())
        elif b'"stream":true' in body or "tream" in rest:
            self._answer(200, sample.content_type, sample.stream)
        else:
            self._answer(200, "application/json", sample.whole)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body)
