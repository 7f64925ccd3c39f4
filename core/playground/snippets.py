"""A request as code: curl, Python and JavaScript, ready to run with $BUD_API_KEY."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from core.playground import snippet_texts
from core.playground.endpoints import CHAT, EMBEDDINGS, ApiEndpoint, Library, Way
from core.playground.schemas import ChatRequest

PACKAGES: dict[Library, tuple[str, str]] = {
    "openai": ("openai", "openai"),
    "anthropic": ("anthropic", "@anthropic-ai/sdk"),
    "websocket": ("websockets", "ws"),
}
_CLIENTS = {"openai": "OpenAI", "anthropic": "Anthropic"}
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
    "/v1/rerank": ("answer.results", ""),
    "/v1/moderations": ("answer.results[0].flagged", ""),
    "/v1/images/generations": ("answer.data[0].url ?? answer.data[0].b64_json.length", ""),
    "/v1/audio/speech": ("", ""),
}  # fmt: skip


def curl(base_url: str, request: ChatRequest) -> str:
    """A streamed chat as a curl command. `base_url` is the gateway's, without `/v1`."""
    return curl_to(CHAT, base_url, request.body(stream=True))


def curl_embeddings(base_url: str, model: str, text: str) -> str:
    """A curl command for a deployment of embeddings."""
    return curl_to(EMBEDDINGS, base_url, {"model": model, "input": text})


def curl_to(endpoint: ApiEndpoint, base_url: str, body: Mapping[str, Any]) -> str:
    """A curl command that sends `body`. `base_url` is the gateway's, without `/v1`."""
    if endpoint.way != "json":
        fields = "".join(
            f"  -F {shlex.quote(f'{name}={value}')} \\\n" for name, value in body.items()
        )
        line = json.dumps(_line(endpoint, body), ensure_ascii=False)
        return _filled(snippet_texts.CURL, endpoint, base_url, body, fields, _json, line)
    text = json.dumps(body, indent=2, ensure_ascii=False)
    quoted = text.replace("'", "'\\''")
    return (
        f"curl{' -N' if body.get('stream') else ''} {base_url}{endpoint.path} \\\n"
        '  -H "Authorization: Bearer $BUD_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'{f' -o {endpoint.saved_as}' if endpoint.saved_as else ''}\n"
    )


def python(base_url: str, request: ChatRequest) -> str:
    """A streamed chat as a script for OpenAI's Python package."""
    return python_to(CHAT, base_url, request.body(stream=True))


def python_to(endpoint: ApiEndpoint, base_url: str, body: Mapping[str, Any]) -> str:
    """A script that sends `body` and prints the answer, for OpenAI's or Anthropic's package."""
    if endpoint.way != "json":
        fields = "".join(f"        {name}={_python(value)},\n" for name, value in body.items())
        line = _python(_line(endpoint, body))
        return _filled(snippet_texts.PYTHON, endpoint, base_url, body, fields, _python, line)
    client = _CLIENTS[endpoint.library]
    address = f"{base_url}{_BASES[endpoint.library]}"
    said = 'print({}, end="", flush=True)' if body.get("stream") else "print({})"
    head = (
        "import os\n\n"
        f"from {endpoint.library} import {client}\n\n"
        f'client = {client}(base_url="{address}", api_key=os.environ["BUD_API_KEY"])\n'
        f"{'stream' if body.get('stream') else 'answer'} = client.{endpoint.method or 'post'}(\n"
        f"{_arguments(endpoint, body) if endpoint.method else _posted(endpoint, body)}"
        ")\n"
    )
    if endpoint.saved_as:
        return f'{head}answer.write_to_file("{endpoint.saved_as}")\n'
    if not body.get("stream"):
        return f"{head}{said.format(endpoint.answer)}\n"
    return f"{head}for event in stream:\n    {said.format(endpoint.piece)}\n"


def _posted(endpoint: ApiEndpoint, body: Mapping[str, Any]) -> str:
    path = endpoint.path.removeprefix("/v1")
    return f'    "{path}",\n    cast_to=object,\n    body={_python(dict(body))},\n'


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
    if endpoint.way != "json":
        fields = "".join(f"  {name}: {_json(value)},\n" for name, value in body.items())
        line = _json(_line(endpoint, body))
        return _filled(snippet_texts.JAVASCRIPT, endpoint, base_url, body, fields, _json, line)
    client, package = _CLIENTS[endpoint.library], PACKAGES[endpoint.library][1]
    answer, piece = _JAVASCRIPT[endpoint.path]
    text = json.dumps(body, indent=2, ensure_ascii=False)
    path = endpoint.path.removeprefix("/v1")
    asked = (
        f"{endpoint.method}({text})" if endpoint.method else f'post("{path}", {{ body: {text} }})'
    )
    imports = 'import fs from "node:fs";\n' if endpoint.saved_as else ""
    head = (
        f'{imports}import {client} from "{package}";\n\n'
        f"const client = new {client}({{\n"
        f'  baseURL: "{base_url}{_BASES[endpoint.library]}",\n'
        "  apiKey: process.env.BUD_API_KEY,\n"
        "});\n"
        f"const {'stream' if body.get('stream') else 'answer'} = "
        f"await client.{asked};\n"
    )
    if endpoint.saved_as:
        content = "Buffer.from(await answer.arrayBuffer())"
        return f'{head}fs.writeFileSync("{endpoint.saved_as}", {content});\n'
    if not body.get("stream"):
        return f"{head}console.log({answer});\n"
    return f"{head}for await (const event of stream) {{\n  process.stdout.write({piece});\n}}\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _line(endpoint: ApiEndpoint, body: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a batch's input."""
    return {"custom_id": "line-1", "method": "POST", "url": endpoint.asks, "body": dict(body)}


def _filled(
    texts: Mapping[Way, str],
    endpoint: ApiEndpoint,
    base_url: str,
    body: Mapping[str, Any],
    fields: str,
    written: Callable[[object], str],
    line: str,
) -> str:
    event = {name: value for name, value in body.items() if name != "model"}
    values = {
        "URL": base_url,
        "SOCKET": f"ws{base_url.removeprefix('http')}",
        "PATH": endpoint.path,
        "ASKED": endpoint.asks,
        "MODEL": quote(str(body.get("model", "")), safe=""),
        "METHOD": endpoint.method,
        "ANSWER": endpoint.answer,
        "FIELDS": fields,
        "BODY": written(event),
        "LINE": line,
    }
    text = texts[endpoint.way]
    # In one pass: what is filled in is not looked at again.
    return re.sub("@([A-Z]+)@", lambda found: values[found[1]], text)
