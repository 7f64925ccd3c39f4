"""Use cases of refreshing the catalogue: fetch, look at the difference, apply it, go back."""

from __future__ import annotations

import json
from datetime import timedelta

import pandas as pd

from core import jobs
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound
from core.kernel.settings import settings
from core.registry import ages, catalogue, crud, refresh_workflow, refreshing
from core.registry.adapters.feeds import FEEDS, Feed
from core.registry.models import CatalogueRefresh
from core.registry.schemas import RefreshView, SourceView

_PERMISSION = "catalogue:refresh"
# The catalogue belongs to no project, but every job does.
_PROJECT = "prj_default"


def start(
    actor: Actor, project_id: str, feed: str, *, by_schedule: bool = False
) -> tuple[RefreshView, str]:
    """Fetch a source of the catalogue anew. Admins only.

    Args:
        actor: Who fetches.
        project_id: Whose job it is.
        feed: One of `FEEDS`.
        by_schedule: Whether `BUD_REFRESH_APPLY` decides what becomes of what is found.

    Returns:
        The refresh, in state `fetching`, and the id of the job that fetches it.

    Raises:
        NotFound: There is no such source; names those that there are.
        Conflict: It is being fetched already.
    """
    actor.require(_PERMISSION)
    _check(feed)
    subject = f"catalogue:{feed}"
    if jobs.find_active(actor, project_id, subject) is not None:
        raise Conflict(f"{feed} is being fetched already.", remedy="Wait for its job.")
    row = CatalogueRefresh(
        id=ids.new_id("ref"), feed=feed, state="fetching", entries=0, unresolved=0, added=0,
        removed=0, changed=0, created_at=clock.now(),
    )  # fmt: skip
    with database.transaction() as tx:
        tx.add(row)
        audit.record(tx, actor, "catalogue.fetched", subject, refresh_id=row.id)
        job_id = jobs.enqueue(
            tx,
            actor,
            refresh_workflow.refresh_catalogue,
            project_id=project_id,
            title=f"Refresh the catalogue from {feed}",
            subject=subject,
            arguments={"refresh_id": row.id, "by_schedule": by_schedule},
        )
    return RefreshView.model_validate(row), job_id


def list_refreshes(actor: Actor, feed: str | None = None) -> list[RefreshView]:
    """What was fetched, the newest first. Admins only."""
    actor.require(_PERMISSION)
    with database.reading() as session:
        return [RefreshView.model_validate(row) for row in crud.refreshes(session, feed)]


def applied(actor: Actor) -> list[RefreshView]:
    """Of each source the fetch that the catalogue is made with. Admins only."""
    found = [each for each in list_refreshes(actor) if each.state == "applied"]
    return list({each.feed: each for each in reversed(found)}.values())


def sources(actor: Actor) -> list[SourceView]:
    """The public sources of the catalogue, and how old what it has of each is. Admins only."""
    refreshed = {each.feed for each in applied(actor)}
    return [_source(feed, feed.name in refreshed) for feed in FEEDS.values()]


def _source(feed: Feed, is_refreshed: bool) -> SourceView:
    prices, models = catalogue.prices(), catalogue.models()
    if feed.mark:
        starts = feed.name if is_refreshed else f"{feed.mark}:"
        read_from = prices["source"][prices["source"].str.startswith(starts)]
        oldest_days = settings().stale_prices_days
    else:
        facts = models["fact_sources"][models["downloads"].notna()]
        read_from = facts.map(lambda text: json.loads(text)["downloads"])
        oldest_days = settings().stale_facts_days
    dated = ages.newest(read_from.unique().tolist())
    return SourceView(
        name=feed.name,
        what=feed.what,
        url=str(getattr(settings(), feed.setting.removeprefix("BUD_").lower())),
        setting=feed.setting,
        rows=len(read_from),
        dated=dated.text,
        basis=dated.basis,
        age_days=dated.age_days,
        is_old=dated.is_older_than(oldest_days),
        is_refreshed=is_refreshed,
    )


def difference(actor: Actor, refresh_id: str) -> pd.DataFrame:
    """What applying a fetch would change, see `catalogue_difference.difference`. Admins only.

    Raises:
        NotFound: It is settled, or there is no such fetch.
    """
    actor.require(_PERMISSION)
    with database.reading() as session:
        row = crud.refresh(session, refresh_id)
        if row is None or row.state != "found":
            raise NotFound(f"No refresh {refresh_id} waits.", remedy="Fetch the source again.")
        feed = row.feed
    return refreshing.difference(feed, refresh_id)


def apply(actor: Actor, refresh_id: str) -> RefreshView:
    """Let what was fetched into the catalogue. Admins only.

    Raises:
        Conflict: It was applied or discarded before, or is not fetched yet.
    """
    actor.require(_PERMISSION)
    return refreshing.settle(actor, refresh_id, "applied")


def discard(actor: Actor, refresh_id: str) -> RefreshView:
    """Leave the catalogue as it is. Admins only."""
    actor.require(_PERMISSION)
    return refreshing.settle(actor, refresh_id, "discarded")


def take_back(actor: Actor, feed: str) -> RefreshView:
    """Undo the newest applied fetch: the one before stands again, or what is shipped. Admins only.

    Raises:
        Conflict: None is applied.
    """
    actor.require(_PERMISSION)
    _check(feed)
    return refreshing.take_back(actor, feed)


def start_due(actor: Actor) -> list[str]:
    """Start to fetch the sources that are due by `BUD_REFRESH_CATALOGUE_DAYS`; which they are."""
    every_days = settings().refresh_catalogue_days
    feeds = due(actor, every_days) if every_days else []
    for feed in feeds:
        start(actor, _PROJECT, feed, by_schedule=True)
    return feeds


def due(actor: Actor, every_days: int) -> list[str]:
    """Sources whose last fetch is that many days ago, or that were never fetched."""
    since = clock.now() - timedelta(days=every_days)
    recent = {each.feed for each in list_refreshes(actor) if each.created_at > since}
    return [feed for feed in FEEDS if feed not in recent]


def _check(feed: str) -> None:
    if feed not in FEEDS:
        raise NotFound(
            f"The catalogue has no source {feed!r}.", remedy=f"There are: {', '.join(FEEDS)}."
        )
