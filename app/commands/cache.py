"""`bud cache`: answers that a project keeps, and gives again to the same request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.response_cache.schemas import ResponseCacheView

group = typer.Typer(help="Kept answers: show, on, off, purge.", no_args_is_help=True)


@group.command()
def show(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show what is kept, and what it saved in the last 24 hours."""
    from core.metrics import services as metrics
    from core.metrics.schemas import Window
    from core.response_cache import services as cache

    actor, project_id = context.operator(), context.project_id(project)
    view = cache.get_cache(actor, project_id)
    seen = metrics.cache_numbers(actor, project_id, Window.preset("24h"))
    rows = [
        ("Answers", _told(view) if view else "are not kept. Turn it on: bud cache on"),
        ("Kept now", _kept(view) if view else "nothing"),
        (
            "Last 24 hours",
            f"{seen.hits:,} hits, {seen.misses:,} misses, {seen.bypassed:,} bypassed",
        ),
        ("Hit rate", formats.percent(seen.hit_rate)),
        ("Saved", f"{seen.saved_tokens:,} tokens, {formats.usd(seen.saved_usd)}"),
    ]
    found = {"cache": view, "last_24h": seen}
    output.show(found, output.details(rows), as_json=as_json)


@group.command()
def on(
    ttl: Annotated[int, typer.Option(help="Seconds for which an answer is given again.")] = 3600,
    max_mb: Annotated[
        int, typer.Option(help="What they may take; those used longest ago go first.")
    ] = 100,
    all_requests: Annotated[
        bool,
        typer.Option(
            "--all-requests/--repeatable-only",
            help="Also of requests without temperature 0 or a seed, which ask for another answer "
            "each time.",
        ),
    ] = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Keep the answers of a project from now on, and give them again to the same request."""
    from core.response_cache import services as cache

    made = cache.turn_on(
        context.operator(), context.project_id(project), ttl_s=ttl, max_mb=max_mb,
        all_requests=all_requests,
    )  # fmt: skip
    output.show(made, f"Answers {_told(made)}.", as_json=as_json)


@group.command()
def off(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Keep no more, and delete what was kept."""
    from core.response_cache import services as cache

    made = cache.turn_off(context.operator(), context.project_id(project))
    output.show(made, f"Answers {_told(made)}.", as_json=as_json)


@group.command()
def purge(project: Project = DEFAULT_PROJECT, yes: Yes = False, as_json: Json = False) -> None:
    """Delete all answers that a project kept; the next requests go to their models."""
    from core.response_cache import services as cache

    actor, project_id = context.operator(), context.project_id(project)
    output.confirm(f"Delete all answers that project {project} kept?", yes=yes)
    made = cache.purge(actor, project_id)
    output.show(made, "None of them is given any more.", as_json=as_json)


def _told(view: ResponseCacheView) -> str:
    if not view.enabled:
        return "are no longer kept; those that were are deleted"
    which = "all requests" if view.all_requests else "requests with temperature 0 or a seed"
    return (
        f"of {which} are given again for {formats.duration(view.ttl_s)}, at most {view.max_mb} MB"
    )


def _kept(view: ResponseCacheView) -> str:
    if view.answers is None or view.used_bytes is None:
        return "in Valkey"
    return f"{view.answers:,} answers, {formats.size(view.used_bytes)}"
