"""`bud simulator`: the model behind the predictions: clean its data, train it, validate it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.output import Json
from core.kernel.errors import Unavailable

if TYPE_CHECKING:
    from core.simulation.training_requests import TrainingView

group = typer.Typer(
    help="The simulator's own model: show, use, trainings, train, validate, clean, repeats.",
    no_args_is_help=True,
)

_Workers = Annotated[int, typer.Option(help="Processes to work with.", min=1, max=64)]


@group.command()
def show(as_json: Json = False) -> None:
    """Show what the predictions were trained on, and when."""
    from core.simulation import trained_models

    about = trained_models.trained(_in_use()).about
    text = output.details(
        [(name, getattr(about, name)) for name in ("version", "data_date", "data_hash", "rows")]
    )
    output.show(about, text, as_json=as_json)


def _in_use() -> str:
    """The training that the operator's predictions use; none where Bud was never started."""
    from core.simulation import trained_models

    try:
        return trained_models.in_use(context.operator().tenant_id)
    except Unavailable:
        return trained_models.SHIPPED


@group.command()
def train(workers: _Workers = 2, as_json: Json = False) -> None:
    """Train on the measured rows that ship with Bud; the same data give the same model.

    For developers: it writes the file that ships. On your own rows train on the page What if.
    """
    from core.simulation import training

    output.note("Training takes about a minute on 2 quiet cores.")
    trained = training.train_shipped(
        workers=workers,
        tick=lambda done, total, what: output.note(f"{done} of {total} done; {what}"),
    )
    training.write(trained)
    output.show(trained.about, f"Trained: {training.PATH}", as_json=as_json)


@group.command()
def trainings(project: context.Project = context.DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List what was trained on measurements of your own, and which of it is in use."""
    from core.simulation import trainings as service

    found = service.list_trainings(context.operator(), context.project_id(project))
    rows = [
        (
            each.id,
            each.name,
            f"{each.rows:,}",
            _held_out(each, "ttft_ms"),
            _held_out(each, "tpot_ms"),
            "in use" if each.is_in_use else "",
        )
        for each in found
    ]
    columns = ("id", "file", "own rows", "ttft error", "tpot error", "")
    text = output.table(columns, rows, empty="Nothing was trained: use the page What if, Train.")
    output.show(found, text, as_json=as_json)


def _held_out(training: TrainingView, head: str) -> str:
    """The error on own rows, held out, beside that of the shipped model."""
    error = None if training.result is None else training.result.errors.get(head)
    if error is None:
        return formats.NONE
    return f"{error.held_out_mape:.1f}% (shipped {error.shipped_mape:.1f}%)"


@group.command()
def use(
    training: Annotated[
        str, typer.Argument(help="Id of a training, or `shipped` for the model that ships.")
    ],
    as_json: Json = False,
) -> None:
    """Predict with what was trained, everywhere, or go back to the shipped model."""
    from core.simulation import trainings as service

    actor = context.operator()
    if training == "shipped":
        service.use_shipped(actor)
        output.show({"in_use": "shipped"}, "The shipped model is in use.", as_json=as_json)
        return
    made = service.use(actor, training)
    output.show(made, f"{made.name} is in use.", as_json=as_json)


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
