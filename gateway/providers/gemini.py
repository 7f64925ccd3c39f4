"""Google's Gemini models, at the Gemini API (a key) and at Vertex AI (a service account).

Sources (November 2026): https://ai.google.dev/api/generate-content (fields, finish reasons, usage),
https://ai.google.dev/gemini-api/docs/function-calling, https://ai.google.dev/gemini-api/docs/
thought-signatures, https://ai.google.dev/gemini-api/docs/troubleshooting (errors),
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (Vertex's paths).
"""

from __future__ import annotations

import mimetypes
import re
from typing import Any
from urllib.parse import quote

import msgspec

from core.kernel import ids
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.providers import chat
from gateway.providers.base import Account, Outgoing, Provider, Refusal, require_chat, translated
from gateway.providers.google_token import Tokens
from gateway.providers.openai_compatible import json_headers
from gateway.providers.streams import Chunks, SseTranslator, Translator

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "MALFORMED_FUNCTION_CALL": "stop"}
_FILTERED = {
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
}
_SECONDS = re.compile(r"(\d+)(?:\.\d+)?s")
# The documented stand-in for a signature that the caller's history has lost.
_NO_SIGNATURE = "skip_thought_signature_validator"


class Gemini(Provider):
    """One model at the Gemini API."""

    name = "Gemini"

    def request(self, path: str, body: Parsed) -> Outgoing:
        """An OpenAI chat request as one for content."""
        require_chat(path, self.name)
        document = _request(chat.document(body, self.name))
        action = "streamGenerateContent?alt=sse" if body.stream else "generateContent"
        model = quote(self.account.model.removeprefix("models/"), safe="")
        theirs = f"{self.account.path}{self._folder()}/models/{model}:{action}"
        return Outgoing(theirs, json_headers(body) | self._secret(), msgspec.json.encode(document))

    def _folder(self) -> str:
        return ""

    def _secret(self) -> dict[str, str]:
        return {"x-goog-api-key": self.account.credentials.get("api_key", "")}

    def answer(self, content: bytes) -> bytes:
        """The first candidate as a chat completion."""
        try:
            document = msgspec.json.decode(content)
            candidate = _candidate(document)
            found = candidate.get("content", {}).get("parts", [])
            calls = [_tool_call(part) for part in found if "functionCall" in part]
            return chat.completion(
                content="".join(_text(part, thought=False) for part in found),
                reasoning="".join(_text(part, thought=True) for part in found),
                tool_calls=[
                    chat.tool_call(call_id, name, args, **extra)
                    for call_id, name, args, extra in calls
                ],
                finish_reason=_finish(candidate.get("finishReason", "STOP"), bool(calls)),
                usage=_usage(document.get("usageMetadata", {})),
                answer_id=document.get("responseId", ""),
            )
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            raise chat.no_answer(self.name) from None

    def stream(self) -> Translator:
        """Events as chunks."""
        return _Events(self)

    def refusal(self, content: bytes) -> Refusal:
        """`{"error": {"code", "message", "status", "details"}}`, or a list of one."""
        try:
            document = msgspec.json.decode(content)
            document = document[0] if isinstance(document, list) else document
            error = document["error"]
            details = str(error.get("details", ""))
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
            return Refusal()
        seconds = _SECONDS.search(details)
        return Refusal(
            str(error.get("message", "")),
            "provider_credentials" if "API_KEY_INVALID" in details else None,
            retry_after_s=int(seconds[1]) + 1 if seconds else None,
        )

    def error(
        self, status: int, content: bytes, model: str, *, retry_after_s: int | None = None
    ) -> GatewayError:
        """Translate an error; a wrong key is a 400 here."""
        found = self.refusal(content)
        if found.code == "provider_credentials":
            status = 401
        return translated(status, found, model, retry_after_s or found.retry_after_s)


class Vertex(Gemini):
    """One of Google's models at Vertex AI, in a project and a region."""

    name = "Vertex AI"

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._tokens = Tokens(account.credentials.get("service_account", ""))

    async def ready(self, connect_s: float) -> None:
        """Have a token."""
        await self._tokens.ready(connect_s)

    def _folder(self) -> str:
        options = self.account.options
        project = quote(options.get("project", ""), safe="")
        location = quote(options.get("region") or options.get("location", "global"), safe="")
        return f"/v1/projects/{project}/locations/{location}/publishers/google"

    def _secret(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.token}"}


def _request(document: dict[str, Any]) -> dict[str, Any]:
    messages = document["messages"]
    schema = chat.json_schema(document)
    config = chat.given(
        maxOutputTokens=chat.max_tokens(document),
        temperature=document.get("temperature"),
        topP=document.get("top_p"),
        topK=document.get("top_k"),
        stopSequences=chat.stops(document),
        seed=document.get("seed"),
        presencePenalty=document.get("presence_penalty"),
        frequencyPenalty=document.get("frequency_penalty"),
        responseMimeType="application/json" if schema is not None else None,
        responseJsonSchema=schema,
        thinkingConfig=document.get("thinking_config"),
    )
    functions = [
        chat.given(
            name=each.get("name"),
            description=each.get("description"),
            parametersJsonSchema=each.get("parameters"),
        )
        for each in chat.tools(document)
    ]
    return {
        "contents": _contents(messages),
        **chat.given(
            systemInstruction=chat.given(parts=[_part(part) for part in chat.system(messages)]),
            generationConfig=config,
            tools=[{"functionDeclarations": functions}] if functions else None,
            toolConfig=_tool_config(document) if functions else None,
            safetySettings=document.get("safety_settings"),
        ),
    }


def _contents(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation; results of tools name their function, and neighbours are one content."""
    found: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for role, message in chat.turns(messages):
        theirs = "model" if role == "assistant" else "user"
        parts = [_part(part) for part in chat.parts(message)]
        if role == "tool":
            name = names.get(str(message.get("tool_call_id")), str(message.get("name", "")))
            parts = [{"functionResponse": {"name": name, "response": _result(message)}}]
        for position, call in enumerate(chat.calls(message)):
            names[call.id] = call.name
            parts.append(_function_call(call, first=position == 0))
        if found and found[-1]["role"] == theirs:
            found[-1]["parts"] += parts
        elif parts:
            found.append({"role": theirs, "parts": parts})
    return found


def _function_call(call: chat.Call, *, first: bool) -> dict[str, Any]:
    """A call with its signature: of calls made at once only the first has one."""
    signature = call.extra.get("google", {}).get("thought_signature")
    part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments}}
    return part | chat.given(thoughtSignature=signature or (_NO_SIGNATURE if first else None))


def _result(message: dict[str, Any]) -> dict[str, Any]:
    """What a tool gave, as an object, which it must be."""
    said = chat.text(message)
    try:
        found = msgspec.json.decode(said)
    except msgspec.DecodeError:
        found = said
    return found if isinstance(found, dict) else {"result": found}


def _part(part: chat.Part) -> dict[str, Any]:
    if part.text:
        return {"text": part.text}
    if part.base64:
        return {"inlineData": {"mimeType": part.mime_type, "data": part.base64}}
    mime_type, _ = mimetypes.guess_type(part.url.partition("?")[0])
    if mime_type is None:
        raise GatewayError(
            "capability",
            "Gemini must know what a file at a URL is, and its name does not say. Send it inline.",
            param="messages",
        )
    return {"fileData": {"mimeType": mime_type, "fileUri": part.url}}


def _tool_config(document: dict[str, Any]) -> dict[str, Any]:
    kind, name = chat.tool_choice(document)
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
    allowed = chat.given(allowedFunctionNames=[name] if name else None)
    return {"functionCallingConfig": {"mode": modes.get(kind, "AUTO"), **allowed}}


def _candidate(document: dict[str, Any]) -> dict[str, Any]:
    """The first candidate. Raises GatewayError: the prompt is blocked."""
    blocked = document.get("promptFeedback", {}).get("blockReason")
    if blocked:
        raise GatewayError(
            "invalid_request", f"The provider blocks this prompt ({blocked}).",
            param="messages", code="content_filter",
        )  # fmt: skip
    candidate: dict[str, Any] = document["candidates"][0]
    return candidate


def _text(part: dict[str, Any], *, thought: bool) -> str:
    return str(part.get("text", "")) if bool(part.get("thought")) is thought else ""


def _tool_call(part: dict[str, Any]) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Id, name, arguments, and the signature to send back, in the place Google's own layer uses."""
    call = part["functionCall"]
    signature = part.get("thoughtSignature")
    extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
    return call.get("id") or ids.new_id("call"), call["name"], call.get("args") or {}, extra


def _finish(reason: str, has_tools: bool) -> str:
    if reason in _FILTERED:
        return "content_filter"
    found = _FINISH.get(reason, "stop")
    return "tool_calls" if has_tools and found == "stop" else found


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage as OpenAI counts it: here, the answer's tokens leave out those of the thoughts."""
    thoughts = usage.get("thoughtsTokenCount") or 0
    return chat.usage(
        (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0),
        (usage.get("candidatesTokenCount") or 0) + thoughts,
        cached_tokens=usage.get("cachedContentTokenCount") or 0,
        reasoning_tokens=thoughts,
    )


class _Events(SseTranslator):
    """The stream has no last event: it is whole when a finish reason has come."""

    def __init__(self, provider: Gemini) -> None:
        super().__init__()
        self._provider = provider
        self._chunks = Chunks()
        self._usage: dict[str, Any] = {}
        self._finish = ""
        self._ended = False

    def event(self, name: str, data: bytes) -> bytes:
        """One of Google's events: a part of the answer."""
        try:
            document = msgspec.json.decode(data)
            if "error" in document:
                status = int(document["error"].get("code", 500))
                raise self._provider.error(status, data, self._provider.account.model)
            self._usage |= document.get("usageMetadata", {})
            if not document.get("candidates") and not document.get("promptFeedback"):
                return b""
            return self._parts(_candidate(document))
        except GatewayError as error:
            self.failure = error
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            self.failure = chat.no_answer(self._provider.name)
        return self.failure.event()

    def _parts(self, candidate: dict[str, Any]) -> bytes:
        found: list[bytes] = []
        for part in candidate.get("content", {}).get("parts", []):
            if "functionCall" in part:
                call_id, name, args, extra = _tool_call(part)
                encoded = msgspec.json.encode(args).decode()
                found.append(self._chunks.tool_call(call_id, name, encoded, **extra))
            elif said := part.get("text"):
                name = "reasoning_content" if part.get("thought") else "content"
                found.append(self._chunks.delta(**{name: said}))
        self._finish = candidate.get("finishReason") or self._finish
        return b"".join(found)

    def end(self) -> bytes:
        """The finish reason, the usage and the end."""
        if not self._finish or self._ended or self.failure:
            return b""
        self._ended = True
        finish = _finish(self._finish, self._chunks.has_tools)
        return self._chunks.delta(finish) + self._chunks.end(_usage(self._usage))
