"""What callers see of people and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.contracts.route_table import Scope
from core.kernel.actor import Actor, Role
from core.kernel.crypto import Secret


class UserView(BaseModel):
    """A person, without anything secret."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    email: str
    name: str
    role: Role
    enabled: bool
    must_change_password: bool
    demo: bool
    created_at: datetime
    last_log_in_at: datetime | None
    last_project_id: str | None = None
    projects: dict[str, Role] = {}


class ApiKeyView(BaseModel):
    """A key as lists show it: never the key itself."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    user_id: str
    name: str
    kind: str
    last_four: str
    made_by: str = ""
    models: list[str]
    scopes: list[str]
    networks: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class ActiveKey(BaseModel):
    """What the route table needs of a key."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    user_id: str
    sha256: str
    models: list[str]
    scopes: list[Scope]
    networks: list[str]
    expires_at: datetime | None


@dataclass(frozen=True)
class Bootstrap:
    """The first admin; the password is None when it was given, or made before.

    `is_new` says that the account was made now.
    """

    email: str
    one_time_password: Secret | None
    is_new: bool


@dataclass(frozen=True)
class LogIn:
    """A successful log-in; `token` goes into the cookie and nowhere else."""

    token: Secret
    must_change_password: bool


@dataclass(frozen=True)
class LoggedIn:
    """Who a token belongs to."""

    actor: Actor
    user: UserView
    expires_at: datetime


@dataclass(frozen=True)
class NewUser:
    """A user just added, with the password to hand over once."""

    user: UserView
    one_time_password: Secret


@dataclass(frozen=True)
class NewKey:
    """A key just made; `secret` is shown once."""

    key: ApiKeyView
    secret: Secret
