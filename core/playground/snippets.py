"""A request as code: curl, Python and JavaScript, ready to run with $BUD_API_KEY."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.playground.endpoints import CHAT, EMBEDDINGS, ApiEndpoint
from core.playground.schemas import ChatRequest

_CLIENTS = {"openai": "OpenAI", "anthropic": "Anthropic"}
_PACKAGES = {"openai": "openai", "anthropic": "@anthropic-ai/sdk"}
# Anthropic's clients add /v1 themselves.
_BASES = {"openai": "/v1", "anthropic": ""}
# endpoint → its answer's text, and that of one event of a stream, in JavaScript.
_JAVASCRIPT = {
    "/v1/chat/completions": (
        "answer.choices[0].message.content", 'event.choices[0]?.delta?.content ?? ""'
    ),
    "/v1/messages": (
        'answer.content.map((block) => block.text ?? "").join("")', 'event.delta?.text ?? ""'
    ),
    "/v1/responses": (
        "answer.output_text",
        'event.type === "response.output_text.delta" ? event.delta : ""',
    ),
    "/v1/completions": ("answer.choices[0].text", 'event.choices[0]?.text ?? ""'),
    "/v1/embeddings": ("answer.data[0].embedding.length", ""),
}  # fmt: skip


def curl(base_url: str, request: ChatRequest) -> str:
    """A streamed chat as a curl command. `base_url` is the gateway's, without `/v1`."""
    return curl_to(CHAT, base_url, request.body(stream=True))


def curl_embeddings(base_url: str, model: str, text: str) -> str:
    """A curl command for a deployment of embeddings."""
    return curl_to(EMBEDDINGS, base_url, {"model": model, "input": text})


def curl_to(endpoint: ApiEndpoint, base_url: str, body: Mapping[str, Any]) -> str:
    """A curl command that sends `body`. `base_url` is the gateway's, without `/v1`."""
    text = json.dumps(body, indent=2, ensure_ascii=False)
    quoted = text.replace("'", "'\\''")
    return (
        f"curl{' -N' if body.get('stream') else ''} {base_url}{endpoint.path} \\\n"
        '  -H "Authorization: Bearer $BUD_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'\n"
    )


def python(base_url: str, request: ChatRequest) -> str:
    """A streamed chat as a script for OpenAI's Python package."""
    return python_to(CHAT, base_url, request.body(stream=True))


def python_to(endpoint: ApiEndpoint, base_url: str, body: Mapping[str, Any]) -> str:
    """A script that sends `body` and prints the answer, for OpenAI's or Anthropic's package."""
    client = _CLIENTS[endpoint.library]
    address = f"{base_url}{_BASES[endpoint.library]}"
    said = 'print({}, end="", flush=True)' if body.get("stream") else "print({})"
    head = (
        "import os\n\n"
        f"from {endpoint.library} import {client}\n\n"
        f'client = {client}(base_url="{address}", api_key=os.environ["BUD_API_KEY"])\n'
        f"{'stream' if body.get('stream') else 'answer'} = client.{endpoint.method}(\n"
        f"{_arguments(endpoint, body)}"
        ")\n"
    )
    if not body.get("stream"):
        return f"{head}{said.format(endpoint.answer)}\n"
    return f"{head}for event in stream:\n    {said.format(endpoint.piece)}\n"


def _arguments(endpoint: ApiEndpoint, body: Mapping[str, Any]) -> str:
    lines = []
    for name, value in body.items():
        if name not in endpoint.arguments:
            continue
        if name == "messages" and isinstance(value, list):
            said = "".join(f"        {_python(message)},\n" for message in value)
            lines.append(f"    messages=[\n{said}    ],\n")
        else:
            lines.append(f"    {name}={_python(value)},\n")
    others = {name: value for name, value in body.items() if name not in endpoint.arguments}
    if others:
        lines.append(f"    extra_body={_python(others)},\n")
    return "".join(lines)


def _python(value: object) -> str:
    # JSON's strings are Python's; only true, false and null are written otherwise.
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_python(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def javascript(base_url: str, request: ChatRequest) -> str:
    """A streamed chat as a module for OpenAI's JavaScript package."""
    return javascript_to(CHAT, base_url, request.body(stream=True))


def javascript_to(endpoint: ApiEndpoint, base_url: str, body: Mapping[str, Any]) -> str:
    """A module that sends `body` and writes the answer, for OpenAI's or Anthropic's package."""
    client, package = _CLIENTS[endpoint.library], _PACKAGES[endpoint.library]
    answer, piece = _JAVASCRIPT[endpoint.path]
    text = json.dumps(body, indent=2, ensure_ascii=False)
    head = (
        f'import {client} from "{package}";\n\n'
        f"const client = new {client}({{\n"
        f'  baseURL: "{base_url}{_BASES[endpoint.library]}",\n'
        "  apiKey: process.env.BUD_API_KEY,\n"
        "});\n"
        f"const {'stream' if body.get('stream') else 'answer'} = "
        f"await client.{endpoint.method}({text});\n"
    )
    if not body.get("stream"):
        return f"{head}console.log({answer});\n"
    return f"{head}for await (const event of stream) {{\n  process.stdout.write({piece});\n}}\n"
