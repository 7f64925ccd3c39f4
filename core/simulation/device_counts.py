"""Workers of one device that cannot hold the model: the device count of a source is not true.

Public runs of disaggregated deployments sometimes name one device a worker where several ran. Such
a row is predicted for the fewest devices that hold the weights, as those deployments run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.simulation import memory
from core.simulation.scenarios import MODES, ModelTable, Scenarios, SystemTable

_MOST_DOUBLINGS = 10
_SIDES = (("prefill_", memory.prefill_side), ("decode_", memory.decode_side))


def raised(
    rows: Scenarios, models: ModelTable, systems: SystemTable
) -> tuple[Scenarios, npt.NDArray[np.bool_]]:
    """The rows with enough devices a worker for its weights, and which of them were changed.

    Devices double until they are enough. Those of a model with experts share the experts, and
    each attends by itself.
    """
    is_changed = np.full(len(rows), False)
    is_split = rows.mode == MODES.index("disagg")
    for prefix, side_of in _SIDES:
        is_one = is_split & (getattr(rows, f"{prefix}tp") <= 1)
        is_short = np.full(len(rows), False)
        for _ in range(_MOST_DOUBLINGS):
            held = memory.of_side(rows, side_of(rows), models, systems)
            is_over = is_one & (held.weights > held.usable)
            if not is_over.any():
                break
            is_short |= is_over
            rows = _doubled(rows, prefix, is_over)
        rows = _spread(rows, prefix, is_short & (models.columns["experts"][rows.model] > 1))
        is_changed |= is_short
    return rows, is_changed


def _doubled(rows: Scenarios, prefix: str, where: npt.NDArray[np.bool_]) -> Scenarios:
    tp = getattr(rows, f"{prefix}tp")
    return rows.with_columns(**{f"{prefix}tp": np.where(where, 2.0 * np.maximum(1.0, tp), tp)})


def _spread(rows: Scenarios, prefix: str, where: npt.NDArray[np.bool_]) -> Scenarios:
    tp = getattr(rows, f"{prefix}tp")
    return rows.with_columns(
        **{
            f"{prefix}{name}": np.where(where, tp, getattr(rows, f"{prefix}{name}"))
            for name in ("ep", "dp")
        }
    )
