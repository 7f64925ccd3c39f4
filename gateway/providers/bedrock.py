"""Amazon Bedrock's Converse and ConverseStream.

Sources (November 2026), below https://docs.aws.amazon.com/bedrock/latest/: APIReference/
API_runtime_Converse.html and API_runtime_ConverseStream.html (fields, events, errors),
APIReference/API_runtime_TokenUsage.html, userguide/prompt-caching.html (input tokens leave out the
cache's).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from core.kernel import clock
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.providers import chat, event_stream, sigv4
from gateway.providers.base import Account, Outgoing, Provider, Refusal, require_chat, translated
from gateway.providers.openai_compatible import read_refusal
from gateway.providers.streams import Chunks, Translator

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_STATUS = {
    "throttlingException": 429,
    "validationException": 400,
    "serviceUnavailableException": 503,
    "modelStreamErrorException": 424,
}
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
# Converse's own fields, which callers may send beside OpenAI's.
_OWN_FIELDS = ("additionalModelRequestFields", "guardrailConfig", "performanceConfig")


class Bedrock(Provider):
    """One model, or an inference profile, in one region."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        given = account.credentials
        self._keys = sigv4.Keys(
            given.get("access_key_id", ""),
            given.get("secret_access_key", ""),
            given.get("session_token", ""),
        )
        self._host = urlsplit(account.base_url).netloc

    def request(self, path: str, body: Parsed) -> Outgoing:
        """An OpenAI chat request as one for Converse, signed."""
        require_chat(path, "Bedrock")
        content = msgspec.json.encode(_request(chat.document(body, "Bedrock")))
        action = "converse-stream" if body.stream else "converse"
        model = quote(self.account.model, safe="")
        theirs = f"{self.account.path}/model/{model}/{action}"
        return Outgoing(theirs, self._headers(theirs, content), content)

    def _headers(self, path: str, content: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if token := self.account.credentials.get("api_key"):
            return headers | {"Authorization": f"Bearer {token}"}
        return sigv4.signed(
            self._keys,
            region=self.account.options.get("region", ""),
            service="bedrock",
            host=self._host,
            path=path,
            headers=headers,
            body=content,
            at_unix_s=clock.unix_s(),
        )

    def answer(self, content: bytes) -> bytes:
        """Converse's answer as a chat completion."""
        try:
            answer = msgspec.json.decode(content)
            blocks = answer["output"]["message"]["content"]
            return chat.completion(
                content="".join(each.get("text", "") for each in blocks),
                reasoning="".join(_reasoning(each) for each in blocks),
                tool_calls=[
                    chat.tool_call(use["toolUseId"], use["name"], use["input"])
                    for use in (each["toolUse"] for each in blocks if "toolUse" in each)
                ],
                finish_reason=_FINISH.get(answer["stopReason"], "stop"),
                usage=_usage(answer["usage"]),
            )
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            raise chat.no_answer("Bedrock") from None

    def stream(self) -> Translator:
        """ConverseStream's events as chunks."""
        return _Events(self.account.model)

    def refusal(self, content: bytes) -> Refusal:
        """`{"message": …}`."""
        return read_refusal(content)


def _reasoning(block: dict[str, Any]) -> str:
    found: str = block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
    return found


def _request(document: dict[str, Any]) -> dict[str, Any]:
    messages = document["messages"]
    converted = _messages(messages)
    schema = chat.json_schema(document)
    if schema == {}:
        raise GatewayError(
            "capability",
            "Bedrock has no 'json_object'. Give a schema, with 'json_schema'.",
            param="response_format",
        )
    return {
        "messages": converted,
        **chat.given(
            system=[{"text": part.text} for part in chat.system(messages)],
            inferenceConfig=chat.given(
                maxTokens=chat.max_tokens(document),
                temperature=document.get("temperature"),
                topP=document.get("top_p"),
                stopSequences=chat.stops(document),
            ),
            toolConfig=_tool_config(document, converted),
            outputConfig=_output_config(document, schema),
        ),
        **{name: document[name] for name in _OWN_FIELDS if name in document},
    }


def _output_config(
    document: dict[str, Any], schema: dict[str, Any] | None
) -> dict[str, Any] | None:
    if schema is None:
        return None
    name = document["response_format"]["json_schema"].get("name", "answer")
    text = msgspec.json.encode(schema).decode()
    structure = {"jsonSchema": {"name": name, "schema": text}}
    return {"textFormat": {"type": "json_schema", "structure": structure}}


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation; neighbours of one role are one message, as tools' results must be."""
    found: list[dict[str, Any]] = []
    for role, message in chat.turns(messages):
        theirs = "assistant" if role == "assistant" else "user"
        blocks = [_block(part) for part in chat.parts(message)]
        if role == "tool":
            used = message.get("tool_call_id", "")
            blocks = [{"toolResult": {"toolUseId": used, "content": blocks or [{"text": "-"}]}}]
        for call in chat.calls(message):
            use = {"toolUseId": call.id, "name": call.name, "input": call.arguments}
            blocks.append({"toolUse": use})
        if found and found[-1]["role"] == theirs:
            found[-1]["content"] += blocks
        elif blocks:
            found.append({"role": theirs, "content": blocks})
    return found


def _block(part: chat.Part) -> dict[str, Any]:
    if part.text:
        return {"text": part.text}
    if part.mime_type in _IMAGES:
        form = part.mime_type.partition("/")[2]
        return {"image": {"format": form, "source": {"bytes": part.base64}}}
    if part.mime_type == "application/pdf":
        named = {"format": "pdf", "name": "document", "source": {"bytes": part.base64}}
        return {"document": named}
    what = "an image by its URL; send it inline" if part.url else repr(part.mime_type)
    raise GatewayError("capability", f"Bedrock does not read {what}.", param="messages")


def _tool_config(
    document: dict[str, Any], converted: list[dict[str, Any]]
) -> dict[str, Any] | None:
    functions = chat.tools(document)
    kind, name = chat.tool_choice(document)
    # There is no "none"; tools that were used before must stay described.
    used = any("toolUse" in block for message in converted for block in message["content"])
    if not functions or (kind == "none" and not used):
        return None
    choice: dict[str, Any] = {"auto": {}}
    if kind == "required":
        choice = {"any": {}}
    elif kind == "function":
        choice = {"tool": {"name": name}}
    return {"tools": [_tool(each) for each in functions], "toolChoice": choice}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    said = chat.given(description=function.get("description"))
    return {
        "toolSpec": {
            "name": function.get("name", ""),
            "inputSchema": {"json": schema},
            **said,
        }
    }


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    read = usage.get("cacheReadInputTokens") or 0
    written = usage.get("cacheWriteInputTokens") or 0
    inputs = usage["inputTokens"] + read + written
    return chat.usage(inputs, usage["outputTokens"], cached_tokens=read)


class _Events(Translator):
    def __init__(self, model: str) -> None:
        self._model = model
        self._reader = event_stream.Reader()
        self._chunks = Chunks()

    def feed(self, read: bytes) -> bytes:
        """Chunks for the messages that are whole now."""
        return b"".join([self._translated(message) for message in self._reader.feed(read)])

    def _translated(self, message: event_stream.Message) -> bytes:
        headers = message.headers
        try:
            event = msgspec.json.decode(message.payload or b"{}")
            if headers.get(":message-type") == "event":
                return self._event(headers.get(":event-type", ""), event)
        except (msgspec.DecodeError, KeyError, TypeError):
            self.failure = chat.no_answer("Bedrock")
            return self.failure.event()
        name = headers.get(":exception-type") or headers.get(":error-code", "")
        said = event.get("message") or headers.get(":error-message", name)
        self.failure = translated(_STATUS.get(name, 500), Refusal(str(said)), self._model)
        return self.failure.event()

    def _event(self, name: str, event: dict[str, Any]) -> bytes:
        chunks = self._chunks
        match name:
            case "messageStart":
                return chunks.delta(content="")
            case "contentBlockStart" if "toolUse" in event["start"]:
                use = event["start"]["toolUse"]
                return chunks.tool_call(use["toolUseId"], use["name"])
            case "contentBlockDelta":
                return self._delta(event["delta"])
            case "messageStop":
                return chunks.delta(_FINISH.get(event["stopReason"], "stop"))
            case "metadata":
                return chunks.end(_usage(event["usage"]))
        return b""

    def _delta(self, delta: dict[str, Any]) -> bytes:
        if "text" in delta:
            return self._chunks.delta(content=delta["text"])
        if "toolUse" in delta:
            return self._chunks.tool_arguments(delta["toolUse"]["input"])
        thought = delta.get("reasoningContent", {}).get("text")
        return self._chunks.delta(reasoning_content=thought) if thought else b""
