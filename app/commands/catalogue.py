"""`bud catalogue`: make the shipped catalogue and scores, and measure the resolver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import output
from app.commands.output import Json

if TYPE_CHECKING:
    from core.registry.identity_report import Report, Share

# Subfolder of each fresh sample of merges, and when it was drawn.
_FRESH_SAMPLES = {
    "second": "after tuning on the first",
    "third": "after what the second showed was mended",
}

group = typer.Typer(help="The shipped catalogue: build, resolver, pairs.", no_args_is_help=True)


@group.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Holds the CSV files.", metavar="FOLDER")],
    as_json: Json = False,
) -> None:
    """Make the catalogue, its names and prices, and the scores from a folder of CSV files."""
    from core.leaderboards import scores_build
    from core.registry import catalogue_build, catalogue_files

    built = catalogue_build.build(folder)
    rows = catalogue_files.read_csv(folder, scores_build.FILE)
    scores = scores_build.build(rows, built.model_ids())
    catalogue_build.write(built)
    scores_build.write(scores)
    resolved = sum(row["model_id"] is not None for row in built.names)
    of_models = sum(row["model_id"] is not None for row in scores.scores)
    figures = {
        "models": len(built.catalogue),
        "names": len(built.names),
        "names_resolved": resolved,
        "prices": len(built.prices),
        "scores": len(scores.scores),
        "scores_of_models": of_models,
        "scores_left_out": len(scores.left_out),
    }
    output.show(
        figures,
        output.details([(name.replace("_", " "), f"{n:,}") for name, n in figures.items()]),
        as_json=as_json,
    )


@group.command()
def pairs(
    seed: Annotated[int, typer.Option(help="Of the random choice.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    as_json: Json = False,
) -> None:
    """Sample pairs of published names for two people to label."""
    from core.registry import catalogue, identity_pairs

    sampled = identity_pairs.sample(catalogue.names().to_dict("records"), seed)
    identity_pairs.write(sampled, out)
    output.show({"pairs": len(sampled)}, f"{len(sampled):,} pairs are in {out}.", as_json=as_json)


@group.command()
def resolver(
    folder: Annotated[Path, typer.Option(help="Holds the pairs and labels.")] = Path(
        "tests/data/identity"
    ),
    mistakes: Annotated[
        bool, typer.Option("--mistakes", help="List the development half's mistakes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the resolver's precision and recall on labelled pairs, with Wilson intervals of 95%.

    Beside them stands the precision of fresh samples of merges, drawn after the resolver was tuned.
    """
    from core.registry import catalogue, identity_report

    model_of = catalogue.model_of()
    found = identity_report.report(folder, model_of)
    samples = {"first": found} | {
        name: identity_report.report(folder / name, model_of)
        for name in _FRESH_SAMPLES
        if (folder / name).is_dir()
    }
    rows = [
        (name, *(_share(part.get(half)) for half in ("all", "development", "test")))
        for name, part in _lines(found)
    ]
    text = output.table(("", "all", "development", "test"), rows, empty="Nothing is labelled.")
    notes = (
        f"Two labellers agree on {_share(found.agreed)} of the pairs, kappa {found.kappa:.3f}. "
        f"{found.settled} disagreements were settled with a reason; {found.unsettled} pairs that "
        "stay unsure count nowhere."
    )
    listed = [(pair.kind, pair.label, *pair.names) for pair in found.mistakes] if mistakes else []
    parts = [text, notes, _samples(samples), *_mistakes(listed)]
    output.show(samples, "\n\n".join(parts), as_json=as_json)


def _samples(samples: Mapping[str, Report]) -> str:
    """A row a sample: a merge that was mended since still counts in "as drawn"."""
    drawn = {"first": "before tuning"} | _FRESH_SAMPLES
    rows = [
        (
            name,
            drawn[name],
            _share(found.all.precision_as_drawn),
            _share(found.all.precision),
            _share(found.all.recall),
            f"{found.kappa:.3f}",
        )
        for name, found in samples.items()
    ]
    columns = ("sample", "drawn", "precision as drawn", "precision now", "recall", "kappa")
    return output.table(columns, rows, empty="")


def _lines(found: Report) -> list[tuple[str, dict[str, Share]]]:
    halves = {"all": found.all, "development": found.development, "test": found.test}
    lines = [
        ("precision", {name: half.precision for name, half in halves.items()}),
        (
            "precision, all pairs",
            {name: half.precision_everywhere for name, half in halves.items()},
        ),
        ("hard pairs apart", {name: half.hard_kept_apart for name, half in halves.items()}),
        ("recall", {name: half.recall for name, half in halves.items()}),
    ]
    for stratum in found.all.recall_by_stratum:
        shares = {name: half.recall_by_stratum.get(stratum) for name, half in halves.items()}
        lines.append((f"  {stratum}", {name: each for name, each in shares.items() if each}))
    return lines


def _share(share: Share | None) -> str:
    if not share or not share.of:
        return formats.NONE
    low, high = share.interval
    return f"{share.value:.1%} ({low:.1%} to {high:.1%}; {share.hits:,} of {share.of:,})"


def _mistakes(rows: Sequence[tuple[object, ...]]) -> list[str]:
    columns = ("kind", "people say", "name", "other name")
    return [output.table(columns, rows, empty="")] if rows else []
