"""The code shown for a request makes this very request."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.playground import snippets
from core.playground.schemas import ChatRequest
from tests.doubles.scripted_gateway import ScriptedGateway
from tests.machine import needs

REQUEST = ChatRequest(
    model="tiny",
    messages=[
        {"role": "system", "content": 'Be "brief".\nDon\'t lie.'},
        {"role": "user", "content": "Grüße, $HOME \\n `x` 'y' 🌱"},
    ],
    temperature=0.7,
    top_p=1.0,
    max_tokens=64,
    seed=7,
    stop=["END", "it's"],
)


@needs("curl")
def test_curl_sends_the_request(gateway: ScriptedGateway) -> None:
    command = snippets.curl(f"http://127.0.0.1:{gateway.port}", REQUEST)
    run = subprocess.run(
        ["bash", "-c", command.replace("curl -N", "curl -sN")],
        env=os.environ | {"BUD_API_KEY": "bud-shell"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "Hello" in run.stdout
    assert gateway.requests == [REQUEST.body(stream=True)]
    assert gateway.keys == ["bud-shell"]


def test_python_sends_the_request_and_prints_the_answer(
    gateway: ScriptedGateway, tmp_path: Path
) -> None:
    script = tmp_path / "chat.py"
    script.write_text(snippets.python(f"http://127.0.0.1:{gateway.port}", REQUEST))
    run = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"BUD_API_KEY": "bud-python"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "Hello you", run.stderr
    assert gateway.requests == [REQUEST.body(stream=True)]
    assert gateway.keys == ["bud-python"]


def test_javascript_holds_the_request_as_json() -> None:
    script = snippets.javascript("http://gateway", REQUEST)
    start = script.index("create(") + len("create(")
    assert json.loads(script[start : script.index(");\nfor await")]) == REQUEST.body(stream=True)
    assert 'baseURL: "http://gateway/v1"' in script


@pytest.mark.parametrize("text", ["'", '"', "\\", "\u2028", "\x7f", "\x00", "{}", "\ud7ff"])
def test_any_text_is_quoted_rightly_in_python(text: str) -> None:
    request = ChatRequest(model="m", messages=[{"role": "user", "content": text}])
    call = next(
        node
        for node in ast.walk(ast.parse(snippets.python("http://gateway", request)))
        if isinstance(node, ast.Call) and any(word.arg == "messages" for word in node.keywords)
    )
    messages = next(word.value for word in call.keywords if word.arg == "messages")
    assert ast.literal_eval(messages) == request.messages
