"""The job that fetches a source of the catalogue anew and says what differs."""

from __future__ import annotations

from core.jobs import Progress, Run, Step, workflow
from core.kernel import clock, database
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, UpstreamFailed
from core.kernel.settings import settings
from core.registry import catalogue, catalogue_overlay, crud, feed_identity, refreshing
from core.registry.adapters.feeds import FEEDS, Feed
from core.registry.catalogue_overlay import Identified
from core.registry.models import CatalogueRefresh

# A source that lost half of what is known is a broken source before it is a changed one.
_LEAST_SHARE = 0.5


def _abandon(refresh_id: str, by_schedule: bool) -> None:
    refreshing.file_of(refresh_id).unlink(missing_ok=True)
    with database.transaction() as tx:
        _row(crud.refresh(tx, refresh_id)).state = "discarded"


@workflow(
    "catalogue.refresh",
    steps=(
        Step("fetch", "Fetch the source", typical_s=60),
        Step("compare", "Compare with the catalogue", typical_s=5),
    ),
    on_cancel=_abandon,
)
def refresh_catalogue(run: Run, refresh_id: str, by_schedule: bool) -> None:
    """Fetch a source and keep what differs; nothing changes until it is applied."""
    try:
        run.step("fetch", _fetch, refresh_id)
        run.step("compare", _compare, refresh_id, by_schedule)
    except BudError as error:
        with database.transaction() as tx:
            row = _row(crud.refresh(tx, refresh_id))
            row.state, row.error = "failed", str(error)
        raise


def _fetch(progress: Progress, refresh_id: str) -> None:
    feed = _feed(refresh_id)
    known = catalogue.models()["hub_id"].dropna().to_list()
    # Also those that the hub no longer had at the last refresh: they may be back.
    known += catalogue.shipped().models["hub_id"].dropna().to_list()
    try:
        entries = list(feed.entries(progress, sorted(set(known)), clock.now().date().isoformat()))
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UpstreamFailed(
            f"What {feed.name} answers is not what it was: {type(error).__name__} {error}.",
            remedy="Update Bud; until then the catalogue stays as it is.",
        ) from error
    progress.update(0.99, "which models these are")
    found = feed_identity.identified(entries, feed.mark)
    unresolved = sum(each.model_id is None for each in found)
    progress.log(f"{len(found):,} entries; {unresolved:,} names that no model is known by")
    _check_size(feed, found)
    catalogue_overlay.write(found, refreshing.file_of(refresh_id))
    with database.transaction() as tx:
        row = _row(crud.refresh(tx, refresh_id))
        row.entries, row.unresolved = len(found), unresolved


def _check_size(feed: Feed, found: list[Identified]) -> None:
    if feed.mark:
        shipped = catalogue.shipped().prices["source"].str.startswith(f"{feed.mark}:")
        before, now = int(shipped.sum()), sum(bool(each.entry.price) for each in found)
        what = "prices"
    else:
        before = int(catalogue.shipped().models["hub_id"].notna().sum())
        now = sum(each.entry.facts["hub_id"].value is not None for each in found)
        what = "repositories of known models"
    if now < _LEAST_SHARE * before:
        raise UpstreamFailed(
            f"{feed.name} gives {now:,} {what}, where {before:,} came with Bud.",
            remedy="Look at the source itself; the catalogue is left as it is.",
        )


def _compare(progress: Progress, refresh_id: str, by_schedule: bool) -> None:
    feed = _feed(refresh_id)
    counts = refreshing.difference(feed.name, refresh_id)["change"].value_counts()
    progress.log(", ".join(f"{count:,} {change}" for change, count in counts.items()) or "the same")
    with database.transaction() as tx:
        row = _row(crud.refresh(tx, refresh_id))
        for older in crud.refreshes(tx, feed.name, "found"):
            older.state = "discarded"
        row.added, row.removed = int(counts.get("added", 0)), int(counts.get("removed", 0))
        row.changed, row.state = int(counts.get("changed", 0)), "found"
    if by_schedule and settings().refresh_apply:
        refreshing.settle(Actor.system(), refresh_id, "applied")
        progress.log("applied, as BUD_REFRESH_APPLY says")


def _feed(refresh_id: str) -> Feed:
    with database.reading() as session:
        return FEEDS[_row(crud.refresh(session, refresh_id)).feed]


def _row(row: CatalogueRefresh | None) -> CatalogueRefresh:
    if row is None:
        raise Conflict("The record of this refresh is gone.", remedy="Start it again.")
    return row
