"""A chat request as code: curl, Python and JavaScript, ready to run with $BUD_API_KEY."""

from __future__ import annotations

import json
from collections.abc import Mapping

from core.playground.schemas import ChatRequest


def curl(base_url: str, request: ChatRequest) -> str:
    """A curl command. `base_url` is the gateway's, without `/v1`."""
    body = json.dumps(request.body(stream=True), indent=2, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    return (
        f"curl -N {base_url}/v1/chat/completions \\\n"
        '  -H "Authorization: Bearer $BUD_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'\n"
    )


def curl_embeddings(base_url: str, model: str, text: str) -> str:
    """A curl command for a deployment of embeddings."""
    body = json.dumps({"model": model, "input": text}, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    return (
        f"curl {base_url}/v1/embeddings \\\n"
        '  -H "Authorization: Bearer $BUD_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'\n"
    )


def python(base_url: str, request: ChatRequest) -> str:
    """A script for OpenAI's Python package."""
    return (
        "import os\n\n"
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key=os.environ["BUD_API_KEY"])\n'
        "stream = client.chat.completions.create(\n"
        f"{_arguments(request.body(stream=True))}"
        ")\n"
        "for chunk in stream:\n"
        "    if chunk.choices:\n"
        '        print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
    )


def _arguments(body: Mapping[str, object]) -> str:
    lines = []
    for name, value in body.items():
        if name == "messages" and isinstance(value, list):
            said = "".join(f"        {_python(message)},\n" for message in value)
            lines.append(f"    messages=[\n{said}    ],\n")
        else:
            lines.append(f"    {name}={_python(value)},\n")
    return "".join(lines)


def _python(value: object) -> str:
    # JSON's strings are Python's; only true, false and null are written otherwise.
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def javascript(base_url: str, request: ChatRequest) -> str:
    """A module for OpenAI's JavaScript package."""
    body = json.dumps(request.body(stream=True), indent=2, ensure_ascii=False)
    return (
        'import OpenAI from "openai";\n\n'
        "const client = new OpenAI({\n"
        f'  baseURL: "{base_url}/v1",\n'
        "  apiKey: process.env.BUD_API_KEY,\n"
        "});\n"
        f"const stream = await client.chat.completions.create({body});\n"
        "for await (const chunk of stream) {\n"
        '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n'
        "}\n"
    )
