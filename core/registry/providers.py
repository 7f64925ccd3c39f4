"""Accounts at providers of hosted models: added, tested, rotated, deleted.

Credentials are tested by a real request before they are kept, sealed by the keyring, and never
shown again: no view, log, URL or error holds them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping

from sqlalchemy.orm import Session

from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound
from core.kernel.keys import keyring
from core.registry import crud
from core.registry.adapters import guarded_http
from core.registry.adapters import providers as adapter
from core.registry.models import Provider
from core.registry.schemas import (
    HostedModel,
    ProviderKind,
    ProviderRequest,
    ProviderView,
    SealedAccount,
)

_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_CREDENTIAL = 20_000


def kinds() -> list[ProviderKind]:
    """The kinds of providers, and what an account at each needs."""
    return list(adapter.KINDS.values())


def add_provider(actor: Actor, project_id: str, request: ProviderRequest) -> ProviderView:
    """Add an account to a project, once a request to its list of models was answered.

    Admins of the project only. Nothing is kept when the test fails.

    Raises:
        InvalidInput: An unknown kind, a field that is missing or none of its kind, or an address
            that is refused: not https, or in a private network (see BUD_PRIVATE_HOSTS).
        NotAuthenticated: The provider refuses the credentials.
        UpstreamFailed, Unavailable, RateLimited: What else it answers, or that it does not.
        Conflict: The name is taken.
    """
    actor.require("provider:create", project_id)
    kind = _kind(request.kind)
    options = _checked_options(kind, request.options)
    credentials = _checked_credentials(kind, request.credentials)
    base_url = _base_url(kind, options, request.base_url)
    name = (request.name or kind.name).strip()[:80]
    with database.reading() as session:
        _require_free_name(session, actor, project_id, name)
    models = adapter.list_models(kind.id, base_url, options, credentials)
    provider_id, now = ids.new_id("prv"), clock.now()
    row = Provider(
        id=provider_id,
        tenant_id=actor.tenant_id,
        project_id=project_id,
        name=name,
        kind=kind.id,
        base_url=base_url,
        options=options,
        sealed_credentials=_sealed(provider_id, credentials),
        models=_plain(models),
        checked_at=now,
        rotated_at=now,
        created_by_name=actor.name,
        created_at=now,
    )
    with database.transaction() as tx:
        _require_free_name(tx, actor, project_id, name)
        tx.add(row)
        _record(tx, actor, "created", row, kind=kind.id, base_url=base_url)
    events.publish("models.changed")
    return ProviderView.model_validate(row)


def list_providers(actor: Actor, project_id: str) -> list[ProviderView]:
    """The accounts of a project, by name."""
    actor.require("provider:read", project_id)
    with database.reading() as session:
        rows = crud.providers(session, actor.tenant_id, project_id)
    return [ProviderView.model_validate(row) for row in rows]


def get_provider(actor: Actor, provider_id: str) -> ProviderView:
    """One account. NotFound when the actor cannot see it."""
    with database.reading() as session:
        return ProviderView.model_validate(_readable(session, actor, provider_id))


def find_provider(actor: Actor, project_id: str, name: str) -> ProviderView:
    """An account of the project, by id or name. NotFound names those there are."""
    known = list_providers(actor, project_id)
    for view in known:
        if name == view.id or name.lower() == view.name.lower():
            return view
    raise NotFound(
        f"There is no provider {name!r}.",
        remedy=f"There are: {', '.join(view.name for view in known) or 'none yet'}.",
    )


def test_provider(actor: Actor, provider_id: str) -> ProviderView:
    """Ask an account for its models again, and note the answer or why there is none.

    Raises:
        KeyProblem: The credentials cannot be opened.
    """
    view = get_provider(actor, provider_id)
    actor.require("provider:update", view.project_id)
    models, problem = None, None
    try:
        models = adapter.list_models(
            view.kind, view.base_url, view.options, credentials_of(provider_id)
        )
    except BudError as error:
        problem = str(error)
    with database.transaction() as tx:
        row = _readable(tx, actor, provider_id)
        row.checked_at, row.check_error = clock.now(), problem
        if models is not None:
            row.models = _plain(models)
        _record(tx, actor, "tested", row, ok=problem is None)
    return ProviderView.model_validate(row)


def rotate_credentials(
    actor: Actor, provider_id: str, credentials: Mapping[str, Secret]
) -> ProviderView:
    """Replace an account's credentials, once the new ones were tested; else the old ones stay.

    Raises:
        NotAuthenticated: The provider refuses the new ones.
        BudError: As for `add_provider`.
    """
    view = get_provider(actor, provider_id)
    actor.require("provider:update", view.project_id)
    checked = _checked_credentials(_kind(view.kind), credentials)
    models = adapter.list_models(view.kind, view.base_url, view.options, checked)
    with database.transaction() as tx:
        row = _readable(tx, actor, provider_id)
        row.sealed_credentials = _sealed(provider_id, checked)
        row.rotated_at = row.checked_at = clock.now()
        row.models, row.check_error = _plain(models), None
        _record(tx, actor, "rotated", row)
    events.publish("models.changed")
    return ProviderView.model_validate(row)


def delete_provider(actor: Actor, provider_id: str) -> None:
    """Delete an account with its credentials.

    Raises:
        Conflict: Models of the registry use it; names them.
    """
    view = get_provider(actor, provider_id)
    actor.require("provider:delete", view.project_id)
    with database.transaction() as tx:
        users = crud.of_provider(tx, provider_id)
        if users:
            raise Conflict(
                f"{view.name} is used by {', '.join(row.name for row in users[:5])}.",
                remedy="Delete these models first.",
            )
        row = _readable(tx, actor, provider_id)
        tx.delete(row)
        _record(tx, actor, "deleted", row)
    events.publish("models.changed")


def listed_model(account: ProviderView, name: str) -> HostedModel:
    """The model that an account lists under `name`.

    Where the provider's list does not hold all that can be called (deployments of Azure, inference
    profiles of Bedrock), any name is taken as it is.

    Raises:
        NotFound: It lists none; names the nearest.
    """
    name = name.strip()
    found = next((model for model in account.models if model.id == name), None)
    if found is not None:
        return found
    if not _kind(account.kind).lists_all and name:
        return HostedModel(id=name)
    known = [model.id for model in account.models]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    raise NotFound(
        f"{account.name} lists no model {name!r}.",
        remedy=f"The nearest: {', '.join(near) or 'it lists none'}.",
    )


def sealed_account(provider_id: str) -> SealedAccount | None:
    """An account as the route table needs it: its credentials stay sealed. None: there is none."""
    with database.reading() as session:
        row = crud.provider(session, provider_id)
    return SealedAccount.model_validate(row) if row is not None else None


def credentials_of(provider_id: str) -> dict[str, Secret]:
    """The credentials of an account, for a request to its provider and nothing else."""
    with database.reading() as session:
        row = crud.provider(session, provider_id)
    if row is None:
        raise NotFound(f"There is no provider {provider_id}.")
    opened = keyring().open(row.sealed_credentials, context=f"provider:{provider_id}")
    return {name: Secret(text) for name, text in json.loads(opened.reveal()).items()}


def _sealed(provider_id: str, credentials: Mapping[str, Secret]) -> str:
    plain = json.dumps({name: secret.reveal() for name, secret in credentials.items()})
    return keyring().seal(Secret(plain), context=f"provider:{provider_id}")


def _plain(models: list[HostedModel]) -> list[dict[str, object]]:
    return [model.model_dump(mode="json") for model in models]


def _kind(name: str) -> ProviderKind:
    kind = adapter.KINDS.get(name)
    if kind is None:
        raise InvalidInput(
            f"There is no kind of provider {name!r}.",
            remedy=f"There are: {', '.join(adapter.KINDS)}.",
        )
    return kind


def _checked_options(kind: ProviderKind, given: Mapping[str, str]) -> dict[str, str]:
    options = {name: value.strip() for name, value in given.items() if value.strip()}
    _require_fields(kind, set(options), set(kind.options), "option")
    for name, value in options.items():
        # They become part of a host name.
        if not _OPTION.fullmatch(value):
            raise InvalidInput(
                f"The {name} has letters, digits, dots and dashes only.", value=value[:100]
            )
    return options


def _checked_credentials(kind: ProviderKind, given: Mapping[str, Secret]) -> dict[str, Secret]:
    stripped = {name: secret.reveal().strip() for name, secret in given.items()}
    _require_fields(kind, {name for name in stripped if stripped[name]}, set(kind.credentials), "")
    for name, text in stripped.items():
        one_line = name == "service_account" or text.isprintable()
        if len(text) > _MAX_CREDENTIAL or not one_line or not text.isascii():
            raise InvalidInput(
                f"The {kind.credentials[name]} of {kind.name} holds signs that no such key has.",
                remedy="Copy it again, as one line.",
            )
    return {name: Secret(text) for name, text in stripped.items()}


def _require_fields(kind: ProviderKind, given: set[str], wanted: set[str], what: str) -> None:
    unknown, missing = sorted(given - wanted), sorted(wanted - given)
    if unknown:
        raise InvalidInput(
            f"{kind.name} has no {what or 'credential'} {unknown[0]!r}.",
            remedy=f"It takes: {', '.join(sorted(wanted)) or 'none'}.",
        )
    if missing:
        label = (kind.options | kind.credentials)[missing[0]]
        raise InvalidInput(f"{kind.name} needs: {label} ({missing[0]}).", remedy="Give it.")


def _base_url(kind: ProviderKind, options: Mapping[str, str], given: str | None) -> str:
    url = (given or "").strip().rstrip("/") or kind.base_url.format_map(options)
    if not url:
        raise InvalidInput(f"{kind.name} needs a base URL.", remedy="It usually ends in /v1.")
    guarded_http.check(url)
    return url


def _require_free_name(tx: Session, actor: Actor, project_id: str, name: str) -> None:
    if any(row.name == name for row in crud.providers(tx, actor.tenant_id, project_id)):
        raise Conflict(
            f"There is already a provider {name!r} in this project.",
            remedy="Choose another name, or rotate its credentials.",
        )


def _readable(tx: Session, actor: Actor, provider_id: str) -> Provider:
    row = crud.provider(tx, provider_id)
    seen = row is not None and row.tenant_id == actor.tenant_id
    if row is None or not seen or not actor.may("provider:read", row.project_id):
        raise NotFound(f"There is no provider {provider_id}.", remedy="See the Models page.")
    return row


def _record(tx: Session, actor: Actor, verb: str, row: Provider, **details: object) -> None:
    audit.record(
        tx,
        actor,
        f"provider.{verb}",
        f"provider:{row.id}",
        project_id=row.project_id,
        name=row.name,
        **details,
    )
