"""Hosted endpoints: models at providers under a name of the project, as deployments have one."""

from __future__ import annotations

from typing import cast

from sqlalchemy.orm import Session

from core.deployments import crud, services
from core.deployments.models import HostedEndpoint
from core.deployments.schemas import HostedRoute, HostedTask, HostedView
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.registry import providers
from core.registry import services as registry
from core.registry.schemas import ModelView, SealedAccount

# Kinds whose interface has chat only.
_CHAT_ONLY = frozenset({"anthropic", "bedrock", "gemini", "vertex"})


def serve(
    actor: Actor, model_id: str, name: str | None = None, *, task: HostedTask = "chat"
) -> HostedView:
    """Let callers of the project use a hosted model under `name`, through its account.

    Args:
        actor: Who does it.
        model_id: A hosted model of the project.
        name: The model name that callers use; None makes one of the model's.
        task: What it is for; providers do not say.

    Raises:
        InvalidInput: It is not a hosted model, a bad name, or a task its provider has not.
        Conflict: The name is taken.
    """
    model = registry.get_model(actor, model_id)
    project_id, account_id = model.project_id, model.provider_id
    if model.kind != "hosted" or project_id is None or account_id is None:
        raise InvalidInput(
            f"{model.name} is not hosted at a provider.", remedy="Deploy it with: bud deploy"
        )
    actor.require("deployment:create", project_id)
    account = providers.get_provider(actor, account_id)
    if task != "chat" and account.kind in _CHAT_ONLY:
        raise InvalidInput(f"{account.name} has chat only here.", value=task)
    name = name or services.suggest_name(actor, project_id, model)
    row = HostedEndpoint(
        id=ids.new_id("hep"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        name=name,
        model_id=model.id,
        task=task,
        created_by_name=actor.name,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        services.require_free_name(tx, project_id, name)
        tx.add(row)
        _record(tx, actor, "served", row, model=model.name, account=account.name)
    events.publish("deployments.changed")
    return HostedView.model_validate(row)


def list_hosted(actor: Actor, project_id: str) -> list[HostedView]:
    """The hosted endpoints of a project, by name."""
    actor.require("deployment:read", project_id)
    with database.reading() as session:
        rows = crud.hosted(session, project_id)
    return [HostedView.model_validate(row) for row in rows if row.tenant_id == actor.tenant_id]


def find_hosted(actor: Actor, project_id: str, name: str) -> HostedView:
    """A hosted endpoint, by id or name. NotFound names those there are."""
    known = list_hosted(actor, project_id)
    for view in known:
        if name in (view.id, view.name):
            return view
    raise NotFound(
        f"There is no hosted endpoint {name!r}.",
        remedy=f"There are: {', '.join(view.name for view in known) or 'none yet'}.",
    )


def withdraw(actor: Actor, endpoint_id: str) -> None:
    """Take a hosted endpoint away; its requests stay in the metrics, the model in the registry.

    Raises Conflict: a route has it as a target.
    """
    with database.transaction() as tx:
        row = crud.hosted_endpoint(tx, endpoint_id)
        seen = row is not None and row.tenant_id == actor.tenant_id
        if row is None or not seen or not actor.may("deployment:read", row.project_id):
            raise NotFound(f"There is no hosted endpoint {endpoint_id}.")
        actor.require("deployment:delete", row.project_id)
        services.require_unused_name(tx, row.project_id, row.name)
        tx.delete(row)
        _record(tx, actor, "withdrawn", row)
    events.publish("deployments.changed")


def names(actor: Actor, project_id: str, task: HostedTask | None = None) -> list[str]:
    """The names of the hosted endpoints of a project, of one task or of all."""
    return [view.name for view in list_hosted(actor, project_id) if task in (None, view.task)]


def routes() -> list[HostedRoute]:
    """Every hosted endpoint as the route table needs it."""
    with database.reading() as session:
        rows = crud.hosted(session)
    found = []
    for row in rows:
        model = _model(row)
        account = providers.sealed_account(model.provider_id or "") if model else None
        if model is not None and account is not None:
            found.append(_route(row, model, account))
    return found


def _model(row: HostedEndpoint) -> ModelView | None:
    try:
        return registry.get_model(Actor.system(row.tenant_id), row.model_id)
    except NotFound:
        return None  # deleted between the two reads; the next table is without it


def _route(row: HostedEndpoint, model: ModelView, account: SealedAccount) -> HostedRoute:
    base_url = account.base_url
    if account.kind == "bedrock":
        # The account's address is that of the model list; models answer at a host of their own.
        base_url = base_url.replace("https://bedrock.", "https://bedrock-runtime.", 1)
    return HostedRoute(
        endpoint_id=row.id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        name=row.name,
        capability=cast(HostedTask, row.task),
        context_tokens=model.context_tokens or 0,
        created_at=row.created_at,
        kind=account.kind,
        base_url=base_url,
        options=account.options,
        provider_model=model.provider_model or model.name,
        account_id=account.id,
        sealed_credentials=account.sealed_credentials,
    )


def _record(tx: Session, actor: Actor, verb: str, row: HostedEndpoint, **details: object) -> None:
    audit.record(
        tx,
        actor,
        f"hosted_endpoint.{verb}",
        f"hosted_endpoint:{row.id}",
        project_id=row.project_id,
        name=row.name,
        **details,
    )


def _users_of_model(model_id: str) -> list[str]:
    with database.reading() as session:
        rows = crud.hosted(session)
    return [f"hosted endpoint {row.name}" for row in rows if row.model_id == model_id]


registry.register_usage_check(_users_of_model)
