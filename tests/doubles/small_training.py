"""`core.simulation.training_process` on a fortieth of the rows and with two trees a learner.

What it does is the real thing; only there is less to do, and no machine is measured for it.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from core.simulation import calibration, dataset, learners, subjects, training_process

_EVERY = 40
_TREES = 2


def shrink() -> None:
    """Leave little to do, in this process and in those that it forks."""
    few = dataset.shipped_table().iloc[::_EVERY].reset_index(drop=True)

    def table() -> pd.DataFrame:
        return few

    dataset.shipped_table = table
    for name, recipe in learners.RECIPES.items():
        learners.RECIPES[name] = replace(recipe, trees=_TREES)  # type: ignore[index]
    calibration._ROUNDS = 2
    subjects.for_actor = lambda _actor: subjects.shipped()


if __name__ == "__main__":
    shrink()
    training_process.main()
