"""Providers' forms, both ways: requests, answers, streams, usage and errors, without a server.

The samples are written from the providers' documentation (`tests.doubles.provider_chat` and the
comments here name the pages, November 2026), not recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.contracts.route_table import Hosted
from gateway import providers
from gateway.body import parse
from gateway.errors import GatewayError
from gateway.providers import Provider, TranslatedStream, openai_compatible
from tests.doubles.provider_chat import (
    ARGUMENTS,
    SAMPLES,
    TEXT,
    TOOL,
    USAGE,
    event,
    frame,
    sse,
)

CHAT = "/v1/chat/completions"
TOO_LONG = (400, "context_length_exceeded")
OVERLOADED = (503, "provider_overloaded")
PIXEL = "iVBORw0KGgo="
API_KEY = {"api_key": "sk-1"}
AWS_KEYS = {"access_key_id": "AKID", "secret_access_key": "s"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Where is this, and how warm?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": TOOL, "arguments": '{"city":"Paris"}'},
                "extra_content": {"google": {"thought_signature": "EqQ"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius":21}'},
    {"role": "user", "content": "And tomorrow?"},
]
REQUEST: dict[str, Any] = {
    "model": "ours",
    "messages": CONVERSATION,
    "max_completion_tokens": 100,
    "temperature": 1.5,
    "stop": "END",
    "tools": [{"type": "function", "function": {"name": TOOL, "parameters": SCHEMA}}],
    "tool_choice": "required",
}


def made(kind: str, model: str = "theirs", **options: str) -> Provider:
    hosted = Hosted(kind=kind, model=model, account_id="prv_1", options=options)
    credentials = msgspec.json.encode(AWS_KEYS if kind == "bedrock" else API_KEY).decode()
    return providers.make("https://host.example/base", hosted, credentials)


def asked(kind: str, path: str = CHAT, **fields: Any) -> tuple[str, dict[str, str], Any]:
    """Path, headers and document of the provider's request."""
    raw = msgspec.json.encode({**REQUEST, **fields})
    outgoing = made(kind, region="eu-west-1", project="p").request(
        path, parse(raw, can_stream=True)
    )
    return outgoing.path, dict(outgoing.headers), msgspec.json.decode(outgoing.body)


def streamed(provider: Provider, content: bytes, step: int) -> tuple[TranslatedStream, list[Any]]:
    """The stream after all of `content` in pieces of `step` bytes, and its chunks."""
    events = TranslatedStream(provider.stream(), keep_usage=True, model=b'"ours"')
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    said = b"".join([events.feed(piece) for piece in pieces])
    if not events.is_whole:
        said += events.end()
    lines = [line[6:] for line in said.split(b"\n\n") if line.startswith(b"data: ")]
    return events, [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]


def assembled(chunks: list[Any]) -> dict[str, Any]:
    """The message that chunks make."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "finish": None}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        delta = choice["delta"]
        message["content"] += delta.get("content") or ""
        message["reasoning_content"] += delta.get("reasoning_content") or ""
        message["finish"] = choice["finish_reason"] or message["finish"]
        for call in delta.get("tool_calls", []):
            known = message["calls"].setdefault(call["index"], {"arguments": ""})
            known |= {name: call[name] for name in ("id",) if name in call}
            function = call["function"]
            known |= {"name": function["name"]} if "name" in function else {}
            known["arguments"] += function["arguments"]
    return message


def counted(usage: dict[str, Any]) -> tuple[int, int, int]:
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"], cached


# -- answers


@pytest.mark.parametrize("kind", SAMPLES)
def test_whole_answer(kind: str) -> None:
    document = msgspec.json.decode(made(kind).answer(SAMPLES[kind].whole))
    (choice,) = document["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] == TEXT
    assert choice["message"].get("reasoning_content", "") == "Hm." * SAMPLES[kind].thinks
    assert (call["id"], call["function"]["name"]) == ("call_1", TOOL)
    assert msgspec.json.decode(call["function"]["arguments"]) == ARGUMENTS
    assert choice["finish_reason"] == "tool_calls"
    assert counted(document["usage"]) == USAGE


@pytest.mark.parametrize("step", [1, 37, 100_000])
@pytest.mark.parametrize("kind", SAMPLES)
def test_stream_however_it_is_cut(kind: str, step: int) -> None:
    events, chunks = streamed(made(kind), SAMPLES[kind].stream, step)
    message = assembled(chunks)
    assert message["content"] == TEXT
    assert message["reasoning_content"] == "Hm." * SAMPLES[kind].thinks
    (call,) = message["calls"].values()
    assert (call["id"], call["name"]) == ("call_1", TOOL)
    assert msgspec.json.decode(call["arguments"]) == ARGUMENTS
    assert message["finish"] == "tool_calls"
    assert all(chunk["choices"] for chunk in chunks[:-1])
    assert counted(chunks[-1]["usage"]) == USAGE
    assert events.done
    assert events.usage is not None
    assert (events.usage.prompt_tokens, events.usage.cached_tokens) == (25, 5)


@pytest.mark.parametrize("kind", SAMPLES)
def test_stream_that_breaks_off_has_no_end(kind: str) -> None:
    whole = SAMPLES[kind].stream
    events, _ = streamed(made(kind), whole[: len(whole) // 2], 50)
    assert not events.is_whole
    assert events.end() == b""


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"choices":1,"content":3}'])
def test_answer_that_is_none(kind: str, content: bytes) -> None:
    provider = made(kind)
    if isinstance(provider, openai_compatible.OpenAICompatible) and content.startswith(b"{"):
        assert provider.answer(content) == content  # what is JSON goes through
        return
    with pytest.raises(GatewayError) as refused:
        provider.answer(content)
    assert refused.value.status == 502


def test_gemini_blocks_a_prompt() -> None:
    # https://ai.google.dev/api/generate-content#PromptFeedback
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}
    with pytest.raises(GatewayError, match="SAFETY"):
        made("gemini").answer(msgspec.json.encode(blocked))
    events, _ = streamed(made("gemini"), sse(blocked), 100)
    assert events.failure is not None
    assert (events.failure.status, events.failure.code) == (400, "content_filter")


# -- requests


def test_anthropic_request() -> None:
    # https://platform.claude.com/docs/en/api/messages
    path, headers, document = asked("anthropic", stream=True, parallel_tool_calls=False, top_k=4)
    assert path == "/base/messages"
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-1", "2023-06-01")
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    result = {"type": "text", "text": '{"celsius":21}'}
    assert document == {
        "model": "theirs",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief."}],
        "temperature": 1.0,
        "top_k": 4,
        "stop_sequences": ["END"],
        "stream": True,
        "tools": [{"name": TOOL, "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this, and how warm?"},
                    {"type": "image", "source": source},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": TOOL, "input": ARGUMENTS}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [result]},
                    {"type": "text", "text": "And tomorrow?"},
                ],
            },
        ],
    }


def test_bedrock_request() -> None:
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    path, headers, document = asked("bedrock")
    assert path == "/base/model/theirs/converse"
    assert asked("bedrock", stream=True)[0] == "/base/model/theirs/converse-stream"
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-west-1/bedrock/aws4_request" in headers["Authorization"]
    image = {"image": {"format": "png", "source": {"bytes": PIXEL}}}
    result = {"toolUseId": "call_1", "content": [{"text": '{"celsius":21}'}]}
    use = {"toolUseId": "call_1", "name": TOOL, "input": ARGUMENTS}
    spec = {"name": TOOL, "inputSchema": {"json": SCHEMA}}
    assert document == {
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 100, "temperature": 1.5, "stopSequences": ["END"]},
        "toolConfig": {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}},
        "messages": [
            {"role": "user", "content": [{"text": "Where is this, and how warm?"}, image]},
            {"role": "assistant", "content": [{"toolUse": use}]},
            {"role": "user", "content": [{"toolResult": result}, {"text": "And tomorrow?"}]},
        ],
    }


def test_gemini_request() -> None:
    # https://ai.google.dev/api/generate-content and /gemini-api/docs/thought-signatures
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    path, headers, document = asked("gemini", response_format=form)
    assert path == "/base/models/theirs:generateContent"
    assert headers["x-goog-api-key"] == "sk-1"
    assert document == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "maxOutputTokens": 100,
            "temperature": 1.5,
            "stopSequences": ["END"],
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        },
        "tools": [{"functionDeclarations": [{"name": TOOL, "parametersJsonSchema": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Where is this, and how warm?"},
                    {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": {"name": TOOL, "args": ARGUMENTS},
                        "thoughtSignature": "EqQ",
                    }
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": TOOL, "response": {"celsius": 21}}},
                    {"text": "And tomorrow?"},
                ],
            },
        ],
    }
    assert asked("gemini", stream=True)[0].endswith(":streamGenerateContent?alt=sse")
    vertex_path = asked("vertex")[0]
    where = "/base/v1/projects/p/locations/eu-west-1/publishers/google/models/theirs"
    assert vertex_path == f"{where}:generateContent"


@pytest.mark.parametrize(
    ("kind", "sent", "there"),
    [
        ("openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("mistral", {"max_completion_tokens": 5, "seed": 1}, {"max_tokens": 5, "random_seed": 1}),
        ("mistral", {"user": "u", "min_p": 0.1}, {"min_p": 0.1}),
        ("perplexity", {"stream_options": {"include_usage": True}, "stream": True}, {"stream": 1}),
        ("groq", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ("mistral", {"stream": True}, {"stream": True}),
        ("vllm", {"max_tokens": 5, "unknown": [1]}, {"max_tokens": 5, "unknown": [1]}),
    ],
)
def test_table_of_quirks(kind: str, sent: dict[str, Any], there: dict[str, Any]) -> None:
    raw = msgspec.json.encode({"model": "ours", "messages": [], **sent})
    outgoing = made(kind).request(CHAT, parse(raw, can_stream=True))
    assert outgoing.path == "/base/chat/completions"
    assert outgoing.headers["Authorization"] == "Bearer sk-1"
    document = msgspec.json.decode(outgoing.body)
    assert document == {"model": "theirs", "messages": [], **there}


def test_azure_has_the_deployment_in_its_path() -> None:
    # https://learn.microsoft.com/azure/ai-foundry/openai/reference
    path, headers, _ = asked("azure_openai")
    expected = "/base/openai/deployments/theirs/chat/completions?api-version=2024-10-21"
    assert (path, headers["api-key"]) == (expected, "sk-1")
    hosted = Hosted(kind="azure_openai", model="d", account_id="a")
    newer = providers.make("https://r.openai.azure.com/openai/v1", hosted, '{"api_key":"k"}')
    body = parse(b'{"model":"m","messages":[]}', can_stream=True)
    assert newer.request(CHAT, body).path == "/openai/v1/chat/completions"


@pytest.mark.parametrize("kind", ["anthropic", "bedrock", "gemini"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages"),
        ({"tools": [{"type": "custom"}]}, "tools"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
                ]
            },
            "messages",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(
    kind: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(GatewayError) as refused:
        asked(kind, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_other_endpoints_are_refused_where_there_are_none() -> None:
    with pytest.raises(GatewayError, match="chat/completions only"):
        asked("anthropic", "/v1/embeddings")
    assert asked("together", "/v1/embeddings")[0] == "/base/embeddings"


# -- errors


def _anthropic_error(kind: str, message: str = "no") -> bytes:
    error = {"type": kind, "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": "req_1"})


def _google_error(code: int, status: str, message: str = "no", **detail: Any) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": [detail]}
    return msgspec.json.encode({"error": error})


def _openai_error(message: str = "no", **fields: Any) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "t", **fields}})


@pytest.mark.parametrize(
    ("kind", "status", "content", "expected"),
    [
        # https://platform.openai.com/docs/guides/error-codes
        ("openai", 429, _openai_error(code="insufficient_quota"), (429, "insufficient_quota")),
        ("openai", 429, _openai_error(), (429, "rate_limit_exceeded")),
        ("openai", 401, _openai_error("Incorrect API key: sk-1"), (502, "provider_credentials")),
        ("openai", 400, _openai_error(code="context_length_exceeded"), TOO_LONG),
        ("openai", 404, _openai_error(code="model_not_found"), (502, "provider_model")),
        # https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
        ("azure_openai", 400, _openai_error(code="content_filter"), (400, "content_filter")),
        # https://docs.mistral.ai/api/
        (
            "mistral",
            422,
            b'{"object":"error","message":{"detail":[{"loc":["body"]}]}}',
            (400, None),
        ),
        # https://api-docs.deepseek.com/quick_start/error_codes
        ("deepseek", 402, _openai_error("Insufficient Balance"), (429, "insufficient_quota")),
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        (
            "vllm",
            400,
            b'{"object":"error","message":"This model\'s maximum context length is 9","code":400}',
            TOO_LONG,
        ),
        # As llama.cpp's server answered, run live.
        (
            "llama_cpp",
            400,
            _openai_error("request (9 tokens) exceeds the available context size", code=400),
            TOO_LONG,
        ),
        ("vllm", 400, _openai_error(code=400), (400, None)),
        ("tgi", 503, b'{"error":"Model is overloaded","error_type":"overloaded"}', OVERLOADED),
        # https://platform.claude.com/docs/en/api/errors
        ("anthropic", 429, _anthropic_error("rate_limit_error"), (429, "rate_limit_exceeded")),
        ("anthropic", 529, _anthropic_error("overloaded_error"), OVERLOADED),
        ("anthropic", 401, _anthropic_error("authentication_error"), (502, "provider_credentials")),
        (
            "anthropic",
            400,
            _anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            TOO_LONG,
        ),
        (
            "anthropic",
            400,
            _anthropic_error("invalid_request_error", "Your credit balance is too low"),
            (429, "insufficient_quota"),
        ),
        ("anthropic", 400, _anthropic_error("invalid_request_error"), (400, None)),
        ("anthropic", 500, b"<html>", (500, "replica_error")),
        # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#errors
        ("bedrock", 429, b'{"message":"Too many requests"}', (429, "rate_limit_exceeded")),
        ("bedrock", 403, b'{"message":"arn:aws:iam"}', (502, "provider_credentials")),
        (
            "bedrock",
            400,
            b'{"message":"Input is too long for requested model."}',
            TOO_LONG,
        ),
        ("bedrock", 424, b'{"message":"no"}', (502, "replica_error")),
        # https://ai.google.dev/gemini-api/docs/troubleshooting
        ("gemini", 429, _google_error(429, "RESOURCE_EXHAUSTED"), (429, "rate_limit_exceeded")),
        (
            "gemini",
            400,
            _google_error(400, "INVALID_ARGUMENT", reason="API_KEY_INVALID"),
            (502, "provider_credentials"),
        ),
        (
            "gemini",
            400,
            _google_error(
                400,
                "INVALID_ARGUMENT",
                "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            ),
            TOO_LONG,
        ),
        ("vertex", 503, b"[" + _google_error(503, "UNAVAILABLE") + b"]", OVERLOADED),
    ],
)
def test_errors(kind: str, status: int, content: bytes, expected: tuple[int, str | None]) -> None:
    error = made(kind).error(status, content, "ours")
    assert (error.status, error.code) == expected
    assert "sk-1" not in error.message
    assert "arn:" not in error.message


def test_retry_after_of_the_header_and_of_googles_details() -> None:
    assert made("anthropic").error(429, b"", "ours", retry_after_s=7).retry_after_s == 7
    told = _google_error(429, "RESOURCE_EXHAUSTED", retryDelay="37.5s")
    assert made("gemini").error(429, told, "ours").retry_after_s == 38


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        # https://platform.claude.com/docs/en/build-with-claude/streaming#error-events
        ("anthropic", sse({"type": "error", "error": {"type": "overloaded_error"}}), 503),
        (
            "bedrock",
            frame(
                {":message-type": "exception", ":exception-type": "throttlingException"},
                {"message": "Too many requests"},
            ),
            429,
        ),
        ("bedrock", event("contentBlockStart", {}), 502),
        ("gemini", sse({"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}), 503),
        ("gemini", b"data: {\n\n", 502),
        # https://openrouter.ai/docs/api-reference/streaming#handling-errors-during-streaming
        (
            "openrouter",
            sse(
                {
                    "id": "gen-1",
                    "error": {"code": 429, "message": "no"},
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                }
            ),
            429,
        ),
    ],
)
def test_errors_inside_a_stream(kind: str, content: bytes, status: int) -> None:
    events, _ = streamed(made(kind), content, 10_000)
    assert events.error is not None
    assert events.failure is not None
    assert events.failure.status == status


def test_an_error_in_an_answer_with_status_200() -> None:
    # https://openrouter.ai/docs/api-reference/errors
    content = b'{"error":{"code":502,"message":"Provider returned error"}}'
    with pytest.raises(GatewayError, match="Provider returned error"):
        made("openrouter").answer(content)
