"""`bud leaderboard`: which models are good at what, from public boards."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import formats
from app.commands import context, follow, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

    from core.leaderboards.schemas import Query, Ranking

group = typer.Typer(
    help="Leaderboards: list, show, board, combine, evidence, refresh.", no_args_is_help=True
)

_Task = Annotated[str, typer.Argument(help="Task: chat, code, tools …", metavar="TASK")]
_Count = Annotated[int, typer.Option("--limit", min=1, help="How many models.")]
_BILLION = 1e9


@group.command("list")
def list_boards(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the tasks, and the boards with their age."""
    from core.leaderboards import services as leaderboards

    found = leaderboards.boards(context.operator(), context.project_id(project))
    tasks = {task.key: [board.title for board in task.boards] for task in leaderboards.tasks()}
    rows = [
        (
            *(board.name, ", ".join(board.tasks), f"{board.models:,}", f"{board.scores:,}"),
            *(board.dated or formats.NONE, "over a year old" if board.is_stale else "current"),
            board.url,
        )
        for board in found
    ]
    columns = ("board", "tasks", "models", "scores", "as of", "state", "site")
    text = [
        output.details([(key, ", ".join(boards)) for key, boards in tasks.items()]),
        output.table(columns, rows, empty="No boards."),
    ]
    output.show({"tasks": tasks, "boards": found}, "\n\n".join(text), as_json=as_json)


@group.command()
def show(
    task: _Task, limit: _Count = 20, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Show the best models of a task; every board counts alike."""
    from core.leaderboards.schemas import Query

    _show(Query(task=_task(task)), project, limit, as_json=as_json)


@group.command()
def combine(
    task: _Task,
    weight: Annotated[
        list[str] | None, typer.Option(help="BOARD=WEIGHT, 0 to 10; may be given several times.")
    ] = None,
    use: Annotated[
        str,
        typer.Option(help="Only models whose licence allows this, such as commercial_chat."),
    ] = "",
    open_weights: Annotated[bool, typer.Option("--open", help="Only open weights.")] = False,
    max_b: Annotated[float | None, typer.Option(help="At most so many billion parameters.")] = None,
    min_b: Annotated[float | None, typer.Option(help="At least so many.")] = None,
    max_usd: Annotated[
        float | None, typer.Option(help="At most so many USD per million tokens.")
    ] = None,
    min_context: Annotated[int | None, typer.Option(help="At least so many tokens.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Released on that day or later.")
    ] = None,
    words: Annotated[str, typer.Option(help="Words in the name or maker.")] = "",
    limit: _Count = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Combine the boards of a task as you weigh them, and keep the models that fit."""
    from core.leaderboards.schemas import Query
    from core.registry import licences

    query = Query(
        task=_task(task),
        weights=dict(_weight(each) for each in weight or ()),
        use=licences.find_use(use) if use else "",
        words=words,
        open_weights=open_weights,
        parameters_from=min_b and min_b * _BILLION,
        parameters_to=max_b and max_b * _BILLION,
        usd_to=max_usd,
        context_from=min_context,
        released_from=since.date() if since else None,
    )
    _show(query, project, limit, as_json=as_json)


def _task(name: str) -> str:
    from core.leaderboards.tasks import find

    return find(name).key


def _weight(text: str) -> tuple[str, float]:
    board, equals, number = text.partition("=")
    try:
        return board.strip(), float(number)
    except ValueError as error:
        what = "This is no weight." if equals else "A weight needs a number."
        raise InvalidInput(what, value=text, remedy="Use BOARD=WEIGHT, as in bfcl=2.") from error


def _show(query: Query, project: str, limit: int, *, as_json: bool) -> None:
    from core.leaderboards import services as leaderboards

    found = leaderboards.combined(context.operator(), context.project_id(project), query)
    output.show(_plain(found, limit), _text(found, limit), as_json=as_json)


def _plain(found: Ranking, limit: int) -> dict[str, Any]:
    return {
        "query": found.query,
        "version": found.version,
        "dated": str(found.dated or ""),
        "models": _records(found.table.head(limit)),
        "boards": [asdict(board) for board in found.boards],
        "left_out": found.left_out,
        "notes": found.notes,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    known = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]


def _text(found: Ranking, limit: int) -> str:
    rows = [
        (
            *(row.position, row.id or row.name, f"{row.score:.1f}"),
            *(f"{row.low:.0f} to {row.high:.0f}", f"{row.best_rank} to {row.worst_rank}"),
            *(row.boards, _or_none(row.licence), _or_none(row.verdict)),
            *(formats.short_count(_number(row.parameters)), _usd(row.usd_per_million_tokens)),
        )
        for row in found.table.head(limit).itertuples()
    ]
    columns = ("#", "model", "score", "band", "rank", "boards", "licence", "use", "size", "USD/M")
    text = output.table(columns, rows, empty="No model fits: ask for less.")
    notes = [*found.notes]
    if found.left_out:
        unknown = ", ".join(f"{count} of unknown {name}" for name, count in found.left_out.items())
        notes.append(f"Left out: {unknown}.")
    dated = f"Data of {found.dated}" if found.dated else "Data"
    notes.append(f"{dated}, version {found.version}.")
    return "\n".join([text, "", *notes])


def _or_none(value: object) -> str:
    return value if isinstance(value, str) and value else formats.NONE


def _number(value: float) -> float | None:
    return None if value != value else value


def _usd(value: float) -> str:
    return formats.usd(_number(value))


@group.command()
def board(
    name: Annotated[str, typer.Argument(help="Board, such as BFCL.", metavar="BOARD")],
    variant: Annotated[str, typer.Option("--table", help="Which of its tables.")] = "",
    order_by: Annotated[str, typer.Option(help="The metric that orders the rows.")] = "",
    limit: _Count = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show one board as it was published."""
    from core.leaderboards import services as leaderboards

    found = leaderboards.board(
        context.operator(), context.project_id(project), name, variant, order_by
    )
    about = found.metrics.loc[found.ordered_by]
    table = found.table.head(limit)
    rows = [
        (number, row["published_name"], f"{row[found.ordered_by]:g}", _mark(row), row["source"])
        for number, (_, row) in enumerate(table.iterrows(), 1)
    ]
    columns = ("#", "published as", found.ordered_by, "marked", "read from")
    way = "more is better" if about["higher_is_better"] else "less is better"
    text = (
        f"{found.board}, {found.variant}: {found.ordered_by} in {about['unit']}, {way}.\n\n"
        + output.table(columns, rows, empty="No rows.")
    )
    document = {
        "board": found.board,
        "table": found.variant,
        "tables": found.variants,
        "ordered_by": found.ordered_by,
        "rows": _records(table),
    }
    output.show(document, text, as_json=as_json)


def _mark(row: pd.Series) -> str:
    if row["is_copy"]:
        return "a copy"
    return "self-reported" if row["is_self_reported"] else ""


@group.command()
def evidence(
    model: Annotated[str, typer.Argument(help="Model, by id or name.", metavar="MODEL")],
    task: Annotated[str, typer.Option(help="Only figures of this task.")] = "",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show every published figure of a model with its source."""
    from core.leaderboards import services as leaderboards

    actor, project_id = context.operator(), context.project_id(project)
    (key,) = leaderboards.find_models(actor, project_id, [model])
    found = leaderboards.evidence(actor, project_id, key, task)
    rows = [
        (
            *(each.board, each.variant, each.metric, f"{each.score:g} {each.unit}"),
            *(f"{each.rank} of {each.of}", each.standing, each.published_name, each.date),
            each.source,
        )
        for each in found
    ]
    columns = (
        *("board", "table", "figure", "value", "rank", "counts", "published as", "date"),
        "read from",
    )
    output.show(found, output.table(columns, rows, empty="No figures."), as_json=as_json)


@group.command()
def refresh(
    name: Annotated[str, typer.Argument(help="Board, such as BFCL.", metavar="BOARD")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply what differs, without looking first.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait and show the steps.")] = True,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Fetch a board's public files anew and show what differs; needs the network."""
    from core.leaderboards import refreshes

    actor = context.operator()
    found, job_id = refreshes.start(actor, context.project_id(project), name)
    if wait:
        follow.job(actor, job_id)
        found = next(each for each in refreshes.list_refreshes(actor) if each.id == found.id)
    if apply and found.state == "found":
        found = refreshes.apply(actor, found.id)
    text = (
        f"{found.board}: {found.added:,} added, {found.removed:,} removed, "
        f"{found.changed:,} changed ({found.state}, job {job_id})."
    )
    output.show({"refresh": found, "job_id": job_id}, text, as_json=as_json)
