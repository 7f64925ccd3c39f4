"""The combined score, on worlds whose abilities are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from core.leaderboards.combining import Combiner, rank_bounds, summed
from core.leaderboards.linking import normal_scores

MODELS, BOARDS, WORLDS = 200, 6, 10


def _world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Abilities, and boards that see models by their ability (missing not at random).

    Even boards list strong models, from some level on; odd ones those near a level. Boards differ
    in scale, in noise and in how their numbers bend.
    """
    random = np.random.default_rng(seed)
    ability = random.normal(size=MODELS)
    model, board, value = [], [], []
    for index in range(BOARDS):
        level = random.normal()
        strong = random.uniform(0.3, 0.9) / (1 + np.exp(-1.5 * (ability - level)))
        near = 1 / (1 + np.exp(3 * np.abs(ability - level) - 2))
        listed = np.flatnonzero(random.random(MODELS) < (near if index % 2 else strong))
        noise = random.normal(0, random.uniform(0.3, 0.7), len(listed))
        raw = random.uniform(0.7, 1.2) * ability[listed] + noise
        model += listed.tolist()
        board += [index] * len(listed)
        value += (np.exp(raw) if index % 3 == 0 else 100 / (1 + np.exp(-raw - 1))).tolist()
    return ability, np.array(model), np.array(board), np.array(value)


def _combined(seed: int):
    ability, model, board, value = _world(seed)
    combiner = Combiner(model, board, value, MODELS, BOARDS)
    return 50 + 10 * ability, combiner.combine(np.ones(BOARDS)), (model, board, value)


def test_it_finds_the_order_better_than_the_mean_of_ranks() -> None:
    ours, mean_of_ranks = [], []
    for seed in range(WORLDS):
        truth, combined, (model, board, value) = _combined(seed)
        listed = combined.boards > 0
        total, count = np.zeros(MODELS), np.zeros(MODELS)
        for index in range(BOARDS):
            on = board == index
            np.add.at(total, model[on], rankdata(value[on]) / on.sum())
            np.add.at(count, model[on], 1)
        naive = total[listed] / count[listed]
        ours.append(spearmanr(combined.score[listed], truth[listed])[0])
        mean_of_ranks.append(spearmanr(naive, truth[listed])[0])
    assert np.mean(ours) > 0.87
    assert np.mean(ours) > np.mean(mean_of_ranks) + 0.1


def test_nine_bands_of_ten_hold_the_ability_and_few_boards_widen_them() -> None:
    held, width = [], {count: [] for count in range(1, 5)}
    for seed in range(WORLDS):
        truth, combined, _ = _combined(seed)
        listed = combined.boards > 0
        held.append(((combined.low <= truth) & (truth <= combined.high))[listed].mean())
        for count, found in width.items():
            found += (combined.high - combined.low)[combined.boards == count].tolist()
    assert 0.85 <= np.mean(held) <= 0.95
    means = [np.mean(found) for found in width.values()]
    assert means == sorted(means, reverse=True)
    assert means[0] > 1.5 * means[-1]


def test_only_the_order_counts_not_the_scale() -> None:
    _, model, board, value = _world(1)
    bent = np.where(board == 2, np.exp(value / 50), np.where(board == 3, 7 * value - 900, value))
    plain, other = (
        Combiner(model, board, each, MODELS, BOARDS).combine(np.ones(BOARDS))
        for each in (value, bent)
    )
    np.testing.assert_allclose(plain.score, other.score)


def test_the_best_of_a_weak_board_is_not_taken_for_the_best() -> None:
    """Board 0 lists models 0 to 59; board 1 the stronger half of all, 30 to 99."""
    ability = np.linspace(-2, 2, 100)
    model = np.r_[np.arange(60), np.arange(30, 100)]
    board = np.r_[np.zeros(60, int), np.ones(70, int)]
    combined = Combiner(model, board, ability[model], 100, 2).combine(np.ones(2))
    assert combined.score[59] < combined.score[75]
    assert spearmanr(combined.score, ability)[0] > 0.97


def test_one_board_keeps_its_order_and_its_doubt() -> None:
    value = np.array([3.0, 9.0, 1.0, 7.0])
    combined = Combiner(np.arange(4), np.zeros(4, int), value, 4, 1).combine(np.ones(1))
    assert np.argsort(-combined.score).tolist() == [1, 3, 0, 2]
    best, worst = rank_bounds(combined.low, combined.high)
    assert best.tolist() == [1, 1, 1, 1]
    assert worst.tolist() == [4, 4, 4, 4]


def test_weights_move_the_score_and_doubling_one_is_no_new_knowledge() -> None:
    _, model, board, value = _world(2)
    combiner = Combiner(model, board, value, MODELS, BOARDS)
    plain = combiner.combine(np.ones(BOARDS))
    without = combiner.combine(np.array([0.0, 1, 1, 1, 1, 1]))
    only = np.setdiff1d(model[board == 0], model[board != 0])
    assert np.isnan(without.score[only]).all()
    assert (without.boards[only] == 0).all()
    assert np.nanmax(np.abs(without.score - plain.score)) > 0.5
    twice = combiner.combine(np.array([2.0, 1, 1, 1, 1, 1]))
    on_it = model[board == 0]
    assert ((twice.high - twice.low)[on_it] > 0.99 * (plain.high - plain.low)[on_it]).all()


def test_ties_share_their_rank() -> None:
    found = normal_scores(np.array([1.0, 5.0, 5.0, 9.0, 2.0, 2.0]), np.array([0, 0, 0, 0, 1, 1]))
    assert found[1] == found[2] == pytest.approx(0.0)
    assert found[0] == pytest.approx(-found[3])
    assert found[4] == found[5] == pytest.approx(0.0)


def test_a_board_of_benchmarks_knows_less_of_a_model_that_lacks_some() -> None:
    random = np.random.default_rng(3)
    ability = random.normal(size=50)
    model = np.concatenate([np.arange(50)] * 3 + [np.arange(25)])
    benchmark = np.repeat([0, 1, 2, 3], [50, 50, 50, 25])
    value = ability[model] + random.normal(0, 0.3, len(model))
    listed, order, extra = summed(model, benchmark, value, 50, 4)
    assert listed.tolist() == list(range(50))
    assert spearmanr(order, ability)[0] > 0.95
    assert extra[:25].max() < extra[25:].min()
