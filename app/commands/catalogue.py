"""`bud catalogue`: make the shipped catalogue and scores, and measure the resolver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands import output
from app.commands.output import Json

group = typer.Typer(help="The shipped catalogue: build, resolver, pairs.", no_args_is_help=True)


@group.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Holds the CSV files.", metavar="FOLDER")],
    as_json: Json = False,
) -> None:
    """Make the catalogue, its names and prices, and the scores from a folder of CSV files."""
    from core.leaderboards import scores_build
    from core.registry import catalogue_build

    built = catalogue_build.build(folder)
    rows = catalogue_build.read_csv(folder, scores_build.FILE)
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
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("tests/data/identity"),
    as_json: Json = False,
) -> None:
    """Sample pairs of published names for two people to label."""
    from core.registry import catalogue, identity_pairs

    sampled = identity_pairs.sample(catalogue.names().to_dict("records"), seed)
    identity_pairs.write(sampled, out)
    output.show({"pairs": len(sampled)}, f"{len(sampled):,} pairs are in {out}.", as_json=as_json)
