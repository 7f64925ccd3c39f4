"""The shipped catalogue: names of the data files, figures without sparsity, prices."""

from __future__ import annotations

import math

import pytest

from core.hardware import catalogue
from core.hardware.schemas import Accelerator
from core.kernel.errors import NotFound

CURATED = [device for device in catalogue.shipped() if device.can_simulate]


def ids(devices: list[Accelerator]) -> list[str]:
    return [device.id for device in devices]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # systems of nvidia_silicon
        *((name, name) for name in ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm")),
        *((name, name) for name in ("gb200", "gb300", "mi300x", "mi355x")),
        # runners of inferencemax
        *(("h100", "h100_sxm"), ("h200", "h200_sxm"), ("b200", "b200_sxm")),
        *(("b200-trt", "b200_sxm"), ("mi355x-amd_0", "mi355x"), ("h100-dgxc-slurm_3", "h100_sxm")),
        # alcf: its A100s have 40 GB, and it counts cards, not the two halves of one
        *(("Nvidia A100 GPU", "a100_sxm_40gb"), ("Nvidia H100 GPU", "h100_sxm")),
        *(("Nvidia GH200 GPU", "gh200"), ("AMD MI250 GPU", "mi250"), ("AMD MI300X GPU", "mi300x")),
        *(("Intel PVC GPU", "max_1550"), ("Intel Max 1550", "max_1550")),
        *(("Habana Gaudi2", "gaudi2"), ("SambaNova SN40L", "sn40l")),
        # what drivers and people say
        *(("NVIDIA A100-SXM4-80GB", "a100_sxm"), ("NVIDIA H100 80GB HBM3", "h100_sxm")),
        *(("A100", "a100_sxm"), ("Tesla T4", "t4"), ("AMD Instinct MI300X", "mi300x")),
        *(("NVIDIA GeForce RTX 4090", "rtx_4090"), (" B200 ", "b200_sxm"), ("TPU v5e", "tpu_v5e")),
        *(("rtx 4070", "rtx_4070"), ("NVIDIA B200 SXM 180 GB", "b200_sxm")),
    ],
)
def test_a_device_is_found_by_what_it_is_called(name: str, expected: str) -> None:
    assert catalogue.shipped_find(name).id == expected


@pytest.mark.parametrize("name", ["", "h300", "a100-nvl9", "h100_sxm x", "gpu", "nvidia", "-trt"])
def test_an_unknown_name_is_refused_with_the_three_nearest(name: str) -> None:
    with pytest.raises(NotFound) as refused:
        catalogue.shipped_find(name)
    assert repr(name) in refused.value.what
    near = refused.value.remedy.removeprefix("The nearest are ").split(". See")[0].split(", ")
    assert len(set(near)) == 3
    assert all(catalogue.shipped_find(other).id == other for other in near)


def test_the_nearest_of_a_slip_is_what_was_meant() -> None:
    with pytest.raises(NotFound, match="mi355x"):
        catalogue.shipped_find("mi356x")


def test_every_curated_device_is_whole() -> None:
    for device in CURATED:
        figures = (
            *(device.memory_gb, device.memory_bandwidth_gb_per_s, device.bf16_tflops),
            *(device.link_gb_per_s, device.network_gb_per_s, device.devices_per_node),
        )
        assert all(figure > 0 and math.isfinite(figure) for figure in figures), device
        assert device.source, device.id
        assert device.release_year is not None, device.id
        assert device.release_year >= 2016, device.id
    assert sum(device.kind == "cpu" for device in CURATED) >= 10
    assert sum(device.kind != "cpu" for device in CURATED) >= 40


def test_no_peak_counts_sparsity() -> None:
    # Halving the bits doubles the dense rate; a sparse figure would make it four times. B300 and
    # GB300 have half as much FP4 again, and GeForce cards halve their FP8 rate, not that of FP4.
    for device in CURATED:
        if device.fp8_tflops is not None:
            assert 0.99 <= device.fp8_tflops / device.bf16_tflops <= 2.05, device.id
        if device.fp4_tflops is not None and device.fp8_tflops is not None:
            most = 4.01 if "GeForce" in device.name else 3.01
            assert 1.99 <= device.fp4_tflops / device.fp8_tflops <= most, device.id
        if device.int8_tops is not None:
            assert device.int8_tops / device.bf16_tflops <= 4.05, device.id


@pytest.mark.parametrize(
    ("device_id", "memory_gb", "bandwidth", "bf16"),
    [
        # memory: MiB that nvidia-smi and rocm-smi report
        ("h100_sxm", 85.52, 3350, 989.4),
        ("h200_sxm", 150.75, 4800, 989.4),
        ("b200_sxm", 192.27, 7700, 2250),
        ("b300_sxm", 288.40, 7700, 2250),
        ("gb300", 298.01, 8000, 2500),
        ("a100_sxm_40gb", 42.95, 1555, 312),
        ("mi300x", 206.14, 5300, 1307.4),
        ("gaudi2", 103.08, 2450, 432),
    ],
)
def test_figures_that_the_simulator_leans_on(
    device_id: str, memory_gb: float, bandwidth: float, bf16: float
) -> None:
    device = catalogue.shipped_find(device_id)
    assert device.memory_gb == pytest.approx(memory_gb, abs=0.01)
    assert (device.memory_bandwidth_gb_per_s, device.bf16_tflops) == (bandwidth, bf16)


def test_names_are_not_used_twice() -> None:
    shipped = list(catalogue.shipped())
    assert len(set(ids(shipped))) == len(shipped)
    names = [catalogue.key(device.name) for device in shipped]
    assert len(set(names)) == len(names)
    known = set(ids(shipped))
    for alias, device_id in catalogue.aliases().items():
        assert device_id in known
        assert alias not in known or alias == device_id, alias


def test_memory_only_devices_say_so() -> None:
    others = [device for device in catalogue.shipped() if not device.can_simulate]
    assert len(others) > 200
    assert all(device.memory_gb > 2 and device.source for device in others)
    assert {device.bf16_tflops for device in others} == {0.0}


@pytest.mark.parametrize(
    ("cloud", "instance", "device_id", "devices"),
    [
        ("aws", "p5.48xlarge", "h100_sxm", 8),
        ("aws", "p4d.24xlarge", "a100_sxm_40gb", 8),
        ("aws", "p4de.24xlarge", "a100_sxm", 8),
        ("aws", "g5.12xlarge", "a10g", 4),
        ("aws", "inf2.48xlarge", "inferentia2", 12),
        ("azure", "Standard_ND96isr_MI300X_v5", "mi300x", 8),
        ("azure", "Standard_NC80adis_H100_v5", "h100_nvl", 2),
        ("azure", "Standard_ND128isr_NDR_GB200_v6", "gb200", 4),
        ("gcp", "a2-megagpu-16g", "a100_sxm_40gb", 16),
        ("gcp", "a3-highgpu-8g", "h100_sxm", 8),
        ("gcp", "g2-standard-24", "l4", 2),
        ("gcp", "g2-standard-32", "l4", 1),
    ],
)
def test_an_instance_has_its_devices(
    cloud: str, instance: str, device_id: str, devices: int
) -> None:
    found = [
        price
        for price in catalogue.shipped_prices()
        if (price.cloud, price.instance) == (cloud, instance)
    ]
    assert found
    assert {(price.accelerator_id, price.devices) for price in found} == {(device_id, devices)}


def test_an_hour_of_a_device_is_its_share_of_the_instance() -> None:
    (price,) = [p for p in catalogue.shipped_prices() if p.instance == "p5.48xlarge"]
    assert price.usd_per_device_hour == pytest.approx(55.04 / 8)
    assert (price.region, price.price_date) == ("us-east-1", "2026-07-20")


def test_every_price_is_of_a_device_that_can_be_simulated() -> None:
    known = set(ids(CURATED))
    for price in catalogue.shipped_prices():
        assert price.accelerator_id in known, price
        assert 0.1 < price.usd_per_device_hour < 40, price
        assert price.region, price
        assert price.source, price
