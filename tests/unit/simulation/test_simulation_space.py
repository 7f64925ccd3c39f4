"""Spaces, their encoding, and the rules that say what cannot run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.hardware import catalogue
from core.kernel.errors import InvalidInput, NotFound
from core.simulation import compatibility, predictor
from core.simulation.encoding import Encoding
from core.simulation.predictor import Predictor
from core.simulation.scenarios import ENGINES, Ints
from core.simulation.space import GENES, Load, Machine, Space
from core.simulation.topology import NUMBER, REASONS

H100 = Machine("h100_sxm", 8, 7.0, cloud="aws", instance="eight")
LOAD = Load(isl=1000, osl=200, concurrency=64, prefix_hit_share=0.4)
# One configuration that runs: each test changes what it is about.
ONE = Space(
    models=("llama-3.1-70b",),
    machines=(H100,),
    engines=("vllm",),
    precisions=("fp8",),
    modes=("agg",),
    tp=(4,),
    pp=(1,),
    ep=(1,),
    dp=(1,),
    replicas=(2,),
    prefill_workers=(2,),
    prefill_tp=(4,),
    decode_workers=(1,),
    decode_tp=(8,),
    max_sequences=(256,),
    chunk_tokens=(8192,),
    block_tokens=(16,),
    chunked_prefill=(True,),
    prefix_caching=(True,),
)


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return predictor.shipped()


def everything(encoding: Encoding) -> Ints:
    return np.concatenate(list(encoding.all_genomes(1000)))


def reason(shipped: Predictor, load: Load = LOAD, **changes: Any) -> str:
    """Why ONE cannot run when it is changed; empty when it may."""
    encoding = Encoding(replace(ONE, **changes), shipped, load)
    (number,) = encoding.ruled_out(everything(encoding)).tolist()
    return ("", *REASONS)[number]


V100 = Machine("v100_sxm")
A100 = Machine("a100_sxm")
MI300X = Machine("mi300x")


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("", {}),
        ("licence", {"forbidden_models": frozenset({"llama-3.1-70b"})}),
        ("engine", {"engines": ("trtllm",), "machines": (MI300X,)}),
        ("engine", {"engines": ("sglang",), "machines": (V100,)}),
        ("engine", {"engines": ("atom",)}),
        ("", {"engines": ("atom",), "machines": (MI300X,)}),
        ("precision", {"machines": (A100,)}),
        ("", {"machines": (A100,), "precisions": ("int8",)}),
        ("precision", {"precisions": ("fp4",)}),
        ("", {"precisions": ("fp4",), "machines": (Machine("b200_sxm"),)}),
        ("precision", {"engines": ("llama.cpp",)}),
        ("feature", {"engines": ("deepspeed",), "precisions": ("bf16",), "pp": (2,)}),
        ("feature", {"engines": ("llama.cpp",), "precisions": ("int4",), "modes": ("disagg",)}),
        ("layers", {"pp": (81,), "max_devices": 1000}),
        ("heads", {"tp": (3,)}),
        ("experts", {"ep": (2,)}),
        ("attention", {"dp": (4,)}),
        ("node", {"tp": (16,)}),
        ("node", {"machines": (Machine("h100_sxm", 2, 7.0, instance="two"),)}),
        ("", {"tp": (16,), "machines": (Machine("gb200", 4, 20.0, instance="rack"),),
              "max_devices": 64}),
        ("devices", {"replicas": (8,)}),
        ("devices", {"machines": (replace(H100, max_devices=4),)}),
        ("whole prompts", {"chunked_prefill": (False,), "chunk_tokens": (1024,)}),
        ("", {"chunked_prefill": (False,)}),
        ("", {"modes": ("disagg",)}),
        ("devices", {"modes": ("disagg",), "max_devices": 15}),
        ("node", {"modes": ("disagg",), "decode_tp": (16,), "max_devices": 64}),
    ],
)  # fmt: skip
def test_why_a_configuration_cannot_run(
    shipped: Predictor, why: str, changes: dict[str, Any]
) -> None:
    assert reason(shipped, **changes) == why


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("", {"ep": (8,)}),
        ("", {"dp": (8,)}),
        ("experts", {"ep": (3,)}),
        ("experts", {"ep": (16,)}),
        ("attention", {"dp": (16,)}),
        ("", {"modes": ("disagg",), "ep": (8,), "dp": (8,)}),
        ("experts", {"modes": ("disagg",), "ep": (16,)}),
    ],
)
def test_experts_and_attention_of_a_moe_model(
    shipped: Predictor, why: str, changes: dict[str, Any]
) -> None:
    base = {"models": ("deepseek-v3",), "machines": (Machine("h200_sxm"),), "tp": (8,)}
    assert reason(shipped, **base, **changes) == why


def test_a_request_longer_than_the_context_is_ruled_out(shipped: Predictor) -> None:
    context = shipped.models.architectures[shipped.models.ids["llama-3.1-70b"]].max_context
    assert context is not None
    whole = {"chunk_tokens": (2 * context,)}
    assert reason(shipped, Load(context - 10, 10, 1), **whole) == ""
    assert reason(shipped, Load(context, 10, 1), **whole) == "context"


def test_fp4_of_a_published_checkpoint_runs_on_devices_without_fp4(shipped: Predictor) -> None:
    changes = {"models": ("gpt-oss-120b",), "tp": (1,)}
    assert reason(shipped, **changes, precisions=("",)) == ""
    assert reason(shipped, **changes, precisions=("fp4",)) == ""
    assert reason(shipped, precisions=("fp4",)) == "precision"


def test_every_engine_has_capabilities_and_hardware_that_exists() -> None:
    families = {device.family for device in catalogue.shipped()}
    assert set(compatibility.CAPABILITIES) == set(ENGINES)
    for engine in compatibility.CAPABILITIES.values():
        assert engine.families <= families
        assert "bf16" in engine.precisions


def test_the_first_reason_counts(shipped: Predictor) -> None:
    found = reason(shipped, engines=("trtllm",), machines=(MI300X,), tp=(3,), replicas=(99,))
    assert found == "engine"
    assert list(NUMBER.values()) == list(range(1, len(REASONS) + 1))


WIDE = replace(
    ONE,
    machines=(H100, Machine("h200_sxm"), Machine("l40s", 4, 2.0, instance="four")),
    precisions=("fp8", "bf16"),
    modes=("agg", "disagg"),
    tp=(1, 2, 4),
    pp=(1, 2),
    replicas=(1, 2, 3),
    prefill_workers=(1, 2),
    decode_tp=(2, 8),
    max_sequences=(256, 32),
    prefix_caching=(True, False),
)


def test_all_genomes_are_every_distinct_configuration_once(shipped: Predictor) -> None:
    encoding = Encoding(WIDE, shipped, LOAD)
    genomes = everything(encoding)
    shared = 3 * 2 * 2 * 2
    assert len(genomes) == encoding.points == shared * (3 * 2 * 3 + 2 * 2)
    assert len(np.unique(genomes, axis=0)) == len(np.unique(encoding.keys(genomes)))
    assert len(np.unique(encoding.keys(genomes))) == encoding.points
    assert np.array_equal(encoding.canonical(genomes), genomes)

    anything = np.random.default_rng(0).integers(0, encoding.sizes, size=(4000, len(GENES)))
    same = encoding.canonical(anything)
    assert set(encoding.keys(same).tolist()) <= set(encoding.keys(genomes).tolist())
    assert not (encoding.free_genes(same) & (encoding.sizes == 1)).any()


def test_decoding_says_what_each_genome_means(shipped: Predictor) -> None:
    encoding = Encoding(WIDE, shipped, LOAD)
    genomes = everything(encoding)
    decoded = encoding.decode(genomes)
    rows = decoded.rows
    assert len(rows) == len(genomes)
    for row, genome in enumerate(genomes):
        chosen = {gene: encoding.option(genome, gene) for gene in GENES}
        is_split = chosen["mode"] == "disagg"
        sides = [rows.prefill_workers[row], rows.prefill_tp[row]]
        sides += [rows.decode_workers[row], rows.decode_tp[row]]
        whole = [rows.tp[row], rows.pp[row], rows.replicas[row]]
        names = ("prefill_workers", "prefill_tp", "decode_workers", "decode_tp")
        assert sides == ([chosen[name] for name in names] if is_split else [0, 0, 0, 0])
        names = ("tp", "pp", "replicas")
        assert whole == ([1, 1, 1] if is_split else [chosen[name] for name in names])
        assert rows.mode[row] == is_split
        assert shipped.systems.accelerators[rows.system[row]].id == chosen["machine"].system
        assert rows.prefix_hit_share[row] == (0.4 if chosen["prefix_caching"] else 0.0)
        assert rows.max_sequences[row] == chosen["max_sequences"]
    assert np.array_equal(shipped.predict(rows).devices, predictor.device_count(rows))


@pytest.mark.parametrize(
    ("machine", "changes", "instances", "rented", "usd_per_hour"),
    [
        # 8 devices fill one instance of 8; 4 more rent a second one whole.
        (H100, {}, 1, 8, 56.0),
        (H100, {"replicas": (3,)}, 2, 16, 112.0),
        # Single devices of one's own are paid for one by one.
        (Machine("h100_sxm", None, 3.0, cloud="own"), {"replicas": (3,)}, 12, 12, 36.0),
        # Two groups of 4 do not share an instance of 6: two of its devices stay idle in each.
        (Machine("h100_sxm", 6, 5.0, instance="six"), {}, 2, 12, 60.0),
        # In a rack, a group of 16 takes four instances of 4.
        (Machine("gb200", 4, 20.0, instance="rack"), {"tp": (16,), "replicas": (1,)}, 4, 16, 320.0),
        # Prefill 2 × 4 and decode 1 × 8.
        (H100, {"modes": ("disagg",)}, 2, 16, 112.0),
    ],
)
def test_instances_are_rented_whole(
    shipped: Predictor,
    machine: Machine,
    changes: dict[str, Any],
    instances: int,
    rented: int,
    usd_per_hour: float,
) -> None:
    encoding = Encoding(replace(ONE, machines=(machine,), **changes), shipped, LOAD)
    decoded = encoding.decode(everything(encoding))
    assert decoded.instances.tolist() == [instances]
    assert decoded.rented_devices.tolist() == [rented]
    assert decoded.usd_per_hour.tolist() == [usd_per_hour]


def test_an_unknown_price_is_not_zero(shipped: Predictor) -> None:
    encoding = Encoding(replace(ONE, machines=(Machine("h100_sxm"),)), shipped, LOAD)
    assert np.isnan(encoding.decode(everything(encoding)).usd_per_hour).all()


def test_a_machine_of_a_price_is_rented_whole_only_in_a_cloud() -> None:
    price = next(each for each in catalogue.shipped_prices() if each.devices == 8)
    machine = Machine.of_price(price)
    assert (machine.system, machine.devices) == (price.accelerator_id, 8)
    assert machine.usd_per_device_hour == price.usd_per_device_hour
    assert machine.instance == price.instance
    own = Machine.of_price(replace(price, cloud="own", instance="", usd_per_device_hour=0.0))
    assert own.devices is None
    assert own.usd_per_device_hour is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tp": ()}, "options for tp"),
        ({"tp": (1, 1)}, "options for tp"),
        ({"replicas": (0,)}, "Replicas must be between 1"),
        ({"chunk_tokens": (-1,)}, "Max-num-batched-tokens"),
        ({"models": ()}, "options for model"),
        ({"machines": ()}, "options for machine"),
        ({"max_devices": 0}, "Most devices"),
    ],
)
def test_absurd_options_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        replace(ONE, **changes)


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"engines": ("vlm",)}, "vllm"),
        ({"precisions": ("fp16",)}, "bf16"),
        ({"modes": ("disag",)}, "disagg"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(changes: dict[str, Any], nearest: str) -> None:
    with pytest.raises(NotFound, match=f"nearest is {nearest}"):
        replace(ONE, **changes)


@pytest.mark.parametrize(
    "values",
    [(0, 1, 1, 0.0), (1, 0, 1, 0.0), (1, 1, 0, 0.0), (10**9, 1, 1, 0.0), (1, 1, 1, 1.5)],
)
def test_absurd_loads_are_refused(values: tuple[int, int, int, float]) -> None:
    with pytest.raises(InvalidInput):
        Load(*values)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan")])
def test_a_price_is_positive_or_unknown(price: float) -> None:
    with pytest.raises(InvalidInput, match="Price"):
        Machine("h100_sxm", 8, price)


def test_a_space_that_cannot_be_numbered_is_refused(shipped: Predictor) -> None:
    many = tuple(range(1, 501))
    names = ("tp", "pp", "replicas", "max_sequences", "chunk_tokens", "block_tokens", "ep", "dp")
    with pytest.raises(InvalidInput, match="too many combinations"):
        Encoding(replace(ONE, **dict.fromkeys(names, many)), shipped, LOAD)
