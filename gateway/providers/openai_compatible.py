"""OpenAI and the servers that speak its dialect: a table of how each differs.

The body is changed at its top level only, and answers go through as they came but for what the
table names, so that fields unknown here reach the other side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.providers.base import Account, Outgoing, Provider, Refusal, translated
from gateway.providers.streams import SseTranslator, Translator

_INT = re.compile(r"\d+")
_decode_shallow = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True)
class Quirks:
    """How a server differs from OpenAI's own interface.

    Attributes:
        source: The page that says so, as it stood in November 2026.
        rename: Fields by another name, in chat requests.
        drop: Fields it refuses, and whose loss does not change what the answer says.
        asks_usage: Whether usage in a stream is asked for by `stream_options`; where not, it comes
            unasked.
        reasoning_apart: `completion_tokens` leaves out the tokens of the reasoning.
    """

    source: str
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    asks_usage: bool = True
    reasoning_apart: bool = False


_OLD_LIMIT = {"max_completion_tokens": "max_tokens"}

SERVERS: dict[str, Quirks] = {
    # Its newer models refuse max_tokens; all of its chat models take the newer name.
    "openai": Quirks(
        "https://platform.openai.com/docs/api-reference/chat/create",
        rename={"max_tokens": "max_completion_tokens"},
    ),
    # It answers 422 to any field it does not know.
    "mistral": Quirks(
        "https://docs.mistral.ai/api/",
        rename={**_OLD_LIMIT, "seed": "random_seed"},
        drop=frozenset({"stream_options", "user", "store", "service_tier", "prompt_cache_key"}),
        asks_usage=False,
    ),
    "groq": Quirks("https://console.groq.com/docs/openai"),
    "together": Quirks("https://docs.together.ai/docs/openai-api-compatibility", rename=_OLD_LIMIT),
    "deepseek": Quirks("https://api-docs.deepseek.com/api/create-chat-completion", _OLD_LIMIT),
    "openrouter": Quirks("https://openrouter.ai/docs/api-reference/overview", rename=_OLD_LIMIT),
    "xai": Quirks("https://docs.x.ai/docs/api-reference", reasoning_apart=True),
    "fireworks": Quirks("https://docs.fireworks.ai/tools-sdks/openai-compatibility", _OLD_LIMIT),
    # Every chunk bears the usage so far.
    "perplexity": Quirks(
        "https://docs.perplexity.ai/api-reference/chat-completions-post",
        rename=_OLD_LIMIT,
        drop=frozenset({"stream_options"}),
        asks_usage=False,
    ),
    "vllm": Quirks("https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"),
    "sglang": Quirks("https://docs.sglang.ai/basic_usage/openai_api_completions.html"),
    "tgi": Quirks(
        "https://huggingface.co/docs/text-generation-inference/messages_api", rename=_OLD_LIMIT
    ),
    "tensorrt_llm": Quirks("https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve.html"),
    "llama_cpp": Quirks("https://github.com/ggml-org/llama.cpp/tree/master/tools/server"),
    "ollama": Quirks("https://docs.ollama.com/api/openai-compatibility", rename=_OLD_LIMIT),
    "openai_compatible": Quirks("https://platform.openai.com/docs/api-reference/chat"),
}


class OpenAICompatible(Provider):
    """One model at a server that speaks OpenAI's dialect."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.quirks = SERVERS.get(account.kind, SERVERS["openai_compatible"])

    def request(self, path: str, body: Parsed) -> Outgoing:
        """The same request below the provider's path, with its name of the model."""
        endpoint = path.removeprefix("/v1")
        return Outgoing(self.account.path + endpoint, self.headers(body), self.body(endpoint, body))

    def headers(self, body: Parsed) -> dict[str, str]:
        """All but Host and Content-Length."""
        key = self.account.credentials.get("api_key", "")
        return json_headers(body) | ({"Authorization": f"Bearer {key}"} if key else {})

    def body(self, endpoint: str, body: Parsed) -> bytes:
        """The body with what the table says; all else is as the caller sent it."""
        quirks = self.quirks
        document: dict[str, Any] = dict(_decode_shallow(body.raw))
        document["model"] = self.account.model
        if body.stream and quirks.asks_usage and not body.wants_usage:
            document["stream_options"] = {**(body.stream_options or {}), "include_usage": True}
        for name in quirks.drop & document.keys():
            del document[name]
        if endpoint == "/chat/completions":
            for name, theirs in quirks.rename.items():
                if name in document:
                    document.setdefault(theirs, document.pop(name))
                    document.pop(name, None)
        return msgspec.json.encode(document)

    def answer(self, content: bytes) -> bytes:
        """The answer as it came, with usage as OpenAI counts it."""
        try:
            document = _decode_shallow(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise GatewayError("upstream_error", "The provider's answer is not JSON.") from None
        if failed := _failure(document, self.account.model):
            raise failed
        usage = self._usage(document.get("usage"))
        return content if usage is None else msgspec.json.encode({**document, "usage": usage})

    def stream(self) -> Translator:
        """Events go through; see `_Events`."""
        return _Events(self)

    def refusal(self, content: bytes) -> Refusal:
        """OpenAI's `error` object, or one of the shapes that go for it."""
        return read_refusal(content)

    def _usage(self, raw: msgspec.Raw | None) -> dict[str, Any] | None:
        """The usage where it must be changed, else None."""
        usage = None if raw is None else msgspec.json.decode(raw)
        if not isinstance(usage, dict):
            return None
        changed = False
        cached = usage.get("prompt_cache_hit_tokens", usage.get("cached_tokens"))
        if cached is not None and not usage.get("prompt_tokens_details"):
            usage["prompt_tokens_details"], changed = {"cached_tokens": cached}, True
        thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        if self.quirks.reasoning_apart and thought:
            usage["completion_tokens"] = (usage.get("completion_tokens") or 0) + thought
            changed = True
        return usage if changed else None


class _Events(SseTranslator):
    """Events as they came, but for usage in another form, errors, and chunks that say nothing."""

    def __init__(self, provider: OpenAICompatible) -> None:
        super().__init__()
        self._provider = provider

    def event(self, name: str, data: bytes) -> bytes:
        """One event."""
        line = b"data: " + data + b"\n\n"
        says_little = b'"choices":[]' in data or b'"choices": []' in data
        if not says_little and b'"usage"' not in data and b'"error"' not in data:
            return line
        try:
            document = _decode_shallow(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return line
        if failed := _failure(document, self._provider.account.model):
            self.failure = failed
            return failed.event()
        usage = document.get("usage")
        if usage is None or bytes(usage) == b"null":
            # Azure begins with the verdict on the prompt; callers read choices[0].
            return b"" if says_little else line
        changed = self._provider._usage(usage)
        if changed is None:
            return line
        return b"data: " + msgspec.json.encode({**document, "usage": changed}) + b"\n\n"


def _failure(document: Mapping[str, Any], model: str) -> GatewayError | None:
    """The error that an answer with status 200 bears, as OpenRouter's may, beside its choices."""
    error = document.get("error")
    if error is None or bytes(error) == b"null":
        return None
    found = read_refusal(msgspec.json.encode({"error": error}))
    status = int(found.code) if found.code and _INT.fullmatch(found.code) else 500
    return translated(status if 400 <= status < 600 else 500, found, model)


def json_headers(body: Parsed) -> dict[str, str]:
    """The headers that every JSON interface gets."""
    return {
        "Content-Type": "application/json",
        "Accept": "text/event-stream" if body.stream else "application/json",
        "Accept-Encoding": "identity",
    }


def read_refusal(content: bytes) -> Refusal:
    """Read `{"error": {"message", "code", "type", "param"}}` and its relatives.

    Mistral and FastAPI give `message` or `detail` at the top, TGI and Ollama a text as `error`.
    """
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal()
    document = document[0] if isinstance(document, list) and document else document
    if not isinstance(document, dict):
        return Refusal()
    error = document.get("error", document)
    if isinstance(error, str):
        return Refusal(error)
    if not isinstance(error, dict):
        return Refusal()
    said = error.get("message") or error.get("detail") or ""
    code = error.get("code") if error.get("code") is not None else None
    param = error.get("param")
    return Refusal(
        said if isinstance(said, str) else msgspec.json.encode(said).decode(),
        str(code) if code is not None else None,
        param if isinstance(param, str) else None,
    )
