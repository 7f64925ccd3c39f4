"""Does one part of a training in a process of its own: `python -m … PART TRAINING_ID`.

The app serves pages from threads: hundreds of seconds of processor time do not belong there, and
a process with threads must not fork workers. This one runs at low priority. It is given, on
standard input, what the earlier parts found, and says on standard output, one JSON object a line,
how far it is and at last what it found. Only the last part writes: what is killed leaves nothing.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.kernel import database, machine
from core.kernel.actor import Actor
from core.kernel.errors import BudError, NotFound
from core.simulation import (
    calibration,
    crud,
    dataset,
    own_error,
    subjects,
    trained_models,
    training,
)
from core.simulation.dataset import Measured
from core.simulation.training import About, Tick
from core.simulation.training_requests import TrainingResult

_NICENESS = 10
# More gain little: there are twelve splits.
_MOST_WORKERS = 4


def main() -> None:
    """Do a part, and say what came of it."""
    part, training_id = sys.argv[1:]
    os.nice(_NICENESS)
    try:
        _say(value=PARTS[part](training_id, json.load(sys.stdin), _tell))
    except BudError as error:
        _say(error=error.what, remedy=error.remedy)


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)  # noqa: T201 (the parent reads it)


def _tell(done: int, total: int, what: str) -> None:
    _say(fraction=done / total, detail=what)


def calibrate(training_id: str, _given: Mapping[str, Any], _tick: Tick) -> dict[str, Any]:
    """Fit the roofline; its coefficients."""
    measured, _ = _rows(training_id)
    return {"coefficients": calibration.calibrate(measured).tolist()}


def hold_out(training_id: str, given: Mapping[str, Any], tick: Tick) -> dict[str, Any]:
    """Hold out each split in turn; how learners are combined, and the errors on own rows."""
    measured, _ = _rows(training_id)
    serving = training.served(measured)
    workers = min(machine.cores(machine.cgroup_limits()), _MOST_WORKERS)
    coefficients = np.array(given["coefficients"])
    held_out = training.hold_out(serving, coefficients, workers=workers, tick=tick)
    errors = own_error.measure(serving, held_out)
    return {
        "choices": training.describe_choices(training.choose(serving, held_out)),
        "errors": {head: vars(error) for head, error in errors.items()},
    }


def learn(training_id: str, given: Mapping[str, Any], _tick: Tick) -> dict[str, Any]:
    """Train the learners on every row, and write the model and what is to be said of it."""
    measured, about = _rows(training_id)
    trained = training.learn(
        training.served(measured),
        np.array(given["coefficients"]),
        training.choices_from(given["choices"]),
        about,
    )
    sources, counts = np.unique(measured.source, return_counts=True)
    result = TrainingResult(
        version=about.version,
        data_date=about.data_date,
        data_hash=about.data_hash,
        rows={str(name): int(count) for name, count in zip(sources, counts, strict=True)},
        errors=given["errors"],
    )
    packed = trained_models.packed(trained)
    with database.transaction() as tx:
        row = crud.training(tx, training_id)
        if row is None:
            raise _gone(training_id)
        row.trained, row.result = packed, result.model_dump(mode="json")
    return {}


PARTS: Mapping[str, Callable[[str, Mapping[str, Any], Tick], dict[str, Any]]] = {
    "calibrate": calibrate,
    "hold-out": hold_out,
    "learn": learn,
}


def _rows(training_id: str) -> tuple[Measured, About]:
    """All rows of a training, and where they come from."""
    with database.reading() as session:
        row = crud.training(session, training_id)
        own = crud.own_rows(session, training_id)
    if row is None or own is None:
        raise _gone(training_id)
    table = pd.read_parquet(io.BytesIO(own))
    # Whoever started it may name these models and devices: that was checked when they did.
    known = subjects.for_actor(Actor.system(row.tenant_id))
    measured = dataset.load_with(table, known.models, known.systems)
    about = About(
        training.VERSION,
        dataset.data_hash(table),
        max(dataset.data_date(), str(table["measured_on"].max())),
        len(measured),
    )
    return measured, about


def _gone(training_id: str) -> NotFound:
    return NotFound(f"There is no training {training_id}.", remedy="Upload its rows again.")


if __name__ == "__main__":
    main()
