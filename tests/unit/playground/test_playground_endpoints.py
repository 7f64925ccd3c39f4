"""Every endpoint's code names what the client takes, and bodies are read or named."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import anthropic
import openai
import pytest

from core.contracts.route_table import Capability
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput
from core.playground import endpoints, snippets
from core.playground.adapters import raw
from core.playground.endpoints import ENDPOINTS, ApiEndpoint
from core.playground.schemas import Endpoint
from tests.doubles.scripted_gateway import Exchange, ScriptedGateway

CLIENTS = {
    "openai": openai.OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1"),
    "anthropic": anthropic.Anthropic(api_key="none", base_url="http://127.0.0.1:1"),
}


EVERY = endpoints.for_capabilities(get_args(Capability))
WITH_METHOD = [each for each in ENDPOINTS if each.method]


def test_a_route_is_tried_at_what_it_can_do_and_in_batches() -> None:
    names = [each.name for each in endpoints.for_capabilities(["rerank"])]
    assert names == ["Rerank", "Batches, with files"]
    assert endpoints.for_capabilities(["embedding"])[-1].asks == "/v1/embeddings"
    assert [each.way for each in endpoints.for_capabilities(["realtime"])] == ["socket"]
    assert {each.capability for each in EVERY} == set(get_args(Capability))


@pytest.mark.parametrize("endpoint", WITH_METHOD, ids=lambda each: each.name)
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


@pytest.mark.parametrize("endpoint", EVERY, ids=lambda each: each.name)
@pytest.mark.parametrize("stream", [False, True])
def test_the_code_of_every_endpoint_is_whole(endpoint: ApiEndpoint, stream: bool) -> None:
    body = endpoint.body("tiny", stream=stream)
    assert bool(body.get("stream")) == (stream and endpoint.can_stream)
    compile(snippets.python_to(endpoint, "http://gateway", body), "shown", "exec")
    script = snippets.javascript_to(endpoint, "http://gateway", body)
    assert "@" not in script.replace("@anthropic-ai", "")
    assert endpoint.way != "json" or json.dumps(body, indent=2) in script
    assert f"http://gateway{endpoint.path}" in snippets.curl_to(endpoint, "http://gateway", body)


def test_a_file_goes_as_a_form_and_sound_is_given_back_as_it_came(
    gateway: ScriptedGateway,
) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "audio/mpeg")
        exchange.event("sound")

    gateway.behave = behave
    there = Endpoint(base_url=f"http://127.0.0.1:{gateway.port}", key=Secret("bud-x"))
    spoken = ("a.mp3", b"\xff\x00")
    with raw.send(there, "/v1/audio/transcriptions", {"model": "tiny"}, spoken) as answer:
        assert not answer.is_text
        assert answer.content() == b"data: sound\n\n"
    form = gateway.requests[0]["form"]
    assert b'name="model"\r\n\r\ntiny' in form
    assert b'filename="a.mp3"' in form


@pytest.mark.parametrize(
    ("text", "named"),
    [('{"model": "a",}', "line 1"), ("[1]", "object"), ("", "line 1"), ('{\n"a" 1}', "line 2")],
)
def test_a_body_that_is_none_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        endpoints.read_body(text)
