"""Own devices, own prices, and the probe of this machine."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from core.hardware import services as hardware
from core.hardware.schemas import NewAccelerator
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound, PermissionDenied
from tests.machine import slowness

OWN = NewAccelerator(
    name="H100 SXM 64 GB custom",
    family="hopper",
    memory_gb=68.7,
    memory_bandwidth_gb_per_s=2000.0,
    bf16_tflops=989.0,
)
OWN_ID = "h100_sxm_64_gb_custom"
MEMBER = Actor("usr_m", "m@example.org", "ten_default", "member", {"prj_a": "member"})


def test_an_added_device_is_found_audited_and_removed(data_dir: Path, admin: Actor) -> None:
    added = hardware.add(admin, OWN)
    assert (added.id, added.can_simulate, added.memory_gb) == (OWN_ID, True, 68.7)
    assert hardware.find(admin, "h100 SXM 64 gb CUSTOM") == added
    assert hardware.accelerators(admin)[0] == added
    assert hardware.remove(admin, OWN.name) == OWN_ID
    with pytest.raises(NotFound):
        hardware.find(admin, OWN_ID)
    actions = {entry.action for entry in audit.entries(admin, None, subject=f"hardware:{OWN_ID}")}
    assert actions == {"hardware.created", "hardware.deleted"}


def test_another_tenant_does_not_see_it(data_dir: Path, admin: Actor) -> None:
    hardware.add(admin, OWN)
    with pytest.raises(NotFound):
        hardware.find(Actor.system("ten_other"), OWN_ID)


def test_only_admins_change_the_catalogue(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(PermissionDenied, match="hardware:create"):
        hardware.add(MEMBER, OWN)
    hardware.add(admin, OWN)
    with pytest.raises(PermissionDenied):
        hardware.remove(MEMBER, OWN_ID)
    with pytest.raises(PermissionDenied):
        hardware.measure_this_machine(MEMBER)
    assert hardware.find(MEMBER, OWN_ID).family == "hopper"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_gb": 0.0}, "memory_gb must be between 0.1 and 20,000"),
        ({"memory_gb": float("nan")}, "memory_gb"),
        ({"bf16_tflops": -1.0}, "bf16_tflops"),
        ({"fp8_tflops": float("inf")}, "fp8_tflops"),
        ({"devices_per_node": 0}, "devices_per_node"),
        ({"release_year": 25}, "release_year"),
        ({"family": "hoper"}, "Use one of: .*hopper"),
        ({"kind": "asic"}, "Use one of: gpu"),
        ({"name": " "}, "name"),
        ({"name": "x" * 31}, "name"),
    ],
)
def test_a_wrong_figure_is_refused_with_its_value(
    data_dir: Path, admin: Actor, change: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        hardware.add(admin, dataclasses.replace(OWN, **change))  # type: ignore[arg-type]
    (value,) = change.values()
    assert str(value).strip() in str(refused.value)
    assert refused.value.remedy
    assert hardware.accelerators(admin)[0].id != OWN_ID


@pytest.mark.parametrize("name", ["H100", "NVIDIA H100 80GB HBM3", "mi355x-amd_0", "RTX 4070"])
def test_a_name_that_already_means_a_device_is_taken(
    data_dir: Path, admin: Actor, name: str
) -> None:
    with pytest.raises(Conflict, match="already means"):
        hardware.add(admin, dataclasses.replace(OWN, name=name))


def test_a_shipped_device_cannot_be_removed(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(Conflict, match="h100_sxm ships with Bud"):
        hardware.remove(admin, "H100")


def test_prices_start_with_the_cheapest_cloud(data_dir: Path, admin: Actor) -> None:
    found = hardware.prices(admin, "H100")
    hourly = [price.usd_per_device_hour for price in found]
    assert hourly == sorted(hourly)
    assert {price.cloud for price in found} == {"aws", "azure", "gcp"}
    assert hardware.cheapest(admin, "h100") == found[0]
    assert hardware.cheapest(admin, "mi355x") is None


def test_an_own_price_is_electricity_and_a_share_of_the_purchase(
    data_dir: Path, admin: Actor
) -> None:
    price = hardware.set_own_price(
        admin, "H100", usd_per_kwh=0.2, purchase_usd=26_280, lifetime_hours=26_280
    )
    assert price.usd_per_device_hour == pytest.approx(0.7 * 0.2 + 1.0)  # 700 W is its TDP
    assert hardware.prices(admin, "h100_sxm")[0] == price
    assert hardware.cheapest(admin, "h100_sxm") == price


@pytest.mark.parametrize(
    ("device", "figures", "message"),
    [
        ("graviton4", {}, "Give the watts"),
        ("h100", {"usd_per_kwh": -1.0}, "Electricity"),
        ("h100", {"lifetime_hours": 0.0}, "lifetime"),
        ("h999", {}, "There is no hardware"),
    ],
)
def test_a_wrong_own_price_is_refused(
    data_dir: Path, admin: Actor, device: str, figures: dict[str, float], message: str
) -> None:
    whole = {"usd_per_kwh": 0.2, "purchase_usd": 1000.0, "lifetime_hours": 10_000.0} | figures
    with pytest.raises(BudError, match=message):
        hardware.set_own_price(admin, device, **whole)


def test_this_machine_is_measured_once_and_again_when_asked(data_dir: Path, admin: Actor) -> None:
    first = hardware.find(admin, "This Machine")
    assert (first.id, first.kind, first.can_simulate) == ("this-machine", "cpu", True)
    assert 0.5 < first.memory_bandwidth_gb_per_s < 5_000
    assert 0.001 < first.bf16_tflops < 500
    assert first.memory_gb > 0.5
    assert first.weight_products is not None
    for rate in dataclasses.astuple(first.weight_products):
        assert 0.01 * first.bf16_tflops < rate < 10 * first.bf16_tflops
    start_s = time.perf_counter()
    assert hardware.this_machine() == first
    assert time.perf_counter() - start_s < 0.2 * slowness()  # read, not measured

    again = hardware.measure_this_machine(admin)
    assert again.measured_at not in first.source
    assert again.measured_at in hardware.this_machine().source
    entries = audit.entries(admin, None, subject="hardware:this-machine")
    assert [entry.action for entry in entries] == ["hardware.measured"]


def test_rates_of_another_machine_are_not_taken(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware.measure_this_machine(admin)
    stored = data_dir / "hardware_probe.json"
    measured = hardware.this_machine()
    before = json.loads(stored.read_text())
    del before["rates"]["weight_products"]  # as an earlier version wrote it
    for other in (before, json.loads(stored.read_text()) | {"cpu_model": "Other"}):
        stored.write_text(json.dumps(other))
        assert hardware.this_machine().source != measured.source
