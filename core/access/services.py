"""Use cases of blocking rules: set, list, delete. The gateway enforces them: docs/access.md."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.access import crud
from core.access.models import BlockRow
from core.access.schemas import BlockConditions, BlockView
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.projects import services as projects

__all__ = ["active_blocks", "delete_block", "forget_project", "list_blocks", "set_block"]

EVERYWHERE = ""
_LONGEST_NAME = 80


def set_block(actor: Actor, project_id: str, name: str, **conditions: Any) -> BlockView:
    """Refuse the requests that meet every condition given; a rule of this name is replaced.

    Args:
        actor: An admin of the project; of everything for `EVERYWHERE`.
        project_id: The project in which it holds, or `EVERYWHERE`.
        name: What callers and facts are told, such as `no-scrapers`.
        **conditions: The fields of `BlockConditions`.

    Raises:
        InvalidInput: No name, no condition, or one that cannot be understood.
        NotFound: No such project.
    """
    actor.require("block:update", project_id or None)
    if project_id:
        project_id = projects.get_project(actor, project_id).id
    name = name.strip()
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(
            f"A rule's name has 1 to {_LONGEST_NAME} characters.", value=name, remedy="Shorten it."
        )
    checked = _checked(conditions)
    with database.transaction() as tx:
        row = crud.block(tx, actor.tenant_id, project_id, name)
        if row is None:
            row = BlockRow(
                id=ids.new_id("blk"), tenant_id=actor.tenant_id, project_id=project_id, name=name
            )
            tx.add(row)
        row.conditions = checked.model_dump(mode="json", exclude_defaults=True)
        row.set_at, row.set_by_name = clock.now(), actor.name
        _record(tx, actor, "block.set", row)
        view = BlockView.model_validate(row)
    events.publish("blocks.changed")
    return view


def list_blocks(actor: Actor, project_id: str) -> list[BlockView]:
    """The rules that hold in a project: those of every project first, then its own."""
    actor.require("block:read", project_id or None)
    with database.reading() as session:
        rows = crud.blocks(session, actor.tenant_id, [EVERYWHERE, project_id])
    return [BlockView.model_validate(row) for row in rows]


def delete_block(actor: Actor, block_id: str) -> None:
    """Take a rule away. NotFound when there is none the actor may see."""
    with database.transaction() as tx:
        row = tx.get(BlockRow, block_id)
        if (
            row is None
            or row.tenant_id != actor.tenant_id
            or not actor.may("block:read", row.project_id or None)
        ):
            raise NotFound(f"There is no rule {block_id}.", remedy="See: bud blocks list")
        actor.require("block:update", row.project_id or None)
        _record(tx, actor, "block.deleted", row)
        tx.delete(row)
    events.publish("blocks.changed")


def active_blocks() -> list[BlockView]:
    """Every rule, for the route table."""
    with database.reading() as session:
        return [BlockView.model_validate(row) for row in crud.all_blocks(session)]


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete the rules of a project that goes away; how many there were."""
    actor.require("block:update", project_id)
    with database.transaction() as tx:
        count = crud.delete_blocks(tx, actor.tenant_id, project_id)
        if count:
            audit.record(
                tx, actor, "block.forgotten", f"project:{project_id}", project_id=project_id
            )
    events.publish("blocks.changed")
    return count


def _checked(conditions: dict[str, Any]) -> BlockConditions:
    try:
        return BlockConditions.model_validate(conditions)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "conditions"
        what = str(first["msg"]).removeprefix("Value error, ")
        raise InvalidInput(
            f"The rule's {field} cannot be used: {what}.",
            remedy="Give networks, countries, user agents or paths: docs/access.md.",
        ) from None


def _record(tx: Session, actor: Actor, action: str, row: BlockRow) -> None:
    audit.record(
        tx,
        actor,
        action,
        f"block:{row.id}",
        project_id=row.project_id or None,
        name=row.name,
        **row.conditions,
    )
