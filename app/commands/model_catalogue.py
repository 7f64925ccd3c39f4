"""`bud models search`, `show` and `compare`: the catalogue beside the project's own models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

    from core.kernel.actor import Actor
    from core.registry.catalogue_index import Found
    from core.registry.schemas import ModelView

_BILLION = 1e9
_LEAST, _MOST = 2, 6
_USE_HELP = (
    "Keep models whose licence allows this use, also with conditions: internal_tool, "
    "commercial_chat, hosted_api, fine_tune or research"
)


def search(
    words: Annotated[list[str] | None, typer.Argument(help="Words that must all occur.")] = None,
    use: Annotated[str | None, typer.Option(help=_USE_HELP)] = None,
    can: Annotated[
        list[str] | None, typer.Option(help="tools, reasoning or vision; may be given again.")
    ] = None,
    maker: Annotated[str | None, typer.Option(help="Whose models, as the list writes it.")] = None,
    open_weights: Annotated[bool, typer.Option("--open", help="Only open weights.")] = False,
    max_b: Annotated[float | None, typer.Option(help="At most so many billion parameters.")] = None,
    min_context: Annotated[int | None, typer.Option(help="At least so many tokens.")] = None,
    sort: Annotated[
        str, typer.Option(help="relevance, release_date, parameters, usd_per_million_input …")
    ] = "relevance",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows of the catalogue.")] = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Search the project's models and the catalogue; the filters are for the catalogue."""
    from core.registry import catalogue, licences

    actor, project_id = context.operator(), context.project_id(project)
    asked = " ".join(words or ())
    facets: dict[str, Sequence[str]] = {ability: ["yes"] for ability in can or ()}
    if use is not None:
        facets["licence"] = _allowing(licences.find_use(use))
    if maker is not None:
        facets["organisation"] = [maker]
    if open_weights:
        facets["open_weights"] = ["yes"]
    ranges = {
        "parameters": (None, None if max_b is None else max_b * _BILLION),
        "context_tokens": (min_context, None),
    }
    found = catalogue.index().search(
        asked,
        facets,
        {name: ends for name, ends in ranges.items() if ends != (None, None)},
        sort,
        limit=limit,
    )
    own = _own(actor, project_id, asked) if asked else []
    output.show(
        {"models": own, "catalogue": _plain(found.models), "total": found.total},
        _search_text(own, found, limit),
        as_json=as_json,
    )


def _own(actor: Actor, project_id: str, asked: str) -> list[ModelView]:
    from core.registry import annotations
    from core.registry import services as registry

    tags = annotations.tags(actor, project_id)
    words = asked.lower().split()
    found = []
    for model in registry.list_models(actor, project_id):
        facts = (model.name, model.architecture, model.quantization, model.licence, model.source)
        said = [*(fact for fact in facts if fact), *tags.get(f"model:{model.id}", [])]
        if all(word in " ".join(said).lower() for word in words):
            found.append(model)
    return found


def _allowing(use: str) -> list[str]:
    """The licences that allow a use, also with conditions."""
    from core.registry import catalogue, licences

    keys = sorted(set(catalogue.models()["licence"].dropna()))
    stated = licences.USES[use]
    return [key for key in keys if licences.verdict(key, stated).outcome in ("yes", "conditional")]


def _search_text(own: list[ModelView], found: Found, limit: int) -> str:
    parts = []
    if own:
        rows = [
            (model.name, str(model.state), formats.short_count(model.parameters)) for model in own
        ]
        parts.append(output.table(("in this project", "state", "parameters"), rows, empty=""))
    listed = [_row(row) for row in _plain(found.models)]
    columns = ("catalogue id", "parameters", "context", "licence", "usd/M in", "usd/M out", "date")
    nothing = "The catalogue has nothing like it. Ask for less, such as: bud models search llama"
    parts.append(output.table(columns, listed, empty=nothing))
    if found.total > limit:
        parts.append(f"{found.total:,} in all; see more with --limit.")
    corrected = [f"{asked} was read as {read}" for asked, read in found.corrected.items()]
    return "\n\n".join([*parts, *corrected])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["id"],
        formats.short_count(row["parameters"]),
        formats.short_count(row["context_tokens"]),
        row["licence_note"] or formats.NONE,
        formats.usd(row["usd_per_million_input"]),
        formats.usd(row["usd_per_million_output"]),
        row["release_date"] or formats.NONE,
    )


def _plain(models: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [name for name in models.columns if name not in ("fact_sources", "disagreements")]
    whole = models[columns].astype(object)
    # A list is a value too: only single values can be missing.
    known = whole.where(models[columns].notna(), None)
    return [dict(row) for row in known.to_dict("records")]


def show_entry(model_id: str, *, as_json: bool) -> None:
    """Show an entry of the catalogue: every fact with who says it, its names and its prices."""
    import json

    from core.registry import catalogue

    entry = catalogue.entry(model_id)
    sources = json.loads(entry["fact_sources"] or "{}")
    rows = [
        (name.replace("_", " "), _said(value), sources.get(name, formats.NONE))
        for name, value in entry.items()
        if name not in ("fact_sources", "disagreements", "sources") and value not in (None, [])
    ]
    prices = [
        (row.provider_name, formats.usd(_number(row.usd_per_million_input)),
         formats.usd(_number(row.usd_per_million_output)), row.source)
        for row in catalogue.prices_of(entry["id"]).itertuples()
    ]  # fmt: skip
    parts = [
        output.table(("fact", "value", "source"), rows, empty=""),
        output.table(
            ("host", "usd/M in", "usd/M out", "source"), prices, empty="No host is known."
        ),
    ]
    others = json.loads(entry["disagreements"] or "{}")
    parts += [
        f"Others say of {name.replace('_', ' ')}: {_said(values)}"
        for name, values in others.items()
    ]
    whole = entry | {
        "fact_sources": sources,
        "disagreements": others,
        "names": sorted(set(catalogue.names_of(entry["id"])["name"])),
        "prices": _plain(catalogue.prices_of(entry["id"])),
    }
    output.show(whole, "\n\n".join(parts), as_json=as_json)


def _said(value: object) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else str(value)


def _number(value: Any) -> float | None:
    import pandas as pd

    return None if pd.isna(value) else float(value)


def compare(
    models: Annotated[list[str], typer.Argument(help="Two to six canonical ids.")],
    use: Annotated[str, typer.Option(help="What licences are judged for.")] = "Internal tool",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Compare entries of the catalogue: facts, licence verdict, prices, combined scores by task."""
    from core.leaderboards import services as leaderboards
    from core.registry import catalogue, licences

    if not _LEAST <= len(set(models)) <= _MOST:
        raise InvalidInput(
            f"{len(set(models))} models cannot be compared.",
            remedy=f"Name {_LEAST} to {_MOST} different ones.",
        )
    use = licences.find_use(use)
    entries = [catalogue.entry(name) for name in models]
    ids = [entry["id"] for entry in entries]
    found = catalogue.index().search(among=ids, limit=len(ids)).models.set_index("id")
    rows: dict[str, list[str]] = {
        "licence": [entry["licence_note"] or formats.NONE for entry in entries],
        use: [licences.verdict(e["licence"], licences.USES[use]).outcome for e in entries],
        "parameters": [formats.short_count(entry["parameters"]) for entry in entries],
        "context, tokens": [formats.short_count(entry["context_tokens"]) for entry in entries],
        "released": [entry["release_date"] or formats.NONE for entry in entries],
    }
    for column in ("usd_per_million_input", "usd_per_million_output"):
        label = column.replace("_", " ")
        rows[label] = [formats.usd(_number(found.at[key, column])) for key in ids]
    by_task = leaderboards.by_task(context.operator(), context.project_id(project), ids)
    for title in dict.fromkeys(by_task["title"]):
        of_task = by_task[by_task["title"] == title].set_index("id")
        rows[title] = [_scored(of_task, key) for key in ids]
    text = output.table(("", *ids), [(label, *cells) for label, cells in rows.items()], empty="")
    note = "Scores: 50 is the middle of a task's models; in brackets the band of nine in ten."
    value = {key: {label: cells[at] for label, cells in rows.items()} for at, key in enumerate(ids)}
    output.show(value, f"{text}\n\n{note}", as_json=as_json)


def _scored(of_task: pd.DataFrame, key: str) -> str:
    if key not in of_task.index:
        return formats.NONE
    row = of_task.loc[key]
    return f"{row['score']:.0f} ({row['low']:.0f}-{row['high']:.0f}), {row['position']}/{row['of']}"
