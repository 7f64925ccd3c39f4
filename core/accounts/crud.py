"""Every query of the accounts domain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from core.accounts.models import (
    ApiKeyRow,
    LogInFailure,
    LogInSession,
    Membership,
    Tenant,
    User,
)


def tenant(tx: Session, tenant_id: str) -> Tenant | None:
    """One tenant."""
    return tx.get(Tenant, tenant_id)


def user(tx: Session, user_id: str) -> User | None:
    """One user."""
    return tx.get(User, user_id)


def user_by_email(tx: Session, email: str) -> User | None:
    """The user with this e-mail address; case does not matter."""
    return tx.scalar(select(User).where(User.email == email.strip().lower()))


def users(tx: Session, tenant_id: str) -> list[User]:
    """Every user of a tenant, by e-mail."""
    return list(tx.scalars(select(User).where(User.tenant_id == tenant_id).order_by(User.email)))


def other_enabled_admins(tx: Session, tenant_id: str, user_id: str) -> int:
    """How many enabled admins there are besides `user_id`; demo people cannot help anybody."""
    query = select(func.count()).select_from(User)
    is_admin = (User.tenant_id == tenant_id, User.role == "admin", User.enabled, ~User.demo)
    return tx.scalar(query.where(*is_admin, User.id != user_id)) or 0


def memberships(tx: Session, user_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The role in each project, by user."""
    found: dict[str, dict[str, str]] = {user_id: {} for user_id in user_ids}
    for row in tx.scalars(select(Membership).where(Membership.user_id.in_(user_ids))):
        found[row.user_id][row.project_id] = row.role
    return found


def set_membership(tx: Session, user_id: str, project_id: str, role: str | None) -> None:
    """Give a user a role in a project, or take it away with None."""
    row = tx.get(Membership, (user_id, project_id))
    if role is None:
        if row is not None:
            tx.delete(row)
        return
    if row is None:
        tx.add(Membership(user_id=user_id, project_id=project_id, role=role))
    else:
        row.role = role


def session(tx: Session, token_sha256: str) -> LogInSession | None:
    """One log-in."""
    return tx.get(LogInSession, token_sha256)


def has_logged_in_from(tx: Session, user_id: str, client: str) -> bool:
    """Whether a log-in of the user from this client is still kept."""
    query = select(LogInSession.token_sha256).where(
        LogInSession.user_id == user_id, LogInSession.client == client
    )
    return tx.scalar(query.limit(1)) is not None


def has_live_session(tx: Session, at: datetime) -> bool:
    """Whether anybody's log-in is neither revoked nor expired."""
    query = select(LogInSession.token_sha256).where(
        LogInSession.revoked_at.is_(None), LogInSession.expires_at > at
    )
    return tx.scalar(query.limit(1)) is not None


def end_sessions(tx: Session, user_id: str, at: datetime, keep: str | None = None) -> None:
    """Revoke every log-in of a user, but for the one with token hash `keep`."""
    query = update(LogInSession).where(
        LogInSession.user_id == user_id, LogInSession.revoked_at.is_(None)
    )
    if keep is not None:
        query = query.where(LogInSession.token_sha256 != keep)
    tx.execute(query.values(revoked_at=at))


def failures(tx: Session, subject: str, since: datetime) -> list[datetime]:
    """When log-ins of `subject` failed, oldest first."""
    query = select(LogInFailure.at).where(LogInFailure.subject == subject, LogInFailure.at > since)
    return list(tx.scalars(query.order_by(LogInFailure.at)))


def forget_failures(tx: Session, subject: str, ids: Sequence[str]) -> None:
    """Drop the failures of `subject`, and those with one of `ids`."""
    tx.execute(
        delete(LogInFailure).where(or_(LogInFailure.subject == subject, LogInFailure.id.in_(ids)))
    )


def forget_failures_before(tx: Session, moment: datetime) -> None:
    """Drop everybody's failures from before a moment."""
    tx.execute(delete(LogInFailure).where(LogInFailure.at < moment))


def forget_sessions_before(tx: Session, moment: datetime) -> int:
    """Drop everybody's log-ins that expired before a moment; how many there were."""
    old = delete(LogInSession).where(LogInSession.expires_at < moment)
    return tx.connection().execute(old).rowcount


def key(tx: Session, key_id: str) -> ApiKeyRow | None:
    """One API key."""
    return tx.get(ApiKeyRow, key_id)


def keys(tx: Session, tenant_id: str, project_id: str) -> list[ApiKeyRow]:
    """The keys of a project, newest first."""
    query = select(ApiKeyRow).where(
        ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.project_id == project_id
    )
    return list(tx.scalars(query.order_by(ApiKeyRow.created_at.desc())))


def active_keys(tx: Session, at: datetime) -> list[ApiKeyRow]:
    """Every key that is neither revoked nor expired."""
    query = select(ApiKeyRow).where(
        ApiKeyRow.revoked_at.is_(None),
        or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > at),
    )
    return list(tx.scalars(query.order_by(ApiKeyRow.id)))


def active_key_named(tx: Session, project_id: str, name: str, at: datetime) -> ApiKeyRow | None:
    """A key of a project that has this name and is neither revoked nor expired."""
    query = select(ApiKeyRow).where(
        ApiKeyRow.project_id == project_id,
        ApiKeyRow.name == name,
        ApiKeyRow.revoked_at.is_(None),
        or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > at),
    )
    return tx.scalars(query.limit(1)).first()


def keys_of_user(tx: Session, user_id: str, project_id: str, kind: str) -> list[ApiKeyRow]:
    """A user's unrevoked keys of one kind in a project, newest first."""
    query = select(ApiKeyRow).where(
        ApiKeyRow.user_id == user_id,
        ApiKeyRow.project_id == project_id,
        ApiKeyRow.kind == kind,
        ApiKeyRow.revoked_at.is_(None),
    )
    return list(tx.scalars(query.order_by(ApiKeyRow.created_at.desc())))


def revoke_keys_of_user(
    tx: Session, user_id: str, at: datetime, project_id: str | None = None
) -> None:
    """Revoke a user's keys, in one project or in all."""
    query = update(ApiKeyRow).where(ApiKeyRow.user_id == user_id, ApiKeyRow.revoked_at.is_(None))
    if project_id is not None:
        query = query.where(ApiKeyRow.project_id == project_id)
    tx.execute(query.values(revoked_at=at))
