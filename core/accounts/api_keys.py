"""Use cases of API keys: `bud-…`, shown once, stored as SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from sqlalchemy.orm import Session

from core.accounts import crud
from core.accounts.models import ApiKeyRow
from core.accounts.schemas import ActiveKey, ApiKeyView, NewKey
from core.contracts.route_table import Scope
from core.kernel import addresses, audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.kernel.keys import keyring

PREFIX = "bud-"
SCOPES: tuple[str, ...] = get_args(Scope)
_RANDOM_BYTES = 30
_MOST_NETWORKS = 100
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Restrictions:
    """What a key may be used for; None and empty restrict nothing.

    Attributes:
        expires_at: When it ends.
        models: The model names it may call.
        scopes: The endpoints it may call, of `SCOPES`.
        networks: The IP addresses or CIDR ranges that it may be used from.
    """

    expires_at: datetime | None = None
    models: Sequence[str] = ()
    scopes: Sequence[str] = ()
    networks: Sequence[str] = ()


def create_key(
    actor: Actor, project_id: str, name: str, restrictions: Restrictions = Restrictions()
) -> NewKey:
    """Make a key for a project; its text is in the result and nowhere else.

    Args:
        actor: Who makes it.
        project_id: The project whose models it opens.
        name: What it is for.
        restrictions: What it may be used for.

    Raises:
        InvalidInput: No name or one too long, an end in the past, or an unknown scope or network.
        Conflict: An active key of the project has this name.
    """
    actor.require("key:create", project_id)
    name = name.strip()
    _check_name(name)
    restrictions = _checked(restrictions)
    with database.reading() as session:
        taken = crud.active_key_named(session, project_id, name, clock.now())
    if taken is not None:
        raise Conflict(
            f"The key bud-…{taken.last_four} is called {name!r} already.",
            remedy="Two of one name cannot be told apart: choose another one, or revoke that key.",
        )
    return _add(actor, project_id, name, "user", restrictions)


def restrict_key(actor: Actor, key_id: str, restrictions: Restrictions) -> ApiKeyView:
    """Give a key other restrictions; the gateway follows within a second.

    Raises:
        InvalidInput: An end in the past, or an unknown scope or network.
        NotFound: No such key, or not the actor's to see.
        Conflict: It is revoked, or one that Bud itself uses.
    """
    checked = _checked(restrictions)
    with database.transaction() as tx:
        row = _visible(tx, actor, key_id)
        actor.require("key:create", row.project_id)
        if row.revoked_at is not None:
            raise Conflict(f"API key {row.name!r} is revoked.", remedy="Make a new one.")
        if row.kind != "user":
            raise Conflict(
                f"Bud itself uses the API key {row.name!r}.",
                remedy="Revoke it to end it; the Playground makes another one when it is used.",
            )
        _restrict(row, checked)
        audit.record(
            tx,
            actor,
            "key.restricted",
            f"key:{key_id}",
            project_id=row.project_id,
            name=row.name,
            expires_at=row.expires_at.isoformat() if row.expires_at else None,
            models=row.models,
            scopes=row.scopes,
            networks=row.networks,
        )
        view = ApiKeyView.model_validate(row)
    events.publish("keys.changed")
    return view


def _check_name(name: str) -> None:
    if not name:
        raise InvalidInput("The key has no name.", remedy="Say what it is for, such as 'ci'.")
    if len(name) > _LONGEST_NAME:
        raise InvalidInput(
            f"A key's name has at most {_LONGEST_NAME} characters; this one has {len(name):,}.",
            remedy="Shorten it.",
        )


def _checked(restrictions: Restrictions) -> Restrictions:
    expires_at = restrictions.expires_at
    if expires_at is not None and expires_at <= clock.now():
        raise InvalidInput(
            "The key would have expired already.", value=expires_at, remedy="Choose a later day."
        )
    unknown = [scope for scope in restrictions.scopes if scope not in SCOPES]
    if unknown:
        raise InvalidInput(
            "There is no such scope.", value=unknown[0], remedy=f"There are: {', '.join(SCOPES)}."
        )
    if len(restrictions.networks) > _MOST_NETWORKS:
        raise InvalidInput(
            f"A key has at most {_MOST_NETWORKS} networks.", value=len(restrictions.networks)
        )
    try:
        networks = [addresses.normalised(network) for network in restrictions.networks]
    except ValueError as error:
        raise InvalidInput(f"{error}.", remedy="Write it as 203.0.113.0/24.") from None
    return Restrictions(expires_at, list(restrictions.models), list(restrictions.scopes), networks)


def _restrict(row: ApiKeyRow, restrictions: Restrictions) -> None:
    row.expires_at = restrictions.expires_at
    row.models, row.scopes = list(restrictions.models), list(restrictions.scopes)
    row.networks = list(restrictions.networks)


def _add(actor: Actor, project_id: str, name: str, kind: str, restrictions: Restrictions) -> NewKey:
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    row = ApiKeyRow(
        id=ids.new_id("key"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        user_id=actor.user_id,
        name=name[:_LONGEST_NAME],
        kind=kind,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        last_four=secret[-4:],
        created_at=clock.now(),
    )
    _restrict(row, restrictions)
    if kind != "user":
        row.sealed = keyring().seal(Secret(secret), context=f"api_key:{row.id}")
    with database.transaction() as tx:
        tx.add(row)
        audit.record(
            tx, actor, "key.created", f"key:{row.id}", project_id=project_id, name=row.name
        )
    events.publish("keys.changed")
    view = ApiKeyView.model_validate(row).model_copy(update={"made_by": actor.name})
    return NewKey(view, Secret(secret))


def list_keys(actor: Actor, project_id: str) -> list[ApiKeyView]:
    """The keys of a project, newest first, with the revoked ones."""
    actor.require("key:read", project_id)
    with database.reading() as session:
        found = crud.keys(session, actor.tenant_id, project_id)
        people = {user.id: user.email for user in crud.users(session, actor.tenant_id)}
    people["cli"] = "command line"
    return [
        ApiKeyView.model_validate(row).model_copy(
            update={"made_by": people.get(row.user_id, row.user_id)}
        )
        for row in found
    ]


def revoke_key(actor: Actor, key_id: str) -> None:
    """End a key; the gateway refuses it within a second."""
    with database.transaction() as tx:
        row = _visible(tx, actor, key_id)
        actor.require("key:delete", row.project_id)
        if row.revoked_at is not None:
            raise Conflict(f"API key {row.name!r} is revoked already.")
        row.revoked_at = clock.now()
        audit.record(
            tx, actor, "key.revoked", f"key:{key_id}", project_id=row.project_id, name=row.name
        )
    events.publish("keys.changed")


def _visible(tx: Session, actor: Actor, key_id: str) -> ApiKeyRow:
    row = crud.key(tx, key_id)
    if row is None or row.tenant_id != actor.tenant_id or not actor.may("key:read", row.project_id):
        raise NotFound(f"There is no API key {key_id}.", remedy="See the API keys page.")
    return row


def playground_key(actor: Actor, project_id: str) -> Secret:
    """The key that Bud itself uses for this person in the Playground and `bud chat`."""
    actor.require("playground:use", project_id)
    with database.reading() as session:
        found = crud.keys_of_user(session, actor.user_id, project_id, "playground")
    for row in found:
        if row.sealed is not None:
            return keyring().open(row.sealed, context=f"api_key:{row.id}")
    name = f"Playground of {actor.name}"
    return _add(actor, project_id, name, "playground", Restrictions()).secret


def active_keys() -> list[ActiveKey]:
    """Every key that opens something now, for the route table."""
    with database.reading() as session:
        return [ActiveKey.model_validate(row) for row in crud.active_keys(session, clock.now())]
