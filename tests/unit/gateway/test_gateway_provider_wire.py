"""What providers need below JSON: AWS's signature and event stream, Google's tokens."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from core.contracts import route_table
from core.contracts.route_table import Hosted, Replica
from core.kernel import clock
from gateway.errors import GatewayError
from gateway.providers import event_stream, google_token, sigv4
from gateway.providers.google_token import Tokens
from gateway.table import TableHolder
from gateway.upstream import Broken, ConnectFailed
from tests.doubles import provider_chat
from tests.doubles.gateway_harness import CHAT, free_port, publish, route
from tests.doubles.provider_chat import Chats

AT_UNIX_S = 1_440_938_160.0  # 2015-08-30T12:36:00Z, as in AWS's own examples
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize("token", ["", "IQoJb3JpZ2luX2VjEXAMPLETOKEN=="])
@pytest.mark.parametrize(
    "path", ["/", "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse-stream"]
)
def test_signature_is_botocores(monkeypatch: pytest.MonkeyPatch, path: str, token: str) -> None:
    host, body = "bedrock-runtime.eu-west-1.amazonaws.com", b'{"messages":[]}'
    ours = sigv4.signed(
        sigv4.Keys("AKIDEXAMPLE", SECRET, token),
        region="eu-west-1",
        service="bedrock",
        host=host,
        path=path,
        headers={"Content-Type": "application/json"},
        body=body,
        at_unix_s=AT_UNIX_S,
    )
    headers = {"Content-Type": "application/json", "Host": host}
    theirs = AWSRequest("POST", f"https://{host}{path}", headers=headers, data=body)
    theirs.context["timestamp"] = "20150830T123600Z"
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, token or None), "bedrock", "eu-west-1")
    theirs.headers["X-Amz-Date"] = theirs.context["timestamp"]
    if token:
        theirs.headers["X-Amz-Security-Token"] = token
    canonical = auth.canonical_request(theirs)
    signature = auth.signature(auth.string_to_sign(theirs, canonical), theirs)
    assert ours["Authorization"].endswith(f"Signature={signature}")
    assert ours["X-Amz-Date"] == "20150830T123600Z"
    assert SECRET not in str(ours)
    assert SECRET not in repr(sigv4.Keys("AKIDEXAMPLE", SECRET, token))


def test_event_stream_is_botocores() -> None:
    content = provider_chat.SAMPLES["bedrock"].stream
    buffer = EventStreamBuffer()
    buffer.add_data(content)
    theirs = [(each.headers, each.payload) for each in buffer]
    reader = event_stream.Reader()
    ours = [
        message for at in range(0, len(content), 7) for message in reader.feed(content[at : at + 7])
    ]
    assert [(each.headers, each.payload) for each in ours] == theirs
    assert len(theirs) == 11


def test_event_stream_skips_headers_of_other_types() -> None:
    flag, number = b"\x01a\x00", b"\x01b\x04\x00\x00\x00\x07"
    text, raw = b"\x01c\x07\x00\x02hi", b"\x01d\x06\x00\x01z"
    assert event_stream._headers(flag + number + raw + text) == {"c": "hi"}


@pytest.mark.parametrize("at", [0, 5, 9, 20, -1])
def test_damaged_event_stream_is_broken(at: int) -> None:
    content = bytearray(provider_chat.event("messageStart", {"role": "assistant"}))
    content[at] ^= 0x40
    with pytest.raises(Broken):
        list(event_stream.Reader().feed(bytes(content)))


# -- Google's tokens


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


def service_account(key: rsa.RSAPrivateKey, token_uri: str) -> str:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    email = provider_chat.SERVICE_ACCOUNT
    return json.dumps({"client_email": email, "private_key": pem.decode(), "token_uri": token_uri})


async def test_token_is_fetched_once_and_renewed_beside_requests(
    monkeypatch: pytest.MonkeyPatch, key: rsa.RSAPrivateKey
) -> None:
    now_s = clock.monotonic_s()
    with provider_chat.serving(Chats()) as chats:
        tokens = Tokens(service_account(key, f"{chats.url}/token"))
        await tokens.ready(2)
        await tokens.ready(2)
        assert (tokens.token, chats.tokens) == (provider_chat.KEY, 1)
        # Near its end it still serves, while the next one is fetched.
        monkeypatch.setattr(clock, "monotonic_s", lambda: now_s + 3300)
        await tokens.ready(2)
        assert tokens._renewal is not None
        await tokens._renewal
        assert chats.tokens == 2


def test_assertion_is_signed_for_the_token_uri(key: rsa.RSAPrivateKey) -> None:
    account = google_token._read(service_account(key, "https://oauth2.example/token"))
    signed, _, signature = google_token._assertion(account, 1_000).rpartition(".")
    key.public_key().verify(
        _decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    claims = msgspec.json.decode(_decoded(signed.partition(".")[2]))
    assert (claims["aud"], claims["iat"], claims["exp"]) == (account.token_uri, 1_000, 4_600)


def _decoded(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_token_that_nobody_gives(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(GatewayError) as refused:
        await Tokens('{"private_key": "-----BEGIN"}').ready(1)
    assert refused.value.code == "provider_credentials"
    assert "BEGIN" not in refused.value.message
    with pytest.raises(ConnectFailed):
        await Tokens(service_account(key, f"http://127.0.0.1:{free_port()}/token")).ready(1)


# -- the table


async def test_old_tables_decode_and_unknown_kinds_are_left_out(tmp_path: Path) -> None:
    old = b'{"version":1,"published_unix_s":1.0,"routes":[{"model":"m","project_id":"p",'
    old += b'"deployment_id":"d","upstream_model":"m","capabilities":["chat"],"future":1,'
    old += b'"replicas":[{"id":"r","base_url":"http://127.0.0.1:1"}]}]}'
    assert route_table.decode(old).routes[0].replicas[0].hosted is None
    hosted = Hosted(kind="of-tomorrow", model="m", account_id="prv_1")
    replica = Replica(id="r", base_url="https://host.example/v1", credential="x", hosted=hosted)
    publish(tmp_path, [route(replicas=[replica])])
    held = TableHolder(tmp_path / "routes" / "table.json", tmp_path / "keys")
    await held.refresh()
    target = held.current.routes["prj_a", CHAT]
    assert target.backends == ()
    assert "of-tomorrow" in target.problem
