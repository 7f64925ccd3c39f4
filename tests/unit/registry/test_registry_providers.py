"""Accounts at hosted providers, against doubles of their model lists on loopback."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import (
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
    UpstreamFailed,
)
from core.kernel.settings import settings
from core.registry import providers, versions
from core.registry import services as registry
from core.registry.schemas import ProviderRequest
from tests.doubles.provider_server import KEY, Providers, serving

PROJECT = "prj_default"


@pytest.fixture
def double(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    monkeypatch.setenv("BUD_PRIVATE_HOSTS", "localhost, 127.0.0.1")
    settings.cache_clear()
    with serving(Providers()) as made:
        yield made


@pytest.fixture(scope="module")
def service_account() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {"type": "service_account", "private_key": pem.decode()}
    return json.dumps(account | {"client_email": "bud@project.iam.gserviceaccount.com"})


def _request(double: Providers, kind: str = "openai", key: str = KEY, **more: Any) -> Any:
    path = {"openai": "openai/v1"}.get(kind, kind)
    values = {"base_url": f"{double.url}/{path}", "credentials": {"api_key": Secret(key)}}
    return ProviderRequest(kind=kind, **(values | more))


@pytest.mark.parametrize(
    ("kind", "path", "model", "name", "context_tokens"),
    [
        ("openai", "openai/v1", "gpt-4o-mini", "", None),
        ("anthropic", "anthropic/v1", "claude-3-7-sonnet-20250219", "Claude 3.7", None),
        ("azure_openai", "azure", "gpt-4o-2024-08-06", "", None),
        ("mistral", "openai/v1", "gpt-4o", "", None),
        ("groq", "groq/openai/v1", "llama-3.1-8b-instant", "", 131_072),
        ("together", "together/v1", "Qwen/Qwen3-8B", "Qwen3 8B", 40_960),
        ("deepseek", "openai/v1", "gpt-4o", "", None),
        ("openai_compatible", "openai/v1", "gpt-4o", "", None),
        ("bedrock", "bedrock", "amazon.nova-lite-v1:0", "Nova Lite", None),
        ("vertex", "vertex", "gemini-2.0-flash", "", None),
    ],
)
def test_every_kind_is_asked_in_its_own_format_and_refuses_a_wrong_key(
    double: Providers,
    admin: Actor,
    service_account: str,
    kind: str,
    path: str,
    model: str,
    name: str,
    context_tokens: int | None,
) -> None:
    def request(key: str) -> ProviderRequest:
        account = json.loads(service_account) | {"token_uri": f"{double.url}/vertex/token"}
        account["client_email"] = account["client_email"] if key == KEY else "x@example.org"
        credentials, options = {
            "bedrock": ({"access_key_id": key, "secret_access_key": "s3cr3t"}, {"region": "eu-1"}),
            "vertex": (
                {"service_account": json.dumps(account)},
                {"region": "europe-west1", "project": "mine"},
            ),
            "azure_openai": ({"api_key": key}, {"resource": "mine"}),
        }.get(kind, ({"api_key": key}, {}))
        return ProviderRequest(
            kind=kind,
            base_url=f"{double.url}/{path}",
            options=options,
            credentials={field: Secret(text) for field, text in credentials.items()},
        )

    with pytest.raises(NotAuthenticated, match="refuses these credentials") as caught:
        providers.add_provider(admin, PROJECT, request("sk-wrong-0815"))
    assert "sk-wrong-0815" not in str(caught.value) + repr(caught.value.__context__)
    assert providers.list_providers(admin, PROJECT) == []
    view = providers.add_provider(admin, PROJECT, request(KEY))
    found = {each.id: each for each in view.models}[model]
    assert (found.name, found.context_tokens) == (name, context_tokens)
    assert all(KEY not in asked for asked, *_ in double.requests)


def test_a_key_is_sealed_and_stands_nowhere_else(
    double: Providers, admin: Actor, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request = _request(double)
    view = providers.add_provider(admin, PROJECT, request)
    rows = audit.entries(admin, PROJECT, subject=f"provider:{view.id}")
    shown = f"{request!r} {view!r} {view.model_dump_json()} {[row.details for row in rows]}"
    assert [row.action for row in rows] == ["provider.created"]
    assert KEY not in shown + caplog.text
    with sqlite3.connect(data_dir / "bud.db") as connection:
        assert KEY not in "\n".join(connection.iterdump())
    assert providers.credentials_of(view.id) == {"api_key": Secret(KEY)}


def test_rotation_is_tested_first_and_deletion_waits_for_its_models(
    double: Providers, admin: Actor
) -> None:
    view = providers.add_provider(admin, PROJECT, _request(double, name="Ours"))
    with pytest.raises(Conflict, match="already a provider 'Ours'"):
        providers.add_provider(admin, PROJECT, _request(double, name="Ours"))
    with pytest.raises(NotAuthenticated):
        providers.rotate_credentials(admin, view.id, {"api_key": Secret("sk-wrong")})
    assert providers.credentials_of(view.id) == {"api_key": Secret(KEY)}
    double.key = "sk-new-1"
    failed = providers.test_provider(admin, view.id)
    assert "refuses these credentials" in str(failed.check_error)
    assert failed.models == view.models
    rotated = providers.rotate_credentials(admin, view.id, {"api_key": Secret("sk-new-1")})
    assert (rotated.check_error, rotated.rotated_at > view.rotated_at) == (None, True)
    assert providers.test_provider(admin, view.id).check_error is None
    model = registry.add_hosted(admin, view.id, "gpt-4o")
    with pytest.raises(Conflict, match="used by gpt-4o"):
        providers.delete_provider(admin, view.id)
    registry.delete_model(admin, model.id)
    providers.delete_provider(admin, view.id)
    with pytest.raises(NotFound):
        providers.credentials_of(view.id)


def test_a_hosted_model_is_listed_and_cannot_be_deployed(double: Providers, admin: Actor) -> None:
    account = providers.add_provider(admin, PROJECT, _request(double, name="Ours"))
    with pytest.raises(NotFound, match=r"lists no model 'gpt-4o-mni'.*gpt-4o-mini"):
        registry.add_hosted(admin, account.id, "gpt-4o-mni")
    model = registry.add_hosted(admin, account.id, "gpt-4o-mini")
    assert (model.kind, model.state, model.path) == ("hosted", "listed", None)
    assert model.source == "openai Ours/gpt-4o-mini"
    with pytest.raises(Conflict, match="already, as 'gpt-4o-mini'"):
        registry.add_hosted(admin, account.id, "gpt-4o-mini", "again")
    with pytest.raises(Conflict, match="runs at its provider and cannot be deployed"):
        versions.pinned(admin, model.id, None)
    assert versions.list_versions(admin, model.id) == []


def test_only_admins_of_the_project_handle_credentials(double: Providers, admin: Actor) -> None:
    member = Actor("usr_m", "m@example.org", admin.tenant_id, "member", {PROJECT: "member"})
    stranger = Actor("usr_s", "s@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    with pytest.raises(PermissionDenied, match="provider:create"):
        providers.add_provider(member, PROJECT, _request(double))
    assert double.requests == []
    view = providers.add_provider(admin, PROJECT, _request(double))
    assert providers.find_provider(member, PROJECT, "openai") == view
    with pytest.raises(PermissionDenied, match="provider:delete"):
        providers.delete_provider(member, view.id)
    with pytest.raises(NotFound):
        providers.get_provider(stranger, view.id)


def test_what_is_wrong_with_a_request_is_named_before_anything_is_sent(
    double: Providers, admin: Actor
) -> None:
    values = {"kind": "openai", "base_url": f"{double.url}/openai/v1"}
    values |= {"credentials": {"api_key": Secret(KEY)}}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"kind": "opnai"}, r"no kind of provider 'opnai'.*anthropic"),
        ({"credentials": {}}, r"OpenAI needs: API key \(api_key\)"),
        ({"credentials": {"token": Secret("x")}}, "no credential 'token'"),
        ({"credentials": {"api_key": Secret("a\nb")}}, "signs that no such key has"),
        ({"options": {"region": "x"}}, "no option 'region'"),
        ({"kind": "openai_compatible", "base_url": ""}, "needs a base URL"),
        ({"base_url": "https://me:pw@api.example"}, "holds a user name or password"),
        ({"base_url": "http://10.0.0.7/v1"}, "not https"),
        ({"base_url": "https://10.0.0.7/v1"}, r"private network.*BUD_PRIVATE_HOSTS"),
        ({"base_url": "https://user:word@[::1"}, r"^This is not a URL\.$"),
        ({"base_url": "https://[::ffff:169.254.169.254]/"}, "private network"),
        ({"base_url": "https://[64:ff9b::a00:1]/"}, "private network"),
        ({"kind": "azure_openai", "options": {"resource": "a/b"}}, "letters, digits"),
    ]
    for changes, said in cases:
        with pytest.raises(InvalidInput, match=said):
            providers.add_provider(admin, PROJECT, ProviderRequest(**(values | changes)))
    assert double.requests == []


def test_what_a_provider_answers_is_said_and_nothing_is_kept(
    double: Providers, admin: Actor
) -> None:
    cases: list[tuple[int, bytes, type[Exception], str]] = [
        (200, b"<html>log in</html>", UpstreamFailed, "not answer with a list of models"),
        (200, b'{"data": 7}', UpstreamFailed, "not answer with a list of models"),
        (404, b"{}", UpstreamFailed, "does not exist"),
        (429, b"{}", RateLimited, "too many requests"),
        (500, b"{}", UpstreamFailed, "answered 500"),
    ]
    for double.status, double.body, error, said in cases:
        with pytest.raises(error, match=said):
            providers.add_provider(admin, PROJECT, _request(double))
    with pytest.raises(Unavailable, match="cannot be reached"):
        providers.add_provider(admin, PROJECT, _request(double, base_url="http://127.0.0.1:9/v1"))
    assert providers.list_providers(admin, PROJECT) == []


def test_credentials_do_not_follow_a_redirect(double: Providers, admin: Actor) -> None:
    double.redirect = f"{double.url}/elsewhere"
    with pytest.raises(UpstreamFailed, match="redirects"):
        providers.add_provider(admin, PROJECT, _request(double))
    assert len(double.requests) == 1
