"""Hosted endpoints: from a hosted model of the registry to a route of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.contracts import route_table
from core.contracts.route_table import Route
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.kernel import clock, database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.kernel.keys import keyring
from core.playground import services as playground
from core.prices import services as prices
from core.projects import services as projects
from core.registry import services as registry
from core.registry.adapters.providers import KINDS
from core.registry.models import Provider
from core.routing import services as routing
from gateway import providers

PROJECT = "prj_default"


def _account(kind: str, base_url: str, **options: str) -> str:
    """Write what adding an account would, once its provider had answered."""
    sealed = keyring().seal(Secret('{"api_key": "sk-1"}'), context="provider:prv_1")
    with database.transaction() as tx:
        now = clock.now()
        row = Provider(
            id="prv_1",
            tenant_id="ten_default",
            project_id=PROJECT,
            name="Account",
            kind=kind,
            base_url=base_url,
            options=options,
            sealed_credentials=sealed,
            models=[{"id": "gpt-4o-mini", "context_tokens": 128_000}],
            checked_at=now,
            rotated_at=now,
            created_by_name="A",
            created_at=now,
        )
        tx.add(row)
    return "prv_1"


def _hosted_routes() -> list[Route]:
    table = route_table.decode(routing.table_path().read_bytes())
    return [route for route in table.routes if any(each.hosted for each in route.replicas)]


def test_a_hosted_model_becomes_a_route_and_goes_again(
    data_dir: Path, admin: Actor, quick_passwords: None
) -> None:
    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    routing.subscribe()
    model = registry.add_hosted(
        admin, _account("openai", "https://api.openai.com/v1"), "gpt-4o-mini"
    )
    made = hosted.serve(admin, model.id, "mini")
    prices.set_token_price(
        admin, PROJECT, "mini", input_usd_per_million_tokens=0.15, output_usd_per_million_tokens=0.6
    )
    (route,) = _hosted_routes()
    (replica,) = route.replicas
    assert (route.model, route.capabilities, route.context_tokens) == ("mini", ["chat"], 128_000)
    assert route.price is not None
    assert route.price.output_usd_per_million_tokens == 0.6
    assert replica.hosted is not None
    assert (replica.base_url, replica.hosted.model) == ("https://api.openai.com/v1", "gpt-4o-mini")
    # Sealed in the table, and the gateway's context opens it.
    assert b"sk-1" not in routing.table_path().read_bytes()
    opened = keyring().open(replica.credential, context=f"provider:{replica.hosted.account_id}")
    assert providers.make(replica.base_url, replica.hosted, opened.reveal())
    assert playground.chat_models(admin, PROJECT) == ["mini"]
    with pytest.raises(Conflict, match="hosted endpoint mini"):
        registry.delete_model(admin, model.id)
    hosted.withdraw(admin, made.id)
    assert _hosted_routes() == []
    registry.delete_model(admin, model.id)


def test_names_are_free_among_deployments_and_hosted_endpoints(
    data_dir: Path, admin: Actor
) -> None:
    model = registry.add_hosted(
        admin, _account("openai", "https://api.openai.com/v1"), "gpt-4o-mini"
    )
    assert hosted.serve(admin, model.id).name == "gpt-4o-mini"
    assert hosted.serve(admin, model.id).name == "gpt-4o-mini-2"
    starter = registry.add_starter(admin)
    request = DeploymentRequest(project_id=PROJECT, name="gpt-4o-mini", model_id=starter.id)
    with pytest.raises(Conflict, match="hosted endpoint"):
        deployments.deploy(admin, request)
    with pytest.raises(InvalidInput, match="not hosted"):
        hosted.serve(admin, starter.id)
    with pytest.raises(NotFound, match="There is no hosted"):
        hosted.find_hosted(admin, PROJECT, "nothing")


def test_strangers_do_not_serve_and_chat_only_kinds_have_no_embeddings(
    data_dir: Path, admin: Actor
) -> None:
    account = _account("bedrock", "https://bedrock.eu-west-1.amazonaws.com", region="eu-west-1")
    model = registry.add_hosted(admin, account, "amazon.nova-lite-v1:0")
    stranger = Actor("usr_x", "X", admin.tenant_id)
    with pytest.raises(NotFound):
        hosted.serve(stranger, model.id)
    with pytest.raises(PermissionDenied):
        hosted.names(stranger, PROJECT)
    with pytest.raises(InvalidInput, match="chat only"):
        hosted.serve(admin, model.id, task="embedding")
    hosted.serve(admin, model.id, "nova")
    (source,) = hosted.routes()
    assert source.capability == "chat"
    assert source.base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert source.options == {"region": "eu-west-1"}


def test_the_gateway_has_an_adapter_for_every_kind_of_account() -> None:
    assert set(KINDS) <= set(providers.KINDS)
