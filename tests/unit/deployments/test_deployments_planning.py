from __future__ import annotations

from typing import Any

import pytest

from core.clusters.schemas import MachineView
from core.deployments import planning
from core.deployments.schemas import DeploymentRequest, Fit
from core.kernel import clock
from core.kernel.errors import InvalidInput, NoCapacity
from core.registry.schemas import ModelView
from core.simulation.memory import PROCESS_BYTES

GB = 10**9


def _model(**changes: Any) -> ModelView:
    """Like Llama 3 8B in Q4: 32 layers, 8 KV heads of 128, 131 072 bytes of KV a token."""
    values: dict[str, Any] = dict.fromkeys(ModelView.model_fields)
    values |= {"id": "mod_1", "name": "Llama", "state": "ready", "source": "file", "managed": True}
    values |= {"kind": "local", "extracted": {}}
    values |= {"size_bytes": 5 * GB, "layers": 32, "kv_heads": 8, "embedding_length": 4096}
    values |= {"key_length": 128, "value_length": 128, "vocabulary": 128_256}
    values |= {"context_tokens": 8192, "created_at": clock.now()}
    values |= {"capabilities": ["chat", "completion", "embedding"]}
    return ModelView.model_validate(values | changes)


def _machine(free_gb: float, cores: int = 8, physical: int = 8) -> MachineView:
    return MachineView(
        hostname="here",
        os="Linux",
        cpu_model="cpu",
        cores=cores,
        physical_cores=physical,
        cpu_limit=None,
        memory_total_bytes=64 * GB,
        memory_available_bytes=int(free_gb * GB),
        memory_limited_by_cgroup=False,
        disk_total_bytes=GB,
        disk_free_bytes=GB,
    )


def _plan(
    machine: MachineView, reserved: int = 0, model: ModelView | None = None, **asked: Any
) -> Fit:
    values = {"project_id": "p", "name": "n", "model_id": "mod_1", **asked}
    request = DeploymentRequest.model_validate(values)
    return planning.plan(request, model or _model(), machine, reserved)


def test_the_kv_cache_is_two_bytes_for_each_key_and_value() -> None:
    assert planning.kv_bytes_per_token(_model()) == 2 * 32 * 8 * 128 * 2
    fit = _plan(_machine(60), context_tokens=4096, slots=2)
    assert fit.kv_cache_bytes == 131_072 * 4096 * 2
    assert fit.compute_bytes == 512 * (128_256 + 16 * 4096) * 4
    assert fit.replica_bytes == 5 * GB + fit.kv_cache_bytes + fit.compute_bytes + PROCESS_BYTES
    assert fit.needed_bytes == fit.replica_bytes
    assert fit.fits


def test_without_a_stated_context_the_largest_that_fits_is_taken() -> None:
    assert _plan(_machine(60), slots=4).context_tokens == 8192
    assert _plan(_machine(60), slots=4, model=_model(context_tokens=2048)).context_tokens == 2048
    assert _plan(_machine(16), slots=4).context_tokens == 4096, "half the memory left is not free"
    tight = _plan(_machine(6.8), slots=4)
    assert tight.fits
    assert tight.context_tokens == 1024


def test_a_refusal_says_what_is_needed_what_is_free_and_what_would_fit() -> None:
    fit = _plan(_machine(8), context_tokens=8192, slots=4)
    assert not fit.fits
    with pytest.raises(NoCapacity, match=r"5\.00 GB weights \+ 4\.29 GB KV cache") as caught:
        planning.require_fit(fit)
    assert "7.74 GB of 64.00 GB are free" in caught.value.what
    largest = fit.largest_context_tokens
    assert largest is not None
    assert f"{largest} tokens would fit" in caught.value.remedy
    assert _plan(_machine(8), context_tokens=largest, slots=4).fits
    assert not _plan(_machine(8), context_tokens=largest + 1, slots=4).fits


def test_when_the_weights_alone_are_too_large_no_context_is_offered() -> None:
    fit = _plan(_machine(4), context_tokens=256, slots=1)
    assert fit.largest_context_tokens is None
    assert "smaller model" in fit.remedy


def test_what_others_were_promised_is_not_free() -> None:
    asked = {"context_tokens": 4096, "slots": 1}
    assert _plan(_machine(8), 0, **asked).fits
    fit = _plan(_machine(8), 3 * GB, **asked)
    assert not fit.fits
    assert "promised 3.00 GB" in fit.problem


def test_fewer_replicas_are_offered_when_some_fit() -> None:
    fit = _plan(_machine(15), context_tokens=1024, slots=1, replicas=4)
    assert fit.remedy.startswith("2 of 4 replicas would fit")


def test_replicas_share_the_physical_cores_but_one() -> None:
    assert _plan(_machine(60, cores=16, physical=8)).threads == 7
    assert _plan(_machine(60, cores=16, physical=8), replicas=3, slots=1).threads == 2
    assert _plan(_machine(60, cores=1, physical=1)).threads == 1
    assert _plan(_machine(60, cores=16, physical=8), threads=16).threads == 16


def test_an_embedding_server_buffers_a_whole_text() -> None:
    fit = _plan(_machine(60), task="embedding", slots=1)
    assert fit.context_tokens == 2048
    assert fit.compute_bytes == 2048 * (2 * 128_256 + 16 * 4096) * 4
    tight = _plan(_machine(7), task="embedding", slots=1, context_tokens=8192)
    assert tight.largest_context_tokens is not None
    at_most = {"task": "embedding", "slots": 1, "context_tokens": tight.largest_context_tokens}
    assert _plan(_machine(7), **at_most).fits


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"context_tokens": 8193}, "between 256 and 8192 tokens"),
        ({"context_tokens": 255}, "context must be"),
        ({"slots": 0}, "slots must be between 1"),
        ({"slots": 65}, "slots must be"),
        ({"threads": 9}, "threads must be between 1 and 8"),
        ({"replicas": 33}, "replicas must be"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(asked: dict[str, int], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        _plan(_machine(60), **asked)


def test_a_file_that_hides_what_its_memory_depends_on_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not say its KV heads"):
        _plan(_machine(60), model=_model(kv_heads=None))
