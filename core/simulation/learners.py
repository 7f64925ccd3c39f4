"""Gradient-boosted trees over the analytic model, and how their answers are combined.

Each learner predicts the logarithm of a time. `seen` and `lean` correct the roofline; `free` and
`general` start from nothing, and so find the common case among slow outliers. Where a combination
of model, device and engine was measured, the detailed ones are best; elsewhere the lean one,
which sees only what carries over, and the lower of it and another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.simulation import features
from core.simulation.features import Matrix
from core.simulation.scenarios import Floats

if TYPE_CHECKING:
    import xgboost

# The loss is |measured - predicted| / measured, smoothed near zero; its curvature has a floor,
# because far above the measured value the loss is linear, and far below it is flat.
_SMOOTHING = 0.1
_LEAST_CURVATURE = 1.0
_MOST_LOG_ERROR = 4.0
_SEED = 1
# Statistics that predictions do not need; half of a file of trees.
_ONLY_FOR_TRAINING = ("loss_changes", "sum_hessian", "base_weights")


@dataclass(frozen=True)
class Recipe:
    """How a learner is made.

    Attributes:
        columns: Features that it sees.
        on_roofline: Whether it corrects the roofline, or starts from the median.
        trees: How many, of `depth`, each added with weight `rate`.
        balance: Weight of a row: the size of its combination to the power of minus this.
    """

    columns: tuple[str, ...]
    on_roofline: bool
    trees: int
    depth: int
    rate: float
    balance: float = 0.0


RECIPES: Mapping[str, Recipe] = {
    "seen": Recipe(features.DETAILED, True, trees=100, depth=8, rate=0.15),
    "free": Recipe(features.DETAILED, False, trees=150, depth=6, rate=0.15),
    "lean": Recipe(features.LEAN, True, trees=80, depth=2, rate=0.1, balance=0.5),
    "general": Recipe(features.DETAILED, False, trees=200, depth=4, rate=0.08),
}
ROOFLINE = "roofline"
LEAN = "lean"


@dataclass(frozen=True)
class Combination:
    """How learners' logarithms become one: their mean or their minimum."""

    learners: tuple[str, ...]
    lowest: bool = False

    def of(self, logarithms: Mapping[str, Floats]) -> Floats:
        """Combine predictions of the same rows."""
        stacked = np.stack([logarithms[name] for name in self.learners])
        return np.asarray(stacked.min(axis=0) if self.lowest else stacked.mean(axis=0))


COMBINATIONS = (
    Combination((ROOFLINE,)),
    Combination(("seen",)),
    Combination(("seen", "free")),
    Combination(("free",)),
    Combination(("seen", "free", "lean")),
    Combination(("lean",)),
    Combination((ROOFLINE, "lean"), lowest=True),
    Combination(("lean", "seen"), lowest=True),
    Combination(("lean", "general")),
    Combination(("lean", "general"), lowest=True),
)


class Learner:
    """One trained recipe."""

    def __init__(self, name: str, base: float, booster: xgboost.Booster) -> None:
        self.name, self.recipe, self._base, self._booster = name, RECIPES[name], base, booster
        self._places = features.places(self.recipe.columns)

    def logarithms(self, matrix: Matrix, roofline: Floats) -> Floats:
        """Logarithms of the time, given the whole feature matrix and those of the roofline."""
        found = self._booster.inplace_predict(np.ascontiguousarray(matrix[:, self._places]))
        return np.asarray((roofline if self.recipe.on_roofline else self._base) + found)

    def document(self) -> dict[str, Any]:
        """What `read` reads."""
        document = json.loads(bytes(self._booster.save_raw(raw_format="json")))
        for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
            for name in _ONLY_FOR_TRAINING:
                tree[name] = [0.0] * len(tree[name])
        return {"base": self._base, "trees": document}

    @staticmethod
    def read(name: str, document: Mapping[str, Any]) -> Learner:
        """A learner that `document` wrote."""
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(json.dumps(document["trees"]).encode()))
        booster.set_param({"nthread": 1})
        return Learner(name, document["base"], booster)


def fit(
    name: str,
    matrix: Matrix,
    roofline: Floats,
    measured: Floats,
    combination: npt.NDArray[np.str_],
    emphasis: Floats | float = 1.0,
) -> Learner:
    """Train a recipe on logarithms of one time.

    `combination` says which rows belong together, `emphasis` how much each counts.
    """
    import xgboost

    recipe = RECIPES[name]
    base = float(np.median(measured))
    target = measured - (roofline if recipe.on_roofline else base)
    group = np.unique(combination, return_inverse=True)[1]
    sizes = np.bincount(group)[group]
    data = xgboost.DMatrix(
        matrix[:, features.places(recipe.columns)],
        target,
        weight=(np.median(sizes) / sizes) ** recipe.balance * emphasis,
    )
    settings = {
        "max_depth": recipe.depth,
        "eta": recipe.rate,
        "subsample": 0.8,
        "colsample_bynode": 0.5,
        "min_child_weight": 3,
        "reg_lambda": 2.0,
        "tree_method": "hist",
        "base_score": 0.0,
        "seed": _SEED,
        # Threads that wait for a busy core make a fit many times slower.
        "nthread": 1,
    }
    booster = xgboost.train(settings, data, recipe.trees, obj=_relative_error)
    return Learner(name, base, booster)


def _relative_error(predicted: Floats, data: xgboost.DMatrix) -> tuple[Floats, Floats]:
    """Gradient and curvature of the smoothed relative error of exp(predicted)."""
    actual = data.get_label()
    ratio = np.exp(np.clip(predicted - actual, -_MOST_LOG_ERROR, _MOST_LOG_ERROR))
    error = ratio - 1
    size = np.sqrt(error**2 + _SMOOTHING**2)
    slope = error / size * ratio
    curvature = (_SMOOTHING**2 / size**3) * ratio**2 + slope
    weight = data.get_weight()
    return slope * weight, np.maximum(curvature, _LEAST_CURVATURE) * weight
