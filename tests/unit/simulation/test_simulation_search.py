"""The search: how near it comes to the true front, and what it never does."""

from __future__ import annotations

from dataclasses import replace

import moocore
import numpy as np
import pytest

from core.hardware import catalogue
from core.kernel.errors import InvalidInput, NotFound
from core.simulation import predictor, search
from core.simulation.encoding import Encoding
from core.simulation.objectives import Slo, scores
from core.simulation.options import Option
from core.simulation.predictor import Predictor
from core.simulation.scenarios import Floats
from core.simulation.space import Load, Machine, Space

SEEDS = range(10)


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return predictor.shipped()


def rented(system: str, devices: int) -> Machine:
    """The cheapest instance with so many of these devices."""
    prices = (
        price
        for price in catalogue.shipped_prices()
        if (price.accelerator_id, price.devices) == (system, devices)
    )
    return Machine.of_price(next(prices))


H100, H200, B200 = rented("h100_sxm", 8), rented("h200_sxm", 8), rented("b200_sxm", 8)
MI300X, GB200, A100 = rented("mi300x", 8), rented("gb200", 4), rented("a100_sxm", 4)

# Of 20,000 or more configurations that can run each; the settings of the search were chosen on
# other ones.
CASES = {
    "dense": (
        Space(
            models=("qwen3-32b",),
            machines=(H100, A100, rented("l40s", 4), MI300X),
            engines=("vllm", "sglang"),
            precisions=("bf16", "fp8", "int8"),
            modes=("agg",),
            ep=(1,),
            dp=(1,),
            max_sequences=(256, 32, 64, 128),
            chunk_tokens=(8192, 2048, 4096),
            block_tokens=(16,),
            max_devices=32,
        ),
        Load(isl=1500, osl=400, concurrency=96, prefix_hit_share=0.25),
        Slo(ttft_ms=500, tpot_ms=25),
    ),
    "experts": (
        Space(
            models=("mixtral-8x7b", "qwen3-30b-a3b"),
            machines=(H100, H200, MI300X),
            engines=("vllm", "sglang", "trtllm"),
            precisions=("bf16", "fp8"),
            modes=("agg",),
            replicas=(1, 2, 4, 8),
            max_sequences=(256, 32),
            chunk_tokens=(8192, 2048),
            block_tokens=(16,),
            chunked_prefill=(True,),
            max_devices=16,
        ),
        Load(isl=800, osl=800, concurrency=200, prefix_hit_share=0.1),
        Slo(ttft_ms=300, tpot_ms=10, e2e_ms=9000),
    ),
    "disaggregated": (
        Space(
            models=("llama-3-70b",),
            machines=(H200, B200),
            engines=("vllm", "sglang", "trtllm"),
            precisions=("bf16", "fp8"),
            pp=(1,),
            ep=(1,),
            dp=(1,),
            prefill_workers=(1, 2, 3, 4, 6),
            decode_workers=(1, 2, 3, 4, 6),
            max_sequences=(256, 64, 128),
            chunk_tokens=(8192,),
            block_tokens=(16, 64),
            chunked_prefill=(True,),
            max_devices=32,
        ),
        Load(isl=5000, osl=300, concurrency=128, prefix_hit_share=0.3),
        Slo(ttft_ms=800, tpot_ms=12),
    ),
    "rack": (
        Space(
            models=("kimi-k2.5", "glm-5"),
            machines=(GB200, B200, H200),
            engines=("vllm", "sglang", "trtllm"),
            precisions=("", "fp8", "fp4"),
            tp=(8, 16, 32),
            ep=(1, 8, 16),
            dp=(1, 8, 16),
            replicas=(1, 2, 3, 4),
            prefill_workers=(1, 2, 4),
            prefill_tp=(8, 16),
            decode_workers=(1, 2, 4),
            decode_tp=(8, 16),
            max_sequences=(256, 64, 1024),
            chunk_tokens=(8192,),
            block_tokens=(16,),
            chunked_prefill=(True,),
            max_devices=64,
        ),
        Load(isl=3000, osl=1000, concurrency=400, prefix_hit_share=0.5),
        Slo(ttft_ms=1500, tpot_ms=25, bound="high"),
    ),
    "many machines": (
        Space(
            models=("qwen2-7b", "llama-2-13b"),
            machines=(
                *(rented("l4", 1), rented("l4", 4), rented("a10g", 4), rented("l40s", 1), A100),
                *(rented("h100_sxm", 1), rented("t4", 4), rented("rtx_pro_6000", 1)),
            ),
            engines=("vllm", "llama.cpp", "trtllm"),
            precisions=("bf16", "fp8", "int8", "int4"),
            modes=("agg",),
            tp=(1, 2, 4),
            ep=(1,),
            dp=(1,),
            max_sequences=(256, 16, 64),
            chunk_tokens=(8192,),
            block_tokens=(16, 32),
            max_devices=12,
        ),
        Load(isl=600, osl=150, concurrency=48, prefix_hit_share=0.2),
        Slo(ttft_ms=400, tpot_ms=40),
    ),
}


def all_values(asked: Predictor, space: Space, load: Load, slo: Slo) -> Floats:
    """Objectives of every configuration that can run."""
    encoding = Encoding(space, asked, load)
    found = []
    for genomes in encoding.all_genomes(50_000):
        genomes = genomes[encoding.ruled_out(genomes) == 0]
        if len(genomes):
            decoded = encoding.decode(genomes)
            scored = scores(decoded, asked.predict(decoded.rows), slo)
            found.append(scored.values[scored.is_feasible])
    return np.concatenate(found)


def values_of(options: tuple[Option, ...]) -> Floats:
    """The three objectives, from what a person sees."""
    rows = []
    for option in options:
        assert option.usd_per_million_tokens is not None
        missed = sum(miss.share for miss in option.misses)
        rows.append((missed, option.usd_per_million_tokens, option.tokens_per_s))
    missed, usd, tokens_per_s = np.array(rows).T
    return np.stack([np.log1p(missed), np.log(usd), -np.log(tokens_per_s)], axis=1)


def hypervolume(values: Floats, true_front: Floats) -> float:
    """With the true front between 0 and 1 in each objective, up to the reference point 1.1."""
    least, most = true_front.min(axis=0), true_front.max(axis=0)
    normal = (values - least) / np.where(most > least, most - least, 1.0)
    return float(moocore.hypervolume(np.minimum(normal, 1.1), ref=[1.1, 1.1, 1.1]))


@pytest.mark.parametrize("name", CASES)
def test_a_tenth_of_the_space_is_enough_to_find_the_front(shipped: Predictor, name: str) -> None:
    space, load, slo = CASES[name]
    values = all_values(shipped, space, load, slo)
    true_front = values[moocore.is_nondominated(values)]
    assert len(values) >= 20_000
    budget = len(values) // 10

    shares = []
    for seed in SEEDS:
        result = search.run(shipped, space, load, slo, budget=budget, seed=seed)
        assert result.evaluated <= budget
        found = hypervolume(values_of(result.front), true_front)
        shares.append(found / hypervolume(true_front, true_front))

    assert np.mean(shares) >= 0.98, shares
    assert min(shares) >= 0.95, shares


# Small enough to go through whole.
SMALL = Space(
    models=("llama-3.1-8b",),
    machines=(rented("l4", 1), rented("h100_sxm", 1), A100),
    engines=("vllm", "sglang"),
    precisions=("bf16", "fp8"),
    modes=("agg",),
    tp=(1, 2, 4),
    pp=(1,),
    ep=(1,),
    dp=(1,),
    replicas=(1, 2, 4),
    max_sequences=(256, 32),
    chunk_tokens=(8192,),
    block_tokens=(16,),
    chunked_prefill=(True,),
    prefix_caching=(True,),
)
CHAT = Load(isl=1155, osl=211, concurrency=32)


def test_a_small_space_is_gone_through_whole(shipped: Predictor) -> None:
    slo = Slo(ttft_ms=300, tpot_ms=15)
    result = search.run(shipped, SMALL, CHAT, slo, budget=500)
    values = all_values(shipped, SMALL, CHAT, slo)

    assert result.is_exhaustive
    assert result.feasible == len(values)
    assert result.points == 216 == result.feasible + sum(result.ruled_out.values())
    front = np.unique(values[moocore.is_nondominated(values)], axis=0)
    assert np.allclose(np.unique(values_of(result.front), axis=0), front, atol=1e-6)


def test_the_best_is_the_cheapest_that_meets_the_targets(shipped: Predictor) -> None:
    slo = Slo(ttft_ms=2000, tpot_ms=60)
    result = search.run(shipped, SMALL, CHAT, slo, budget=500)
    values = all_values(shipped, SMALL, CHAT, slo)
    cheapest = np.exp(values[values[:, 0] == 0, 1].min())

    assert result.best is not None
    assert result.best.meets_slo
    assert result.best.usd_per_million_tokens == pytest.approx(cheapest)
    assert result.verdict == "The targets are met."
    assert result.best.ttft_ms.mean <= 2000
    met = [option.meets_slo for option in result.front]
    assert met == sorted(met, reverse=True)


def test_the_upper_bound_is_harder_to_meet_than_the_mean(shipped: Predictor) -> None:
    cheapest = search.run(shipped, SMALL, CHAT, Slo(), budget=500).best
    assert cheapest is not None
    target_ms = (cheapest.tpot_ms.mean + cheapest.tpot_ms.high) / 2

    on_mean = search.run(shipped, SMALL, CHAT, Slo(tpot_ms=target_ms), budget=500)
    on_high = search.run(shipped, SMALL, CHAT, Slo(tpot_ms=target_ms, bound="high"), budget=500)

    assert on_mean.best == cheapest
    assert on_high.best is not None
    assert on_high.best.meets_slo
    assert on_high.best.tpot_ms.high <= target_ms
    assert on_high.best.configuration != cheapest.configuration


def test_where_nothing_meets_the_targets_the_nearest_says_by_how_much(shipped: Predictor) -> None:
    slo = Slo(tpot_ms=0.5)
    result = search.run(shipped, SMALL, CHAT, slo, budget=500)

    assert result.best is not None
    (miss,) = result.best.misses
    assert miss.share == pytest.approx(result.best.tpot_ms.mean / 0.5 - 1)
    assert all(miss.share <= option.misses[0].share for option in result.front)
    assert result.verdict.startswith(f"Nothing meets the targets; the nearest misses {miss}")


def test_nothing_that_cannot_run_is_ever_found(shipped: Predictor) -> None:
    space = replace(SMALL, models=("llama-3.1-405b",), machines=(rented("l4", 1), rented("t4", 4)))
    for budget in (500, 20):
        result = search.run(shipped, space, CHAT, Slo(), budget=budget)
        assert result.front == ()
        assert result.best is None
        assert result.feasible == 0
        assert result.verdict.startswith("Nothing can run: mostly, ")


def test_a_few_that_fit_are_found_among_many_that_do_not(shipped: Predictor) -> None:
    space = replace(
        CASES["dense"][0],
        models=("llama-3.1-405b",),
        machines=(H100, A100, rented("l40s", 4)),
        tp=(1, 2, 4, 8),
        pp=(1, 2, 4),
    )
    load, slo = Load(isl=6000, osl=500, concurrency=64), Slo(tpot_ms=60)
    feasible = len(all_values(shipped, space, load, slo))
    assert 0 < feasible < Encoding(space, shipped, load).points / 10
    for seed in range(3):
        result = search.run(shipped, space, load, slo, budget=1500, seed=seed)
        assert result.feasible > 0
        assert all(option.memory_gb_per_gpu < 80 for option in result.front)
        assert result.ruled_out["memory"] > 0


def test_what_has_no_price_is_never_the_cheapest(shipped: Predictor) -> None:
    unpriced = Machine("b200_sxm")
    slo = Slo(ttft_ms=2000, tpot_ms=60)
    mixed = replace(SMALL, machines=(*SMALL.machines, unpriced))
    result = search.run(shipped, mixed, CHAT, slo, budget=500)

    priced = [option.usd_per_million_tokens for option in result.front]
    assert result.best is not None
    assert result.best.usd_per_million_tokens is not None
    assert None in priced  # the fastest has no price, and says so
    assert all(
        option.usd_per_hour is None
        for option in result.front
        if option.configuration.machine == unpriced
    )
    met = [option.usd_per_million_tokens for option in result.front if option.meets_slo]
    assert met == sorted(met, key=lambda usd: (usd is None, usd))


def test_without_any_price_the_fewest_device_hours_are_best(shipped: Predictor) -> None:
    space = replace(SMALL, machines=(Machine("l4"), Machine("h200_sxm")))
    result = search.run(shipped, space, CHAT, Slo(), budget=500)

    def device_hours(option: Option) -> float:
        return option.rented_devices / option.tokens_per_s

    assert result.best is not None
    assert result.best.usd_per_million_tokens is None
    assert device_hours(result.best) == min(map(device_hours, result.front))


def test_the_same_seed_finds_the_same(shipped: Predictor) -> None:
    space, load, slo = CASES["dense"]
    first, again, other = (
        search.run(shipped, space, load, slo, budget=1500, seed=seed) for seed in (7, 7, 8)
    )
    assert first == again
    assert first.ruled_out != other.ruled_out


def test_choices_without_effect_stand_at_the_first_option(shipped: Predictor) -> None:
    space, load, slo = CASES["dense"]
    result = search.run(shipped, space, load, slo, budget=3000)
    assert all(option.configuration.chunked_prefill for option in result.front)


def test_progress_grows_to_the_budget_and_cancel_keeps_what_was_found(shipped: Predictor) -> None:
    space, load, slo = CASES["dense"]
    seen: list[tuple[int, int]] = []
    search.run(
        shipped, space, load, slo, budget=2000, progress=lambda done, of: seen.append((done, of))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {2000}
    assert seen[-1][0] == 2000

    asked: list[None] = []

    def third_time() -> bool:
        asked.append(None)
        return len(asked) == 3

    result = search.run(shipped, space, load, slo, budget=2000, cancelled=third_time)
    assert result.was_cancelled
    assert not result.is_exhaustive
    assert result.front
    assert result.evaluated < 2000


@pytest.mark.parametrize("budget", [0, -1, 10**9])
def test_an_absurd_budget_is_refused(shipped: Predictor, budget: int) -> None:
    with pytest.raises(InvalidInput, match="budget"):
        search.run(shipped, SMALL, CHAT, Slo(), budget=budget)


def test_unknown_models_are_refused_with_the_nearest(shipped: Predictor) -> None:
    with pytest.raises(NotFound, match=r"llama-3\.1-8b"):
        search.run(shipped, replace(SMALL, models=("llama-3.1-8",)), CHAT, Slo())
    with pytest.raises(NotFound, match="h100_sxm"):
        search.run(shipped, replace(SMALL, machines=(Machine("h100_sx"),)), CHAT, Slo())


@pytest.mark.parametrize("target", [0, -5, float("nan"), float("inf")])
def test_targets_must_be_positive(target: float) -> None:
    with pytest.raises(InvalidInput, match="A target for TTFT"):
        Slo(ttft_ms=target)
