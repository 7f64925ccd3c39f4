"""The gateway's endpoints as people try them: what is asked of each, and how clients call it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.contracts import batch
from core.contracts.route_table import Capability
from core.kernel.errors import InvalidInput

Library = Literal["openai", "anthropic", "websocket"]
# How a request goes: a body of JSON, a form with a file, a socket, or lines in a file.
Way = Literal["json", "form", "socket", "batch"]
_SAMPLING = ("temperature", "top_p", "stop")


@dataclass(frozen=True)
class ApiEndpoint:
    """One endpoint of the gateway.

    Attributes:
        name: What people call it.
        path: Below the gateway's address.
        capability: What a route must be able to do.
        can_stream: Whether `"stream": true` may be asked for.
        library: The client that calls it.
        method: Of the client, in Python and in JavaScript; empty where it has none for it.
        arguments: The fields that the Python client takes by name; others go in its `extra_body`.
        example: The body of a first request, without `model`.
        answer: Python that is the text of `answer`.
        piece: Python that is the text of one event of a stream, named `event`.
        way: How a request goes.
        saved_as: The file for an answer that is no text.
        asks: The path that the lines of a batch ask.
    """

    name: str
    path: str
    capability: Capability
    can_stream: bool
    library: Library
    method: str
    arguments: frozenset[str]
    example: dict[str, Any]
    answer: str
    piece: str = ""
    way: Way = "json"
    saved_as: str = ""
    asks: str = ""

    def body(self, model: str, *, stream: bool = False) -> dict[str, Any]:
        """The body of a first request to a model."""
        body = {"model": model, **self.example}
        return body | {"stream": True} if stream and self.can_stream else body


ENDPOINTS: tuple[ApiEndpoint, ...] = (
    ApiEndpoint(
        name="Chat completions",
        path="/v1/chat/completions",
        capability="chat",
        can_stream=True,
        library="openai",
        method="chat.completions.create",
        arguments=frozenset(
            {"model", "messages", "max_tokens", "max_completion_tokens", "n", "seed", "stream",
             "stream_options", "tools", "tool_choice", "response_format", "user", *_SAMPLING}
        ),
        example={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64},
        answer="answer.choices[0].message.content",
        piece='(event.choices[0].delta.content or "") if event.choices else ""',
    ),
    ApiEndpoint(
        name="Messages (Anthropic)",
        path="/v1/messages",
        capability="chat",
        can_stream=True,
        library="anthropic",
        method="messages.create",
        arguments=frozenset(
            {"model", "messages", "max_tokens", "system", "stream", "tools", "tool_choice",
             "metadata", "thinking"}
        ),
        example={"max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]},
        answer='"".join(block.text for block in answer.content if block.type == "text")',
        piece='getattr(getattr(event, "delta", None), "text", "")',
    ),
    ApiEndpoint(
        name="Responses",
        path="/v1/responses",
        capability="chat",
        can_stream=True,
        library="openai",
        method="responses.create",
        arguments=frozenset(
            {"model", "input", "instructions", "max_output_tokens", "stream", "store", "tools",
             "tool_choice", "previous_response_id", "temperature", "top_p"}
        ),
        example={"input": "Hello", "max_output_tokens": 64},
        answer="answer.output_text",
        piece='event.delta if event.type == "response.output_text.delta" else ""',
    ),
    ApiEndpoint(
        name="Completions",
        path="/v1/completions",
        capability="completion",
        can_stream=True,
        library="openai",
        method="completions.create",
        arguments=frozenset(
            {"model", "prompt", "max_tokens", "n", "seed", "stream", "stream_options", *_SAMPLING}
        ),
        example={"prompt": "Once upon a time", "max_tokens": 64},
        answer="answer.choices[0].text",
        piece='event.choices[0].text if event.choices else ""',
    ),
    ApiEndpoint(
        name="Embeddings",
        path="/v1/embeddings",
        capability="embedding",
        can_stream=False,
        library="openai",
        method="embeddings.create",
        arguments=frozenset({"model", "input", "dimensions", "encoding_format", "user"}),
        # JavaScript's client asks for base64 by itself, which not every server gives.
        example={"input": "A sentence.", "encoding_format": "float"},
        answer="len(answer.data[0].embedding)",
    ),
    ApiEndpoint(
        name="Rerank",
        path="/v1/rerank",
        capability="rerank",
        can_stream=False,
        library="openai",
        method="",
        arguments=frozenset(),
        example={
            "query": "What is a bud?",
            "documents": ["A bud is a small part of a plant that opens.", "It rains today."],
        },
        answer='answer["results"]',
    ),
    ApiEndpoint(
        name="Moderations",
        path="/v1/moderations",
        capability="moderation",
        can_stream=False,
        library="openai",
        method="moderations.create",
        arguments=frozenset({"model", "input"}),
        example={"input": "A sentence."},
        answer="answer.results[0].flagged",
    ),
    ApiEndpoint(
        name="Images",
        path="/v1/images/generations",
        capability="image",
        can_stream=False,
        library="openai",
        method="images.generate",
        arguments=frozenset({"model", "prompt", "n", "size", "quality", "user"}),
        example={"prompt": "A green bud on a twig", "n": 1},
        answer="answer.data[0].url or len(answer.data[0].b64_json)",
    ),
    ApiEndpoint(
        name="Speech",
        path="/v1/audio/speech",
        capability="speech",
        can_stream=False,
        library="openai",
        method="audio.speech.create",
        arguments=frozenset({"model", "input", "voice", "response_format", "speed"}),
        example={"input": "Hello", "voice": "alloy", "response_format": "mp3"},
        answer="",
        saved_as="speech.mp3",
    ),
    ApiEndpoint(
        name="Transcriptions",
        path="/v1/audio/transcriptions",
        capability="transcription",
        can_stream=False,
        library="openai",
        method="audio.transcriptions.create",
        arguments=frozenset({"model", "language", "prompt", "temperature", "response_format"}),
        example={},
        answer="answer.text",
        way="form",
    ),
    ApiEndpoint(
        name="Translations",
        path="/v1/audio/translations",
        capability="transcription",
        can_stream=False,
        library="openai",
        method="audio.translations.create",
        arguments=frozenset({"model", "prompt", "temperature", "response_format"}),
        example={},
        answer="answer.text",
        way="form",
    ),
    ApiEndpoint(
        name="Realtime",
        path="/v1/realtime",
        capability="realtime",
        can_stream=False,
        library="websocket",
        method="",
        arguments=frozenset(),
        example={"type": "response.create"},
        answer="",
        way="socket",
    ),
)  # fmt: skip
CHAT = ENDPOINTS[0]
EMBEDDINGS = next(each for each in ENDPOINTS if each.capability == "embedding")


def for_capabilities(capabilities: Iterable[Capability]) -> list[ApiEndpoint]:
    """The endpoints that a route with these capabilities answers at, and its batches."""
    able = set(capabilities)
    found = [each for each in ENDPOINTS if each.capability in able]
    asked = next((each for each in found if each.path in batch.ENDPOINTS), None)
    return [*found, _batch(asked)] if asked is not None else found


def _batch(of: ApiEndpoint) -> ApiEndpoint:
    return replace(
        of,
        name="Batches, with files",
        path="/v1/batches",
        asks=of.path,
        can_stream=False,
        library="openai",
        way="batch",
    )


def read_body(text: str) -> dict[str, Any]:
    """The body of a request as a person wrote it.

    Raises:
        InvalidInput: It is no JSON object; where it is wrong is said.
    """
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
        raise InvalidInput(
            f"The body is no JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            value=line,
            remedy='Write names and texts in double quotes, such as {"model": "chat"}.',
        ) from None
    if not isinstance(body, dict):
        raise InvalidInput(
            "The body of a request is a JSON object.",
            value=text[:80],
            remedy='Begin it with {, such as {"model": "chat"}.',
        )
    return body
