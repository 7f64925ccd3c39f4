"""Access tokens against a local issuer with real keys: accepted, refused, keys that turn."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from core.contracts.route_table import Project
from core.kernel.errors import InvalidInput
from gateway import signing_keys
from gateway.access_config import Issuer, issuers
from gateway.access_tokens import AccessTokens
from gateway.errors import GatewayError
from tests.doubles.gateway_harness import until
from tests.doubles.token_issuer import AUDIENCE, TokenIssuer

A = Project(id="prj_a", name="Alpha")
B = Project(id="prj_b", name="Beta")
PROJECTS = {"prj_a": A, "Alpha": A, "prj_b": B, "Beta": B}


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as made:
        yield made


def tokens(issuer: TokenIssuer, **more: Any) -> AccessTokens:
    return AccessTokens((Issuer(name="local", issuer=issuer.url, audience=AUDIENCE, **more),))


async def refusal(found: AccessTokens, token: str, asked: str = "") -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        await found.key(token, asked, PROJECTS)
    assert token not in refused.value.message
    return refused.value


async def test_each_algorithm_is_accepted_and_a_token_is_checked_once(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.add_ec("ec")
    issuer.add_ed25519("ed")
    issuer.keys["pss"] = (issuer.keys["rsa"][0], "PS256")
    accepted = tokens(issuer)
    for key_id in ("rsa", "pss", "ec", "ed"):
        key = await accepted.key(issuer.token(key_id), "", PROJECTS)
        assert (key.project_id, key.user_id, key.models) == ("prj_a", "local:ada", ())
    assert issuer.fetches == 1
    token = issuer.token()
    first = await accepted.key(token, "", PROJECTS)
    monkeypatch.setattr(jwt, "decode", None)
    assert await accepted.key(token, "Alpha", PROJECTS) is first
    assert "ada" not in first.id


@pytest.mark.parametrize(
    ("claims", "said", "status"),
    [
        ({"aud": "somebody"}, "another audience", 401),
        ({"aud": None}, "'aud'", 401),
        ({"iss": "https://evil.example"}, "issuer", 401),
        ({"exp": int(time.time()) - 60}, "expired", 401),
        ({"exp": None}, "'exp'", 401),
        ({"nbf": int(time.time()) + 86_400}, "not valid yet", 401),
        ({"sub": None}, "'sub' names no user", 401),
        ({"bud_project": None}, "no project", 403),
        ({"bud_project": "prj_z"}, "no project", 403),
        ({"bud_project": ["Alpha", "prj_b"]}, r"several projects \(Alpha, Beta\)", 403),
        ({"groups": ["guests"]}, "'groups'", 403),
    ],
)
async def test_claims_that_do_not_fit_are_refused(
    issuer: TokenIssuer, claims: dict[str, Any], said: str, status: int
) -> None:
    accepted = tokens(issuer, required_claims={"groups": "bud-users"})
    token = issuer.token(**{"groups": ["bud-users", "others"]} | claims)
    error = await refusal(accepted, token)
    assert error.status == status
    assert re.search(said, error.message)


async def test_projects_models_and_users_are_named_by_claims(issuer: TokenIssuer) -> None:
    accepted = tokens(
        issuer, user_claim="email", models_claim="access.models", project_claim="https://x/projects"
    )
    token = issuer.token(
        email="ada@example.org",
        access={"models": ["smol"]},
        **{"https://x/projects": ["Alpha", "prj_b", "prj_gone"]},
    )
    key = await accepted.key(token, "Beta", PROJECTS)
    assert (key.project_id, key.user_id, key.models) == (
        "prj_b", "local:ada@example.org", ("smol",),
    )  # fmt: skip
    other = await accepted.key(token, "prj_a", PROJECTS)
    assert other.project_id == "prj_a"
    assert other.id != key.id, "the limits of the one project would hold in the other"
    assert (await refusal(accepted, token, "prj_gone")).status == 403
    for none in ({}, {"models": []}):
        unlimited = issuer.token(email="ada@example.org", access=none)
        assert "names no model" in (await refusal(accepted, unlimited, "prj_a")).message
    fixed = tokens(issuer, project="Beta")
    assert (await fixed.key(issuer.token(bud_project="prj_a"), "", PROJECTS)).project_id == "prj_b"
    assert (await refusal(fixed, issuer.token(), "prj_a")).status == 403


async def test_confused_algorithms_and_forged_tokens_are_refused(issuer: TokenIssuer) -> None:
    issuer.add_ec("ec")
    accepted = tokens(issuer)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    public = issuer.keys["rsa"][0].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip

    def unsigned(header: dict[str, Any]) -> str:
        parts = (json.dumps(part).encode() for part in (header, claims))
        return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)

    other_rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, body, signature = issuer.token().split(".")
    good = [
        unsigned({"alg": "none", "kid": "rsa"}) + ".",
        unsigned({"alg": "nOnE", "kid": "rsa"}) + ".",
        # The public key as if it were a shared secret.
        (
            lambda signed: signed + "." + base64.urlsafe_b64encode(
                jwt.get_algorithm_by_name("HS256").sign(signed.encode(), public)
            ).rstrip(b"=").decode()
        )(unsigned({"alg": "HS256", "kid": "rsa"})),
        jwt.encode(
            claims, "secret-secret-secret-secret-secr", "HS256", headers={"kid": "secret"}
        ),
        jwt.encode(claims, other_rsa, "RS256", headers={"kid": "rsa"}),
        jwt.encode(
            claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "rsa"}
        ),
        jwt.encode(claims, other_rsa, "RS256", headers={"kid": "ec"}),
        jwt.encode(claims, other_rsa, "RS256"),
        f"{head}.{body[:-4]}AAAA.{signature}",
        f"{head}.{body}.",
        "a.b.c",
        "..",
        "é.é.é",
        f"{head}.{'A' * 20_000}.{signature}",
    ]  # fmt: skip
    for forged in good:
        assert (await refusal(accepted, forged)).status == 401
    assert (await accepted.key(issuer.token(), "", PROJECTS)).user_id == "local:ada"


async def test_new_keys_are_fetched_and_withdrawn_ones_end_what_they_signed(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = tokens(issuer)
    old = issuer.token("rsa")
    await accepted.key(old, "", PROJECTS)
    # A key that nobody knows is looked for once, not with every request.
    for _ in range(5):
        await refusal(accepted, issuer.token("rsa", kid="unknown"))
    assert issuer.fetches == 1
    monkeypatch.setattr(signing_keys, "_LEAST_INTERVAL_S", 0.0)
    accepted._keys[issuer.url]._next_try_s = 0.0
    issuer.add_ec("ec")
    await accepted.key(issuer.token("ec"), "", PROJECTS)
    assert issuer.fetches == 2
    new = issuer.token("ec")
    # The issuer breaks: what is known goes on to hold.
    issuer.broken = True
    monkeypatch.setattr(signing_keys, "_REFRESH_S", -1.0)
    assert (await accepted.key(new, "", PROJECTS)).user_id == "local:ada"
    await until(lambda: issuer.fetches >= 3, 10)
    assert (await accepted.key(old, "", PROJECTS)).user_id == "local:ada"
    # It comes back without the old key: found in the background, and what it signed is refused.
    issuer.broken = False
    del issuer.keys["rsa"]
    version = accepted._keys[issuer.url].version

    def turned() -> bool:
        accepted._keys[issuer.url].refresh_if_old()
        return accepted._keys[issuer.url].version > version

    await until(turned, 10)
    assert "signed with a key" in (await refusal(accepted, old)).message
    assert (await accepted.key(new, "", PROJECTS)).user_id == "local:ada"


async def test_an_issuer_out_of_reach_is_no_fault_of_the_token(issuer: TokenIssuer) -> None:
    issuer.broken = True
    error = await refusal(tokens(issuer), issuer.token())
    assert (error.status, error.code) == (503, "issuer_unavailable")


async def test_what_a_token_says_ends_with_it(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = tokens(issuer, leeway_s=0.0)
    ends_s = int(time.time()) + 600
    token = issuer.token(exp=ends_s)
    await accepted.key(token, "", PROJECTS)
    monkeypatch.setattr("gateway.access_tokens.clock.unix_s", lambda: ends_s + 1.0)
    monkeypatch.setattr(jwt.api_jwt, "datetime", _Later)
    assert "expired" in (await refusal(accepted, token)).message


class _Later(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "array"),
        ('[{"name": "a", "issuer": "b"}]', "audience"),
        ('[{"name": "a", "issuer": "b", "audience": "c", "wish": 1}]', "wish"),
        ('[{"name": "a b", "issuer": "b", "audience": "c"}]', "a b"),
        (
            '[{"name": "a", "issuer": "b", "audience": "c"},'
            ' {"name": "a", "issuer": "d", "audience": "c"}]',
            "same",
        ),
    ],
)
def test_issuers_that_cannot_be_used_are_named(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        issuers(text)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
        b"no HTTP at all\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"keys": [{"kty": [1]}]} ',
    ],
)
async def test_an_issuer_that_answers_nonsense_is_not_a_fault_of_the_gateway(
    issuer: TokenIssuer, answer: bytes
) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        accepted = tokens(issuer, jwks_url=f"http://127.0.0.1:{port}")
        error = await refusal(accepted, issuer.token())
    assert (error.status, error.code) == (503, "issuer_unavailable")
