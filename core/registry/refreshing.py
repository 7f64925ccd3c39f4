"""The files of a fetched source of the catalogue, and what becomes of them."""

from __future__ import annotations

import re
import shutil
from functools import lru_cache
from pathlib import Path

import pandas as pd

from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound
from core.registry import catalogue, catalogue_difference, crud
from core.registry.models import CatalogueRefresh
from core.registry.schemas import RefreshState, RefreshView


def file_of(refresh_id: str) -> Path:
    """The file of a fetch; it stays after it was applied, so that it can be gone back to."""
    return catalogue.folder() / "refreshes" / f"{refresh_id}.parquet"


def applied_file(feed: str) -> Path:
    """The file of a source that the catalogue is made with."""
    slug = re.sub(r"[^a-z0-9]+", "-", feed.lower()).strip("-")
    return catalogue.folder() / f"{slug}.parquet"


def difference(feed: str, refresh_id: str) -> pd.DataFrame:
    """What applying a fetch would change now, see `catalogue_difference.difference`."""
    file = file_of(refresh_id)
    return _difference(file, applied_file(feed), file.stat().st_mtime_ns, catalogue.version())


@lru_cache(maxsize=4)
def _difference(file: Path, applied: Path, _written_ns: int, _version: int) -> pd.DataFrame:
    after = catalogue.with_file(file, instead_of=applied)
    return catalogue_difference.difference(catalogue.tables(), after)


def settle(actor: Actor, refresh_id: str, state: RefreshState) -> RefreshView:
    """Apply what a fetch found, or discard it.

    Raises:
        Conflict: It was settled before, or is not fetched yet.
    """
    with database.transaction() as tx:
        row = _waiting(crud.refresh(tx, refresh_id), refresh_id)
        row.state, row.decided_at, row.decided_by = state, clock.now(), actor.name
        audit.record(
            tx,
            actor,
            f"catalogue.{state}",
            f"catalogue:{row.feed}",
            refresh_id=refresh_id,
            added=row.added,
            removed=row.removed,
            changed=row.changed,
        )
        if state == "applied":
            _put_in_place(file_of(refresh_id), applied_file(row.feed))
        else:
            file_of(refresh_id).unlink(missing_ok=True)
    return RefreshView.model_validate(row)


def take_back(actor: Actor, feed: str) -> RefreshView:
    """Undo the newest applied fetch of a source: the one before stands again, or what is shipped.

    Raises:
        Conflict: None is applied.
    """
    with database.transaction() as tx:
        newest, *older = [*crud.refreshes(tx, feed, "applied"), None]
        if newest is None:
            raise Conflict(f"What the catalogue has of {feed} came with Bud.", value=feed)
        newest.state, newest.decided_at, newest.decided_by = "taken back", clock.now(), actor.name
        audit.record(tx, actor, "catalogue.taken_back", f"catalogue:{feed}", refresh_id=newest.id)
        if older[0] is None:
            applied_file(feed).unlink(missing_ok=True)
        else:
            _put_in_place(file_of(older[0].id), applied_file(feed))
        file_of(newest.id).unlink(missing_ok=True)
    return RefreshView.model_validate(newest)


def _put_in_place(file: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    shutil.copyfile(file, partial)
    partial.replace(target)


def _waiting(row: CatalogueRefresh | None, refresh_id: str) -> CatalogueRefresh:
    if row is None:
        raise NotFound(
            f"There is no refresh {refresh_id}.", remedy="See Refresh on the Models page."
        )
    if row.state != "found":
        raise Conflict(f"This refresh of {row.feed} is {row.state}.", remedy="Fetch it again.")
    return row
