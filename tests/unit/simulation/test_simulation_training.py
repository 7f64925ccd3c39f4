"""Training on a part of the rows, support, and what validation holds out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.simulation import calibration, dataset, learners, training, validation
from core.simulation.dataset import Measured
from core.simulation.learners import Combination
from core.simulation.predictor import Band, Predictor
from core.simulation.roofline import COEFFICIENTS, PRIOR, Roofline
from core.simulation.support import KINDS, Support
from core.simulation.training import Trained


@pytest.fixture(scope="module")
def part() -> Measured:
    """Some rows of four models on four devices: enough for each kind of support."""
    measured = dataset.load()
    serving = measured.take((measured.rows.lengths != 2) & (measured.rows.mode == 0))
    names = ("deepseek-v3", "gpt-oss-120b", "minimax-m2", "llama-3.1-70b")
    return serving.take(np.flatnonzero(np.isin(serving.model_id, names))[::24])


@pytest.fixture(scope="module", autouse=True)
def _few_trees() -> Iterator[None]:
    """A fifth of the trees: enough for a part of the rows, and a call of XGBoost for each costs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, recipe in learners.RECIPES.items():
            patch.setitem(learners.RECIPES, name, replace(recipe, trees=recipe.trees // 5))
        yield


@pytest.fixture(scope="module")
def trained(part: Measured) -> Trained:
    return training.train(part, training.about(part))


def test_the_same_rows_give_the_same_model_also_after_it_was_written(
    part: Measured, trained: Trained, tmp_path: Path
):
    training.write(trained, tmp_path / "first.json")
    training.write(training.train(part, training.about(part)), tmp_path / "second.json")
    first = (tmp_path / "first.json").read_bytes()
    assert first == (tmp_path / "second.json").read_bytes()
    again = training.read(tmp_path / "first.json")
    answers = [
        Predictor(part.models, part.systems, each).predict(part.rows) for each in (trained, again)
    ]
    assert answers[0].ttft_ms.mean == pytest.approx(answers[1].ttft_ms.mean, rel=1e-6)
    assert again.about == trained.about


def test_training_helps_on_its_own_rows(part: Measured, trained: Trained):
    answer = Predictor(part.models, part.systems, trained).predict(part.rows)
    error = np.mean(np.abs(answer.tpot_ms.mean / part.tpot_ms - 1))
    roofline = np.mean(np.abs(answer.times.tpot_ms / part.tpot_ms - 1))
    assert error < roofline / 2


def test_calibration_moves_towards_the_coefficients_that_made_the_times(part: Measured):
    truth = PRIOR.copy()
    names = [each.name for each in COEFFICIENTS]
    truth[names.index("memory_efficiency:blackwell")] -= 0.4
    truth[names.index("fixed_ttft_ms:vllm")] += 1.0
    times = Roofline(part.models, part.systems, truth).times(part.rows)
    made = replace(part, ttft_ms=times.ttft_ms, tpot_ms=times.tpot_ms)
    values = calibration.describe(calibration.calibrate(made))
    wanted, prior = calibration.describe(truth), calibration.describe(PRIOR)
    # A prior counts like many rows, and these are few: nearer, and not there.
    for name in ("memory_efficiency:blackwell", "fixed_ttft_ms:vllm"):
        assert abs(np.log(values[name] / wanted[name])) < abs(np.log(prior[name] / wanted[name]))
    # No row is of a CPU: its bandwidth moves only with what all families share.
    assert values["memory_efficiency:cpu"] == pytest.approx(prior["memory_efficiency:cpu"], rel=0.3)


def test_groups_are_held_out_whole(part: Measured):
    for name, train, test in training.held_out_splits(part):
        group = {
            "configuration": part.configuration,
            "combination": part.combination,
            "device": part.system_id,
            "model": part.model_id,
        }[name]
        assert not set(group[train]) & set(group[test]), name


@pytest.mark.parametrize("split", validation.SPLITS, ids=lambda split: split.title)
def test_validation_trains_on_nothing_of_what_it_tests(split: validation.Split):
    measured = dataset.load()
    tested = np.zeros(len(measured), dtype=int)
    for fold in range(validation.OUTER_FOLDS):
        train, test = validation.masks(measured, split, fold)
        group = validation.groups(measured)[split.name]
        assert not set(group[train]) & set(group[test])
        tested += test
    of_the_split = (measured.rows.lengths != 2) & (
        (measured.rows.mode == 1) == split.is_disaggregated
    )
    assert (tested == of_the_split).all()


def test_support_tells_what_was_measured_from_what_was_not(part: Measured):
    known = part.take(part.model_id != "minimax-m2")
    lookup = Support.of(known).over(part.models, part.systems)
    own = lookup.place(known.rows)
    assert set(own.kind) == {KINDS.index("seen")}
    assert (own.nearby >= 1).all()
    assert (own.beyond == 0).all()
    other = lookup.place(part.take(part.model_id == "minimax-m2").rows)
    assert set(other.kind) == {KINDS.index("model")}
    assert (other.nearby == 0).all()
    far = known.rows.with_columns(isl=known.rows.isl * 64)
    assert (lookup.place(far).beyond > 1).all()
    assert Support.read(Support.of(known).document()).document() == Support.of(known).document()


def test_combinations_of_learners():
    logarithms = {"lean": np.array([1.0, 4.0]), "seen": np.array([3.0, 2.0])}
    assert Combination(("lean", "seen")).of(logarithms).tolist() == [2.0, 3.0]
    assert Combination(("lean", "seen"), lowest=True).of(logarithms).tolist() == [1.0, 2.0]


def test_the_loss_pulls_to_the_common_case_not_to_slow_outliers():
    rng = np.random.default_rng(0)
    matrix = rng.random((400, len(learners.features.NAMES))).astype(np.float32)
    usual = np.zeros(400)
    usual[::5] = np.log(50)  # a fifth of the runs is fifty times slower
    fitted = learners.fit("free", matrix, np.zeros(400), usual, np.full(400, "one"))
    answers = fitted.logarithms(matrix[1::5], np.zeros(80))
    assert abs(float(np.median(answers))) < 0.1


def test_a_score_compares_with_what_was_measured(part: Measured):
    rows = np.arange(4)
    actual = part.tpot_ms[:4]
    mean = actual * np.array([1.1, 0.9, 1.2, 1.0])
    band = Band(mean, mean * 0.95, mean * 1.15)
    fold = validation.Fold(
        rows,
        {"tpot_ms": band},
        {"tpot_ms": actual * 1.5},
        {"tpot_ms": actual * 2},
    )
    score = validation.score(part, validation.SPLITS[0], "tpot_ms", "", [fold])
    assert (score.rows, score.limits) == (4, (11, 8))
    assert score.mape == pytest.approx(10)
    assert score.median == pytest.approx(10)
    assert (score.roofline_mape, score.trees_mape) == (pytest.approx(50), pytest.approx(100))
    # 1 / 1.1 = 0.91 and 1 / 1.2 = 0.83 lie below 0.95 of the answer, 1 / 0.9 = 1.11 and 1 inside.
    assert score.coverage == pytest.approx(50)
