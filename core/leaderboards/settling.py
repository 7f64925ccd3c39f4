"""What becomes of a board that was fetched: it is applied or discarded."""

from __future__ import annotations

from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound
from core.leaderboards import crud, scores
from core.leaderboards.models import BoardRefresh
from core.leaderboards.schemas import RefreshState, RefreshView


def settle(actor: Actor, refresh_id: str, state: RefreshState) -> RefreshView:
    """Let the fetched figures take the place of the board's, or drop them.

    Raises:
        Conflict: It was settled before, or is not fetched yet.
    """
    pending = scores.pending_file(actor.tenant_id, refresh_id)
    with database.transaction() as tx:
        row = waiting(actor, crud.refresh(tx, refresh_id), refresh_id)
        row.state, row.decided_at, row.decided_by = state, clock.now(), actor.name
        audit.record(
            tx,
            actor,
            f"board.{state}",
            f"board:{row.board}",
            refresh_id=refresh_id,
            added=row.added,
            removed=row.removed,
            changed=row.changed,
        )
        if state == "applied":
            pending.replace(scores.file_of(actor.tenant_id, row.board))
        else:
            pending.unlink(missing_ok=True)
    return RefreshView.model_validate(row)


def waiting(actor: Actor, row: BoardRefresh | None, refresh_id: str) -> BoardRefresh:
    """A fetch that nobody has decided about. NotFound or Conflict when it is none."""
    if row is None or row.tenant_id != actor.tenant_id:
        raise NotFound(f"There is no refresh {refresh_id}.", remedy="See the Leaderboards page.")
    if row.state != "found":
        raise Conflict(
            f"This refresh of {row.board} is {row.state}.", remedy="Fetch the board again."
        )
    return row
