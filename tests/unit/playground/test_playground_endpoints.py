"""Every endpoint's code names what the client takes, and bodies are read or named."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from core.kernel.errors import InvalidInput
from core.playground import endpoints, snippets
from core.playground.endpoints import ENDPOINTS, ApiEndpoint
from tests.doubles.scripted_gateway import ScriptedGateway

CLIENTS = {
    "openai": openai.OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1"),
    "anthropic": anthropic.Anthropic(api_key="none", base_url="http://127.0.0.1:1"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)
def test_the_clients_take_these_arguments(endpoint: ApiEndpoint) -> None:
    method: Any = CLIENTS[endpoint.library]
    for name in endpoint.method.split("."):
        method = getattr(method, name)
    assert endpoint.arguments <= inspect.signature(method).parameters.keys()
    assert set(endpoint.body("tiny")) <= endpoint.arguments


def test_what_the_client_does_not_know_is_sent_as_well(
    gateway: ScriptedGateway, tmp_path: Path
) -> None:
    body = endpoints.CHAT.body("tiny", stream=True) | {"top_k": 40, "grammar": {"a": [True, None]}}
    script = tmp_path / "chat.py"
    script.write_text(snippets.python_to(endpoints.CHAT, f"http://127.0.0.1:{gateway.port}", body))
    run = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"BUD_API_KEY": "bud-python"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "Hello you", run.stderr
    assert gateway.requests == [body]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)
@pytest.mark.parametrize("stream", [False, True])
def test_the_code_of_every_endpoint_is_whole(endpoint: ApiEndpoint, stream: bool) -> None:
    body = endpoint.body("tiny", stream=stream)
    assert bool(body.get("stream")) == (stream and endpoint.can_stream)
    compile(snippets.python_to(endpoint, "http://gateway", body), "shown", "exec")
    script = snippets.javascript_to(endpoint, "http://gateway", body)
    assert json.dumps(body, indent=2) in script
    assert f"http://gateway{endpoint.path}" in snippets.curl_to(endpoint, "http://gateway", body)


@pytest.mark.parametrize(
    ("text", "named"),
    [('{"model": "a",}', "line 1"), ("[1]", "object"), ("", "line 1"), ('{\n"a" 1}', "line 2")],
)
def test_a_body_that_is_none_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        endpoints.read_body(text)
