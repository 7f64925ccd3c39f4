"""Hosted models through one real gateway process; doubles speak the providers' wire formats.

llama.cpp is no double: its own server, with the starter model.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import openai
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from core.contracts.route_table import Hosted, Price, Replica, Route
from core.deployments import server_records
from core.deployments.model_server import ServerConfig
from core.kernel.crypto import Keyring, Secret
from core.registry import services as registry
from tests.doubles import provider_chat
from tests.doubles.gateway_harness import (
    KEY,
    ROOT,
    GatewayProcess,
    facts_on_disk,
    publish,
    route,
    until,
)
from tests.doubles.provider_chat import SAMPLES, TEXT, TOOL, Chats

HELLO = [{"role": "user", "content": "Hello"}]
_PRICE = Price(
    input_usd_per_million_tokens=1.0,
    output_usd_per_million_tokens=2.0,
    cached_usd_per_million_tokens=0.5,
)


@dataclass
class Running:
    """A gateway with a route for each kind, and the providers behind it."""

    gateway: GatewayProcess
    chats: Chats
    client: openai.OpenAI


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, _made_keys: Path) -> Iterator[Running]:
    data_dir = tmp_path_factory.mktemp("hosted")
    shutil.copytree(_made_keys, data_dir / "keys")
    keyring = Keyring(data_dir / "keys")
    with provider_chat.serving(Chats()) as chats:
        credentials = {"api_key": provider_chat.KEY}
        parts = {
            "vertex": {"service_account": _service_account(chats.url)},
            "bedrock": {"access_key_id": "AKID", "secret_access_key": provider_chat.KEY},
        }
        routes = [
            _hosted(keyring, kind, chats.url, parts.get(kind, credentials)) for kind in SAMPLES
        ]
        publish(data_dir, routes)
        with llama_cpp(data_dir, keyring) as port, GatewayProcess(data_dir) as gateway:
            url = f"http://127.0.0.1:{port}/v1"
            live = _hosted(keyring, "llama_cpp", url, credentials, path="")
            publish(data_dir, [*routes, live], version=2)
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)
            yield Running(gateway, chats, client)


@contextmanager
def llama_cpp(data_dir: Path, keyring: Keyring) -> Iterator[int]:
    """A real llama.cpp server with the starter model; gives its port."""
    config = ServerConfig(
        replica_id="rep_llama",
        deployment_id="dep_llama",
        data_dir=str(data_dir),
        keys_dir=str(data_dir / "keys"),
        model_path=str(registry._starter_path()),
        model_name="theirs",
        credential=keyring.seal(Secret(provider_chat.KEY), context="replica:rep_llama"),
        context_tokens=512,
        slots=1,
        threads=1,
        embedding=False,
    )
    path = server_records.config_path(data_dir, config.replica_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "core.deployments.model_server", str(path)]
    with (data_dir / "llama.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield _port(data_dir, process)
    finally:
        process.kill()
        process.wait()


def _port(data_dir: Path, process: subprocess.Popen[bytes]) -> int:
    deadline_s = time.monotonic() + 120
    while True:
        record = server_records.read_all(data_dir).get("rep_llama")
        if record is not None and record.port:
            return record.port
        assert process.poll() is None, (data_dir / "llama.log").read_text()
        assert time.monotonic() < deadline_s, "llama.cpp did not start"
        time.sleep(0.05)


def _service_account(url: str) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    email, token_uri = provider_chat.SERVICE_ACCOUNT, f"{url}/token"
    return json.dumps({"client_email": email, "private_key": pem, "token_uri": token_uri})


def _hosted(
    keyring: Keyring, kind: str, url: str, credentials: dict[str, str], path: str | None = None
) -> Route:
    options = {"region": "eu-west-1", "project": "p"}
    hosted = Hosted(kind=kind, model="theirs", account_id=f"prv_{kind}", options=options)
    sealed = keyring.seal(Secret(json.dumps(credentials)), context=f"provider:prv_{kind}")
    replica = Replica(
        id=f"rep_{kind}",
        base_url=url + (f"/{kind}" if path is None else path),
        credential=sealed,
        hosted=hosted,
    )
    return route(
        model=kind,
        deployment_id=f"dep_{kind}",
        upstream_model="theirs",
        replicas=[replica],
        price=_PRICE,
    )


@pytest.mark.parametrize("kind", SAMPLES)
def test_official_client_gets_the_answer_whole_and_streamed(running: Running, kind: str) -> None:
    whole = running.client.chat.completions.create(model=kind, messages=HELLO)
    choice = whole.choices[0]
    assert (whole.model, choice.message.content, choice.finish_reason) == (kind, TEXT, "tool_calls")
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.name == TOOL
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (25, 12)
    stream = running.client.chat.completions.create(model=kind, messages=HELLO, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert {chunk.model for chunk in chunks} == {kind}
    # Usage was not asked for: it is counted, not shown.
    assert all(chunk.usage is None for chunk in chunks)
    asked = [request for request in running.chats.requests if request[0] == kind]
    assert len(asked) == 2
    # The caller's key stays here; the provider gets its own.
    assert all(KEY not in str(headers) for _, _, headers, _ in asked)
    shown = str(asked[0][2])
    assert ("Credential=AKID/" if kind == "bedrock" else provider_chat.KEY) in shown


def test_real_llama_cpp_answers_whole_and_streamed(running: Running) -> None:
    create = running.client.chat.completions.create
    whole = create(model="llama_cpp", messages=HELLO, max_completion_tokens=3)
    assert whole.model == "llama_cpp"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3
    options = {"include_usage": True}
    chunks = list(
        create(model="llama_cpp", messages=HELLO, max_tokens=3, stream=True, stream_options=options)
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert any(chunk.choices[0].delta.content for chunk in chunks[:-1])
    long = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(openai.BadRequestError) as refused:
        create(model="llama_cpp", messages=long)
    assert refused.value.code == "context_length_exceeded"


async def test_tokens_and_cost_are_counted_and_errors_are_openais(running: Running) -> None:
    running.chats.status = 429
    try:
        with pytest.raises(openai.RateLimitError) as refused:
            running.client.chat.completions.create(model="anthropic", messages=HELLO)
        assert refused.value.response.headers["retry-after"] == "7"
        running.chats.status = 401
        with pytest.raises(openai.InternalServerError, match="refuses Bud's credentials"):
            running.client.chat.completions.create(model="bedrock", messages=HELLO, stream=True)
    finally:
        running.chats.status = 200
    running.client.chat.completions.create(model="gemini", messages=HELLO, stream=True).close()
    await until(lambda: len(facts_on_disk(running.gateway.data_dir)) >= 2 * len(SAMPLES) + 2, 5)
    good = [fact for fact in facts_on_disk(running.gateway.data_dir) if fact.status == 200]
    full = [fact for fact in good if fact.cost_usd is not None and fact.model != "llama_cpp"]
    assert len(full) >= 2 * len(SAMPLES)
    for fact in full:
        counted = (fact.input_tokens, fact.output_tokens, fact.cached_tokens)
        assert counted == provider_chat.USAGE
        assert fact.cost_usd == pytest.approx((20 * 1.0 + 5 * 0.5 + 12 * 2.0) / 1e6)
    assert provider_chat.KEY not in Path(running.gateway.log).read_text()
    assert running.chats.tokens == 1
