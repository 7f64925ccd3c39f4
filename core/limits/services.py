"""Use cases of limits: set, list, delete. The gateway enforces them: docs/limits.md."""

from __future__ import annotations

import math
from typing import get_args

from sqlalchemy.orm import Session

from core.accounts import api_keys
from core.accounts import services as accounts
from core.contracts.route_table import LimitLevel, LimitMetric, LimitWindow, WhenAlone
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.limits import crud
from core.limits.models import LimitRow
from core.limits.schemas import LimitView
from core.projects import services as projects

__all__ = ["WINDOWS", "active_limits", "delete_limit", "forget_project", "list_limits", "set_limit"]

# The windows each metric can have.
WINDOWS: dict[LimitMetric, tuple[LimitWindow, ...]] = {
    "requests": ("minute", "hour", "day"),
    "tokens": ("minute", "hour", "day"),
    "concurrent": ("",),
    "usd": ("day", "month"),
}
_LONGEST_SUBJECT = 200
# What the gateway's counters hold.
_MOST: dict[LimitMetric, float] = {
    "requests": 4e9,
    "tokens": 4e9,
    "concurrent": 1e6,
    "usd": 1e9,
}


def set_limit(
    actor: Actor,
    project_id: str,
    level: LimitLevel,
    subject: str,
    metric: LimitMetric,
    window: LimitWindow,
    amount: float,
    *,
    when_alone: WhenAlone | None = None,
) -> LimitView:
    """Limit a key, a user, the project or a model; a limit that is there gets the new amount.

    Args:
        actor: An admin of the project.
        project_id: The project in which it holds.
        level: What is limited.
        subject: The id of a key or user, or a model's name; may be "" for the project itself.
        metric: What is counted.
        window: The time it counts over; "" for requests at once.
        amount: Requests, tokens, or USD. 0 stops everything.
        when_alone: What holds when gateway hosts that share a limit cannot reach each other:
            refuse (the default for USD), or each host's share of it.

    Raises:
        InvalidInput: A window that the metric has not, an amount out of range, or another word
            for `when_alone`.
        NotFound: No such project, key or user.
    """
    actor.require("limit:update", project_id)
    _check(metric, window, amount)
    if when_alone not in (None, *get_args(WhenAlone)):
        raise InvalidInput(
            "There is no such choice for hosts that cannot reach each other.",
            value=when_alone,
            remedy="Use refuse or share.",
        )
    subject = _subject(actor, project_id, level, subject.strip())
    with database.transaction() as tx:
        row = crud.limit(tx, project_id, level, subject, metric, window)
        if row is None:
            row = LimitRow(
                id=ids.new_id("lim"),
                tenant_id=actor.tenant_id,
                project_id=project_id,
                level=level,
                subject=subject,
                metric=metric,
                window=window,
            )
            tx.add(row)
        row.amount = amount
        row.when_alone = when_alone or ("refuse" if metric == "usd" else "share")
        row.set_at, row.set_by_name = clock.now(), actor.name
        _record(tx, actor, "limit.set", row)
        view = LimitView.model_validate(row)
    events.publish("limits.changed")
    return view


def list_limits(actor: Actor, project_id: str) -> list[LimitView]:
    """The limits of a project, by what they limit."""
    actor.require("limit:read", project_id)
    with database.reading() as session:
        rows = crud.limits(session, actor.tenant_id, project_id)
    return [LimitView.model_validate(row) for row in rows]


def delete_limit(actor: Actor, limit_id: str) -> None:
    """Take a limit away. NotFound when there is none the actor may see."""
    with database.transaction() as tx:
        row = tx.get(LimitRow, limit_id)
        if (
            row is None
            or row.tenant_id != actor.tenant_id
            or not actor.may("limit:read", row.project_id)
        ):
            raise NotFound(f"There is no limit {limit_id}.", remedy="See: bud limits list")
        actor.require("limit:update", row.project_id)
        _record(tx, actor, "limit.deleted", row)
        tx.delete(row)
    events.publish("limits.changed")


def active_limits() -> list[LimitView]:
    """Every limit, for the route table."""
    with database.reading() as session:
        return [LimitView.model_validate(row) for row in crud.all_limits(session)]


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete the limits of a project that goes away; how many there were."""
    actor.require("limit:update", project_id)
    with database.transaction() as tx:
        count = crud.delete_limits(tx, actor.tenant_id, project_id)
        if count:
            audit.record(
                tx, actor, "limit.forgotten", f"project:{project_id}", project_id=project_id
            )
    events.publish("limits.changed")
    return count


def _check(metric: LimitMetric, window: LimitWindow, amount: float) -> None:
    if metric not in WINDOWS or window not in WINDOWS[metric]:
        known = ", ".join(
            f"{name} per {each}" if each else f"{name} requests"
            for name, windows in WINDOWS.items()
            for each in windows
        )
        raise InvalidInput(
            "There is no such limit.",
            value=f"{metric} per {window or 'nothing'}",
            remedy=f"There are: {known}.",
        )
    most = _MOST[metric]
    if not math.isfinite(amount) or not 0 <= amount <= most:
        raise InvalidInput(
            f"A limit on {metric} must be between 0 and {most:,.0f}.",
            value=amount,
            remedy="Check the figure and its unit.",
        )
    if metric != "usd" and amount != int(amount):
        raise InvalidInput(
            f"A limit on {metric} is a whole number.",
            value=amount,
            remedy="Leave the fraction out.",
        )


def _subject(actor: Actor, project_id: str, level: LimitLevel, subject: str) -> str:
    if level == "project":
        project = projects.get_project(actor, project_id)
        if subject not in ("", project.id, project.name):
            raise NotFound(
                f"A limit of project {project.name!r} cannot be on project {subject!r}.",
                remedy="Set it in that project.",
            )
        return project.id
    if level == "model":
        if not subject or len(subject) > _LONGEST_SUBJECT:
            raise InvalidInput(
                "A model's name has 1 to 200 characters.",
                value=subject,
                remedy="Name a deployment.",
            )
        return subject
    if level in ("key", "user") and not subject:
        raise InvalidInput(f"Which {level} is not said.", remedy=f"Name it: --of {level.upper()}.")
    keys = api_keys.list_keys(actor, project_id)
    if level == "key":
        found = [key.id for key in keys if key.revoked_at is None and subject in (key.id, key.name)]
        if len(found) != 1:
            what = "several active keys" if found else "no active key"
            raise NotFound(
                f"There is {what} {subject!r}.", remedy="Give its id: bud keys list --json"
            )
        return found[0]
    if level == "user":
        # Who has a key here is known to the project's admin; anyone else is not theirs to see.
        if ":" in subject and len(subject) <= _LONGEST_SUBJECT:
            return subject  # of an issuer of access tokens, which alone knows its users
        by_key = subject in {key.user_id for key in keys}
        return subject if by_key else accounts.get_user(actor, subject).id
    raise InvalidInput(
        "There is no such level of limits.", value=level, remedy="Use key, user, project or model."
    )


def _record(tx: Session, actor: Actor, action: str, row: LimitRow) -> None:
    audit.record(
        tx,
        actor,
        action,
        f"limit:{row.id}",
        project_id=row.project_id,
        level=row.level,
        of=row.subject,
        metric=row.metric,
        window=row.window,
        amount=row.amount,
    )
