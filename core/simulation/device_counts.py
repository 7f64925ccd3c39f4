"""Device counts that cannot be true: the weights alone would not fit on so few.

Published measurements sometimes name one device where several ran. Such a row is predicted for
the fewest devices that hold the weights: nearer to what ran than a device that is overfull.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from core.simulation import memory
from core.simulation.memory import Side
from core.simulation.scenarios import ModelTable, Scenarios, SystemTable

_MOST_DOUBLINGS = 10
_SIDES: tuple[tuple[str, int, Callable[[Scenarios], Side]], ...] = (
    ("", 0, memory.whole),
    ("prefill_", 1, memory.prefill_side),
    ("decode_", 1, memory.decode_side),
)


def raised(
    rows: Scenarios, models: ModelTable, systems: SystemTable
) -> tuple[Scenarios, npt.NDArray[np.bool_]]:
    """The rows with enough devices for their weights, and which of them were changed.

    tp doubles until it is enough. Where one device became many for a model with experts, they
    share the experts and each attends by itself, as such deployments do.
    """
    is_changed = np.full(len(rows), False)
    precision = memory.precision_of(rows, models)
    usable = memory.USABLE_SHARE * systems.columns["memory_bytes"][rows.system]
    for prefix, mode, side_of in _SIDES:
        is_asked_for_one = getattr(rows, f"{prefix}tp") <= 1
        is_short = np.full(len(rows), False)
        for _ in range(_MOST_DOUBLINGS):
            weights = memory.weight_bytes(rows, side_of(rows), models, precision)
            is_over = (rows.mode == mode) & (weights > usable)
            if not is_over.any():
                break
            is_short |= is_over
            rows = _doubled(rows, prefix, is_over)
        spreads = is_short & is_asked_for_one & (models.columns["experts"][rows.model] > 1)
        rows = _spread(rows, prefix, spreads)
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
