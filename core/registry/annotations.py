"""What people say of models: tags, comments, favourites; and the views of pages they keep.

A subject is `model:<id>` of a model that the project can use, or `catalogue:<canonical id>`.
Tags and comments are a project's; favourites and saved views a person's, in a project.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.registry import crud
from core.registry.models import Comment, Favourite, SavedView, Tag
from core.registry.schemas import CommentView, SavedViewView

_TAG = re.compile(r"[a-z0-9][a-z0-9 ._:/-]{0,39}")
_MAX_TAGS = 20
_MAX_COMMENT = 4000
_MAX_NAME = 80


def set_tags(actor: Actor, project_id: str, subject: str, tags: Sequence[str]) -> list[str]:
    """Give a subject exactly these tags, and return them: small letters, sorted, each once.

    Raises:
        InvalidInput: A tag that is none, or more than 20.
        NotFound: The project has no such model.
    """
    actor.require("model:update", project_id)
    wanted = sorted({" ".join(tag.lower().split()) for tag in tags} - {""})
    for tag in wanted:
        if not _TAG.fullmatch(tag):
            raise InvalidInput(
                "A tag has 1 to 40 letters, digits, spaces and . _ : / -.",
                value=tag,
                remedy="Shorten it, or leave other signs out.",
            )
    if len(wanted) > _MAX_TAGS:
        raise InvalidInput(
            f"A model has at most {_MAX_TAGS} tags.", value=len(wanted), remedy="Remove some."
        )
    with database.transaction() as tx:
        _require_subject(tx, actor, project_id, subject)
        had = {row.tag: row for row in crud.tags(tx, project_id, [subject])}
        for tag in had.keys() - set(wanted):
            tx.delete(had[tag])
        for tag in set(wanted) - had.keys():
            tx.add(
                Tag(
                    id=ids.new_id("tag"),
                    tenant_id=actor.tenant_id,
                    project_id=project_id,
                    subject=subject,
                    tag=tag,
                )
            )
        if set(wanted) != had.keys():
            audit.record(
                tx, actor, "model.tagged", subject[:80], project_id=project_id, tags=wanted
            )
    return wanted


def tags(actor: Actor, project_id: str) -> dict[str, list[str]]:
    """The tags of every tagged subject of a project."""
    actor.require("model:read", project_id)
    found: dict[str, list[str]] = {}
    with database.reading() as session:
        for row in crud.tags(session, project_id):
            found.setdefault(row.subject, []).append(row.tag)
    return found


def tag_counts(actor: Actor, project_id: str) -> dict[str, int]:
    """How many subjects bear each tag of a project, the most used first."""
    counts = Counter(tag for each in tags(actor, project_id).values() for tag in each)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def add_comment(actor: Actor, project_id: str, subject: str, text: str) -> CommentView:
    """Comment on a subject. InvalidInput when the text is empty or over 4000 characters."""
    actor.require("model:update", project_id)
    row = Comment(
        id=ids.new_id("com"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        subject=subject,
        text=_checked_text(text),
        user_id=actor.user_id,
        by_name=actor.name,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        _require_subject(tx, actor, project_id, subject)
        tx.add(row)
        audit.record(
            tx, actor, "model.commented", subject[:80], project_id=project_id, comment=row.id
        )
    return CommentView.model_validate(row)


def edit_comment(actor: Actor, comment_id: str, text: str) -> CommentView:
    """Change one's own comment."""
    text = _checked_text(text)
    with database.transaction() as tx:
        row = _comment(tx, actor, comment_id)
        if row.user_id != actor.user_id:
            raise PermissionDenied(
                f"This comment is {row.by_name}'s.", remedy="Write one of your own."
            )
        row.text, row.edited_at = text, clock.now()
        audit.record(
            tx,
            actor,
            "model.comment_edited",
            row.subject[:80],
            project_id=row.project_id,
            comment=row.id,
        )
    return CommentView.model_validate(row)


def delete_comment(actor: Actor, comment_id: str) -> None:
    """Delete one's own comment; an admin of the project may delete any."""
    with database.transaction() as tx:
        row = _comment(tx, actor, comment_id)
        if row.user_id != actor.user_id:
            actor.require("model:govern", row.project_id)
        tx.delete(row)
        audit.record(
            tx,
            actor,
            "model.comment_deleted",
            row.subject[:80],
            project_id=row.project_id,
            comment=row.id,
        )


def comments(actor: Actor, project_id: str, subject: str) -> list[CommentView]:
    """The comments of a project on a subject, oldest first."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        rows = crud.comments(session, project_id, subject)
    return [CommentView.model_validate(row) for row in rows]


def set_favourite(actor: Actor, project_id: str, subject: str, *, marked: bool) -> None:
    """Mark a subject as one's favourite in a project, or take the mark away."""
    actor.require("model:read", project_id)
    key = (project_id, actor.user_id, subject)
    with database.transaction() as tx:
        _require_subject(tx, actor, project_id, subject)
        row = tx.get(Favourite, key)
        if marked == (row is not None):
            return
        if row is not None:
            tx.delete(row)
        else:
            tx.add(
                Favourite(
                    project_id=project_id,
                    user_id=actor.user_id,
                    subject=subject,
                    tenant_id=actor.tenant_id,
                )
            )
        verb = "model.favourite_added" if marked else "model.favourite_removed"
        audit.record(tx, actor, verb, subject[:80], project_id=project_id)


def favourites(actor: Actor, project_id: str) -> set[str]:
    """The subjects that the actor marked in a project."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        return set(crud.favourites(session, project_id, actor.user_id))


def save_view(
    actor: Actor,
    project_id: str,
    page: str,
    name: str,
    query: Mapping[str, str],
    *,
    shared: bool = False,
) -> SavedViewView:
    """Keep a page's filters under a name; one's own view of this name is replaced.

    Args:
        actor: Who keeps it.
        project_id: In which project.
        page: The page, such as "models".
        name: 1 to 80 characters.
        query: The page's URL parameters.
        shared: Whether everybody in the project sees it.
    """
    actor.require("model:read", project_id)
    if shared:
        actor.require("model:update", project_id)
    name = name.strip()
    if not 1 <= len(name) <= _MAX_NAME:
        raise InvalidInput("A view's name has 1 to 80 characters.", value=name)
    with database.transaction() as tx:
        known = crud.saved_views(tx, project_id, actor.user_id, page)
        row = next((v for v in known if v.name == name and v.user_id == actor.user_id), None)
        if row is None:
            row = SavedView(
                id=ids.new_id("viw"),
                tenant_id=actor.tenant_id,
                project_id=project_id,
                user_id=actor.user_id,
                by_name=actor.name,
                page=page,
                name=name,
                created_at=clock.now(),
            )
            tx.add(row)
        row.query, row.shared = dict(query), shared
        audit.record(
            tx, actor, "view.saved", f"view:{row.id}", project_id=project_id, page=page, name=name
        )
    return SavedViewView.model_validate(row)


def saved_views(actor: Actor, project_id: str, page: str) -> list[SavedViewView]:
    """One's own views of a page and those shared in the project, by name."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        rows = crud.saved_views(session, project_id, actor.user_id, page)
    return [SavedViewView.model_validate(row) for row in rows]


def delete_view(actor: Actor, view_id: str) -> None:
    """Delete one's own view; an admin of the project may delete a shared one."""
    with database.transaction() as tx:
        row = crud.saved_view(tx, view_id)
        mine = row is not None and row.user_id == actor.user_id
        seen = row is not None and (mine or row.shared) and actor.may("model:read", row.project_id)
        if row is None or row.tenant_id != actor.tenant_id or not seen:
            raise NotFound(f"There is no saved view {view_id}.")
        if not mine:
            actor.require("model:govern", row.project_id)
        tx.delete(row)
        audit.record(
            tx, actor, "view.deleted", f"view:{view_id}", project_id=row.project_id, name=row.name
        )


def _require_subject(tx: Session, actor: Actor, project_id: str, subject: str) -> None:
    kind, _, name = subject.partition(":")
    if kind not in ("model", "catalogue") or not name or len(subject) > 220:
        raise InvalidInput(
            "This is no subject.", value=subject[:80], remedy="Use model:<id> or catalogue:<id>."
        )
    if kind == "catalogue":
        return
    row = crud.model(tx, name)
    usable = row is not None and row.tenant_id == actor.tenant_id
    if row is None or not usable or row.project_id not in (None, project_id):
        raise NotFound(f"There is no model {name} in this project.", remedy="See the Models page.")


def _comment(tx: Session, actor: Actor, comment_id: str) -> Comment:
    row = crud.comment(tx, comment_id)
    seen = row is not None and row.tenant_id == actor.tenant_id
    if row is None or not seen or not actor.may("model:read", row.project_id):
        raise NotFound(f"There is no comment {comment_id}.")
    return row


def _checked_text(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= _MAX_COMMENT:
        raise InvalidInput(
            f"A comment has 1 to {_MAX_COMMENT} characters.",
            value=f"{len(text)} characters",
            remedy="Write something, or shorten it.",
        )
    return text
