"""Use cases of people: bootstrap, log-in, users. Keys stand in `api_keys`."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.orm import Session

from core.accounts import crud, identity
from core.accounts.models import LogInFailure, LogInSession, Tenant, User
from core.accounts.schemas import Bootstrap, LoggedIn, LogIn, NewUser, UserView
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor, Role
from core.kernel.crypto import Secret
from core.kernel.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, RateLimited
from core.kernel.settings import settings

TENANT_ID = "ten_default"
DEFAULT_PROJECT_ID = "prj_default"

# Failed log-ins within the window: of one account from one client, of one client whatever the
# account, and of one account from clients it has never logged in from.
_MAX_FAILURES_OF_PAIR = 10
_MAX_FAILURES_OF_CLIENT = 50
_MAX_FAILURES_OF_ACCOUNT = 100
_FAILURE_WINDOW = timedelta(minutes=5)
_KEEP_ENDED_SESSIONS = timedelta(days=30)
_MAX_EMAIL_CHARACTERS = 200
_MAX_CLIENT_CHARACTERS = 100
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

_project_check: Callable[[Actor, str], object] | None = None


def register_project_check(check: Callable[[Actor, str], object]) -> None:
    """Let the higher domain of projects say whether there is one with this id.

    `check(actor, project_id)` raises NotFound when there is none that the actor can read.
    """
    global _project_check
    _project_check = check


def bootstrap(email: str, password: Secret | None) -> Bootstrap:
    """Make the default tenant and the first admin; does nothing when they exist.

    Without a password a one-time password is made, which must be changed at the first log-in.
    """
    with database.transaction() as tx:
        if crud.tenant(tx, TENANT_ID) is not None:
            return Bootstrap(email, None, is_new=False)
        tx.add(Tenant(id=TENANT_ID, name="Default", created_at=clock.now()))
        tx.flush()
        one_time = None if password is not None else _one_time_password()
        user = _new_user(email, "Admin", "admin", must_change_password=password is None)
        identity.provider().set_password(user, password or one_time or Secret(""))
        tx.add(user)
        tx.flush()
        crud.set_membership(tx, user.id, DEFAULT_PROJECT_ID, "admin")
        audit.record(tx, Actor.system(), "tenant.created", f"tenant:{TENANT_ID}", email=email)
    return Bootstrap(email, one_time, is_new=True)


def operator() -> Actor:
    """The person at the command line: who can read the data folder administers the tenant."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run under a number that no name belongs to.
        name = f"uid {os.getuid()}"
    return Actor("cli", f"{name} (command line)", TENANT_ID, "admin")


def log_in(email: str, password: Secret, client: str) -> LogIn:
    """Check a password and open a session.

    Args:
        email: The user's address; case does not matter.
        password: What the person typed.
        client: The address it came from. Guessing from elsewhere never keeps out a client that
            the account has logged in from within the last 30 days.

    Raises:
        RateLimited: Too many failures within five minutes: see `_limits`.
        NotAuthenticated: Unknown user, wrong password or disabled: the same answer for each.
    """
    email = email.strip().lower()[:_MAX_EMAIL_CHARACTERS]
    client = client[:_MAX_CLIENT_CHARACTERS]
    # Counted before the check, and forgiven after a success: many attempts at once would
    # otherwise all pass the limit before the first of them has failed. A refused attempt leaves
    # no row, and old rows go, so that there are never more than the checks of five minutes.
    with database.transaction() as tx:
        crud.forget_failures_before(tx, clock.now() - _FAILURE_WINDOW)
        user = crud.user_by_email(tx, email)
        limits = _limits(email, client)
        for subject, most in limits.items():
            if subject != _of_account(email) or not _is_known(tx, user, client):
                _refuse_when_limited(tx, subject, most)
        attempts = [LogInFailure(id=ids.new_id("lif"), subject=s, at=clock.now()) for s in limits]
        tx.add_all(attempts)
    # Outside a transaction: Argon2id takes tens of ms on purpose.
    verified = identity.provider().verify(user, password)
    with database.transaction() as tx:
        row = crud.user(tx, user.id) if user is not None else None
        if verified and row is not None and row.enabled:
            crud.forget_failures(tx, _of_pair(email, client), [attempt.id for attempt in attempts])
            return _open_session(tx, row, client)
    raise NotAuthenticated(
        "The e-mail address or the password is wrong.",
        remedy="Try again, or ask an admin to reset your password.",
    )


def _limits(email: str, client: str) -> dict[str, int]:
    """How many failures each subject of a log-in may have within the window.

    Over many addresses the third one still slows guessing down to 20 a minute.
    """
    return {
        _of_pair(email, client): _MAX_FAILURES_OF_PAIR,
        f"client:{client}": _MAX_FAILURES_OF_CLIENT,
        _of_account(email): _MAX_FAILURES_OF_ACCOUNT,
    }


def _of_pair(email: str, client: str) -> str:
    return f"pair:{_sha256(f'{email} {client}')}"


def _of_account(email: str) -> str:
    return f"account:{email}"


def _is_known(session: Session, user: User | None, client: str) -> bool:
    return user is not None and crud.has_logged_in_from(session, user.id, client)


def _refuse_when_limited(session: Session, subject: str, most: int) -> None:
    recent = crud.failures(session, subject, clock.now() - _FAILURE_WINDOW)
    if len(recent) < most:
        return
    wait_s = (recent[-most] + _FAILURE_WINDOW - clock.now()).total_seconds()
    raise RateLimited(
        "Too many failed log-ins.",
        retry_after_s=max(wait_s, 1.0),
        remedy=f"Wait {max(wait_s, 1.0):.0f} s, then try again.",
    )


def _open_session(tx: Session, user: User, client: str) -> LogIn:
    token = secrets.token_urlsafe(32)
    now = clock.now()
    tx.add(
        LogInSession(
            token_sha256=_sha256(token),
            user_id=user.id,
            client=client,
            created_at=now,
            expires_at=now + timedelta(hours=settings().session_hours),
        )
    )
    user.last_log_in_at = now
    audit.record(tx, _actor(user, {}), "user.logged_in", f"user:{user.id}", client=client)
    return LogIn(Secret(token), user.must_change_password)


def logged_in(token: str) -> LoggedIn | None:
    """Who the token of a session belongs to; None when it has ended."""
    if not token:
        return None
    with database.reading() as session:
        row = crud.session(session, _sha256(token))
        if row is None or row.revoked_at is not None or row.expires_at <= clock.now():
            return None
        user = crud.user(session, row.user_id)
        if user is None or not user.enabled:
            return None
        projects = crud.memberships(session, [user.id])[user.id]
        return LoggedIn(_actor(user, projects), _view(user, projects), row.expires_at)


def remember_project(actor: Actor, project_id: str) -> None:
    """Keep which project the actor looks at, so that they come back to it."""
    actor.require("project:read", project_id)
    with database.transaction() as tx:
        _user(tx, actor, actor.user_id).last_project_id = project_id
        subject = f"user:{actor.user_id}"
        audit.record(tx, actor, "user.project_chosen", subject, project_id=project_id)


def log_out(token: str) -> None:
    """End one session."""
    with database.transaction() as tx:
        row = crud.session(tx, _sha256(token))
        if row is None or row.revoked_at is not None:
            return
        row.revoked_at = clock.now()
        user = crud.user(tx, row.user_id)
        assert user is not None
        audit.record(tx, _actor(user, {}), "user.logged_out", f"user:{user.id}")


def is_anybody_logged_in() -> bool:
    """Whether any session is alive."""
    with database.reading() as session:
        return crud.has_live_session(session, clock.now())


def prune_sessions(actor: Actor) -> int:
    """Forget the log-ins that expired over 30 days ago; how many there were. Admins only."""
    actor.require("user:update")
    with database.transaction() as tx:
        return crud.forget_sessions_before(tx, clock.now() - _KEEP_ENDED_SESSIONS)


def change_password(token: str, old: Secret, new: Secret) -> None:
    """Change one's own password; every other session of the user ends.

    Raises:
        NotAuthenticated: The session has ended, or the old password is wrong.
        InvalidInput: The new password is too short, or the old one again.
    """
    who = logged_in(token)
    if who is None:
        raise NotAuthenticated("You are not logged in.", remedy="Log in again.")
    if old == new:
        raise InvalidInput("The new password is the old one.", remedy="Choose another one.")
    with database.reading() as session:
        user = crud.user(session, who.user.id)
    if not identity.provider().verify(user, old):
        raise NotAuthenticated("The old password is wrong.", remedy="Type it again.")
    with database.transaction() as tx:
        row = _user(tx, who.actor, who.user.id)
        identity.provider().set_password(row, new)
        row.must_change_password = False
        crud.end_sessions(tx, row.id, clock.now(), keep=_sha256(token))
        audit.record(tx, who.actor, "user.password_changed", f"user:{row.id}")


def list_users(actor: Actor) -> list[UserView]:
    """Every user of the tenant. Admins only."""
    actor.require("user:read")
    with database.reading() as session:
        found = crud.users(session, actor.tenant_id)
        projects = crud.memberships(session, [user.id for user in found])
    return [_view(user, projects[user.id]) for user in found]


def get_user(actor: Actor, user_id: str) -> UserView:
    """One user. Admins only."""
    actor.require("user:read")
    with database.reading() as session:
        user = _user(session, actor, user_id)
        return _view(user, crud.memberships(session, [user_id])[user_id])


def add_user(
    actor: Actor,
    email: str,
    name: str = "",
    role: Role = "member",
    project_id: str | None = DEFAULT_PROJECT_ID,
    *,
    demo: bool = False,
) -> NewUser:
    """Add a person, with a one-time password and a membership in one project.

    Raises:
        InvalidInput: Not an e-mail address.
        NotFound: No such project.
        Conflict: The address is taken.
    """
    actor.require("user:create")
    if project_id is not None:
        assert _project_check is not None, "core.projects.services was never imported"
        _project_check(actor, project_id)
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > _MAX_EMAIL_CHARACTERS:
        raise InvalidInput(
            "This is not an e-mail address.", value=email, remedy="Use name@example.org."
        )
    one_time = _one_time_password()
    user = _new_user(email, name.strip() or email.split("@")[0], role, must_change_password=True)
    user.tenant_id, user.demo = actor.tenant_id, demo
    identity.provider().set_password(user, one_time)
    with database.transaction() as tx:
        if crud.user_by_email(tx, email) is not None:
            raise Conflict(f"There is already a user {email}.", remedy="Reset their password.")
        tx.add(user)
        tx.flush()
        if project_id is not None:
            crud.set_membership(tx, user.id, project_id, role)
        audit.record(tx, actor, "user.created", f"user:{user.id}", email=email, role=role)
        view = _view(user, crud.memberships(tx, [user.id])[user.id])
    return NewUser(view, one_time)


def set_user_enabled(actor: Actor, user_id: str, enabled: bool) -> None:
    """Enable a user, or disable them: their sessions and API keys end at once.

    Raises:
        Conflict: They are the last enabled admin.
    """
    actor.require("user:update")
    with database.transaction() as tx:
        user = _user(tx, actor, user_id)
        if not enabled:
            _keep_an_admin(tx, user)
            crud.end_sessions(tx, user_id, clock.now())
            crud.revoke_keys_of_user(tx, user_id, clock.now())
        user.enabled = enabled
        action = "user.enabled" if enabled else "user.disabled"
        audit.record(tx, actor, action, f"user:{user_id}")
    events.publish("keys.changed")


def set_role(actor: Actor, user_id: str, role: Role) -> None:
    """Make a user an admin of the tenant, or a member. Conflict for the last admin."""
    actor.require("user:update")
    with database.transaction() as tx:
        user = _user(tx, actor, user_id)
        if role != "admin":
            _keep_an_admin(tx, user)
        user.role = role
        audit.record(tx, actor, "user.role_changed", f"user:{user_id}", role=role)


def reset_password(actor: Actor, user_id: str) -> Secret:
    """Give a user a new one-time password and end their sessions."""
    actor.require("user:update")
    one_time = _one_time_password()
    with database.transaction() as tx:
        user = _user(tx, actor, user_id)
        identity.provider().set_password(user, one_time)
        user.must_change_password = True
        crud.end_sessions(tx, user_id, clock.now())
        audit.record(tx, actor, "user.password_reset", f"user:{user_id}")
    return one_time


def revoke_sessions(actor: Actor, user_id: str) -> None:
    """End every session of a user."""
    actor.require("user:update")
    with database.transaction() as tx:
        _user(tx, actor, user_id)
        crud.end_sessions(tx, user_id, clock.now())
        audit.record(tx, actor, "user.sessions_revoked", f"user:{user_id}")


def set_membership(actor: Actor, project_id: str, user_id: str, role: Role | None) -> None:
    """The half of `core.projects.services.set_member` that is about the user; call that one."""
    actor.require("project:update", project_id)
    with database.transaction() as tx:
        user = _user(tx, actor, user_id)
        crud.set_membership(tx, user_id, project_id, role)
        if role is None and user.role != "admin":
            crud.revoke_keys_of_user(tx, user_id, clock.now(), project_id)
        audit.record(
            tx,
            actor,
            "project.member_changed",
            f"user:{user_id}",
            project_id=project_id,
            role=role or "none",
        )
    events.publish("keys.changed")


def _keep_an_admin(tx: Session, user: User) -> None:
    is_admin = user.role == "admin" and user.enabled
    if is_admin and crud.other_enabled_admins(tx, user.tenant_id, user.id) == 0:
        raise Conflict(
            f"{user.email} is the last admin.", remedy="Make somebody else an admin first."
        )


def _user(tx: Session, actor: Actor, user_id: str) -> User:
    user = crud.user(tx, user_id)
    if user is None or user.tenant_id != actor.tenant_id:
        raise NotFound(f"There is no user {user_id}.", remedy="See the Users page for who exists.")
    return user


def _new_user(email: str, name: str, role: Role, *, must_change_password: bool) -> User:
    return User(
        id=ids.new_id("usr"),
        tenant_id=TENANT_ID,
        email=email.strip().lower(),
        name=name,
        role=role,
        must_change_password=must_change_password,
        enabled=True,
        demo=False,
        created_at=clock.now(),
    )


def _actor(user: User, projects: dict[str, str]) -> Actor:
    # Roles are checked where they are written, so what the table holds is a Role.
    return Actor(user.id, user.email, user.tenant_id, user.role, projects)  # type: ignore[arg-type]


def _view(user: User, projects: dict[str, str]) -> UserView:
    return UserView.model_validate(user).model_copy(update={"projects": dict(projects)})


def _one_time_password() -> Secret:
    return Secret("-".join(secrets.token_hex(2) for _ in range(4)))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
