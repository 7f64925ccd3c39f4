"""`bud simulator`: the model behind the predictions: clean its data, train it, validate it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands import output
from app.commands.output import Json

group = typer.Typer(
    help="The simulator's own model: show, train, validate, clean, repeats.", no_args_is_help=True
)

_Workers = Annotated[int, typer.Option(help="Processes to work with.", min=1, max=64)]


@group.command()
def show(as_json: Json = False) -> None:
    """Show what the predictions were trained on, and when."""
    from core.simulation import predictor

    about = predictor.trained().about
    text = output.details(
        [(name, getattr(about, name)) for name in ("version", "data_date", "data_hash", "rows")]
    )
    output.show(about, text, as_json=as_json)


@group.command()
def train(workers: _Workers = 2, as_json: Json = False) -> None:
    """Train on the measured rows that ship with Bud; the same data give the same model."""
    from core.simulation import training

    output.note("Training takes about a minute on 2 cores.")
    trained = training.train_shipped(workers=workers)
    training.write(trained)
    output.show(trained.about, f"Trained: {training.PATH}", as_json=as_json)


@group.command()
def validate(
    workers: _Workers = 2,
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="Write docs/accuracy.md.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Print how accurate predictions are on rows held out, and write docs/accuracy.md."""
    from app import accuracy_report
    from core.simulation import dataset, training, validation

    output.note("Each line trains five times on other rows: about 10 minutes on 2 quiet cores.")
    measured = dataset.load()
    scores = validation.validate(measured, workers=workers)
    static = validation.static_error(measured)
    if write:
        accuracy_report.write(scores, static, training.about(measured))
    output.show(scores, accuracy_report.table(scores), as_json=as_json)


@group.command()
def clean(
    folder: Annotated[Path, typer.Argument(help="Folder of the three source files.")],
    as_json: Json = False,
) -> None:
    """Clean the source files of measurements into the table that ships with Bud."""
    from core.simulation import cleaning, dataset

    table = cleaning.clean(folder)
    cleaning.write(table, dataset.PATH)
    counts = {str(name): int(n) for name, n in table["source"].value_counts().items()}
    rows = [(name, f"{n:,}") for name, n in counts.items()]
    output.show(counts, output.table(("source", "rows"), rows, empty="No rows."), as_json=as_json)


@group.command()
def repeats(as_json: Json = False) -> None:
    """Print how far repeats of one configuration lie apart, and what explains it."""
    from app import repeats_report
    from core.simulation import repeats as analysis

    report = analysis.of_shipped()
    output.show(report, repeats_report.text(report), as_json=as_json)
