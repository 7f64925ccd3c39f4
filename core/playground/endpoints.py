"""The gateway's endpoints as people try them: what is asked of each, and how clients call it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from core.contracts.route_table import Capability
from core.kernel.errors import InvalidInput, NotFound

Library = Literal["openai", "anthropic"]
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
        method: Of the client, in Python and in JavaScript.
        arguments: The fields that the Python client takes by name; others go in its `extra_body`.
        example: The body of a first request, without `model`.
        answer: Python that is the text of `answer`.
        piece: Python that is the text of one event of a stream, named `event`.
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
)  # fmt: skip
CHAT, EMBEDDINGS = ENDPOINTS[0], ENDPOINTS[-1]


def for_capabilities(capabilities: Iterable[Capability]) -> list[ApiEndpoint]:
    """The endpoints that a route with these capabilities answers at."""
    able = set(capabilities)
    return [each for each in ENDPOINTS if each.capability in able]


def by_name(name: str) -> ApiEndpoint:
    """An endpoint by its name. NotFound names those there are."""
    for each in ENDPOINTS:
        if each.name == name:
            return each
    raise NotFound(
        f"There is no endpoint {name!r}.",
        remedy=f"There are: {', '.join(each.name for each in ENDPOINTS)}.",
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
