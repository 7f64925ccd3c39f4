"""The hardware that ships with Bud, and how it is found by name. Needs no database."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from core.hardware.schemas import Accelerator, Price
from core.kernel.errors import NotFound

DATA = Path(__file__).parent / "data"

_BYTES_PER_MIB = 1 << 20
_VENDORS = "nvidia|amd|intel|habana|google|aws|apple|ampere|sambanova|tesla|geforce|instinct"
# Machines of the InferenceX benchmark are named for their owner: `b200-trt`, `mi355x-amd_0`.
_OWNERS = "trt|amds?|nv|nvd|nvs|cw|cr|tw|nb|oci|dgxc|mia|slurm|multinode|disagg"
_RUNNER = re.compile(rf"[-_]({_OWNERS})(_?\d+)?$")


@cache
def shipped() -> tuple[Accelerator, ...]:
    """Every shipped device, those that can be simulated first."""
    curated = tuple(_curated(row) for row in _rows("accelerators.csv"))
    known = {accelerator.id for accelerator in curated}
    memory_only = (_memory_only(row) for row in _rows("memory_only.csv"))
    return curated + tuple(device for device in memory_only if device.id not in known)


def shipped_find(name: str) -> Accelerator:
    """The shipped device of that name: an id, a name or an alias in any case.

    Raises:
        NotFound: There is none; the remedy names the three nearest.
    """
    return find_in(name, shipped(), aliases())


@cache
def shipped_prices() -> tuple[Price, ...]:
    """On-demand prices of cloud instances whose devices are known, cheapest device hour first."""
    return tuple(sorted(map(_price, _rows("cloud_prices.csv")), key=_cheapest_first))


def _cheapest_first(price: Price) -> tuple[float, str, str, str]:
    return (price.usd_per_device_hour, price.cloud, price.region, price.instance)


@cache
def aliases() -> Mapping[str, str]:
    """Other names of the shipped devices, as `key` writes them, to their ids."""
    return {
        key(alias): row["id"]
        for row in _rows("accelerators.csv")
        for alias in row["aliases"].split(";")
        if alias
    }


def find_in(
    name: str, devices: Iterable[Accelerator], other_names: Mapping[str, str]
) -> Accelerator:
    """The one of `devices` called `name`; `other_names` maps keys to ids. Raises NotFound."""
    by_name = {key(text): device for device in devices for text in (device.name, device.id)}
    for candidate in _spellings(name):
        found = by_name.get(other_names.get(candidate, candidate)) or by_name.get(candidate)
        if found is not None:
            return found
    near = difflib.get_close_matches(key(name), [*by_name, *other_names], n=12, cutoff=0.0)
    ids = dict.fromkeys(by_name[other_names.get(text, text)].id for text in near)
    raise NotFound(
        f"There is no hardware {name!r}.",
        remedy=f"The nearest are {', '.join(list(ids)[:3])}. See: bud hardware list",
    )


def key(name: str) -> str:
    """A name without what spellings differ in: case, spaces, dashes, dots."""
    return re.sub(r"[^a-z0-9+]+", "_", name.lower()).strip("_")


def _spellings(name: str) -> Iterator[str]:
    # The whole name comes first: "Nvidia A100 GPU" of a data file is another one than "A100".
    text = name.strip().lower()
    yield key(text)
    bare = re.sub(rf"\b({_VENDORS})\b|\b(gpu|accelerator|cpu)$", " ", text)
    yield key(bare)
    without_runner = _RUNNER.sub("", bare.strip())
    yield key(without_runner)
    yield key(_RUNNER.sub("", without_runner))


def _curated(row: Mapping[str, str]) -> Accelerator:
    return Accelerator(
        id=row["id"],
        name=row["name"],
        vendor=row["vendor"],
        kind=row["kind"],
        family=row["family"],
        memory_gb=int(row["memory_mib"]) * _BYTES_PER_MIB / 1e9,
        memory_bandwidth_gb_per_s=float(row["memory_bandwidth_gb_per_s"]),
        bf16_tflops=float(row["bf16_tflops"]),
        fp8_tflops=_number(row["fp8_tflops"]),
        int8_tops=_number(row["int8_tops"]),
        fp4_tflops=_number(row["fp4_tflops"]),
        link_gb_per_s=float(row["link_gb_per_s"]),
        network_gb_per_s=float(row["network_gb_per_s"]),
        devices_per_node=int(row["devices_per_node"]),
        tdp_w=_number(row["tdp_w"]),
        release_year=int(row["release_year"]),
        source=row["source"],
        can_simulate=True,
    )


def _memory_only(row: Mapping[str, str]) -> Accelerator:
    return Accelerator(
        id=row["id"],
        name=row["name"],
        vendor=row["vendor"],
        kind=row["kind"],
        family="",
        memory_gb=int(row["memory_mib"]) * _BYTES_PER_MIB / 1e9,
        memory_bandwidth_gb_per_s=0.0,
        bf16_tflops=0.0,
        fp8_tflops=None,
        int8_tops=None,
        fp4_tflops=None,
        link_gb_per_s=0.0,
        network_gb_per_s=0.0,
        devices_per_node=1,
        tdp_w=_number(row["tdp_w"]),
        release_year=int(row["release_year"]) if row["release_year"] else None,
        source=row["source"],
        can_simulate=False,
    )


def _price(row: Mapping[str, str]) -> Price:
    devices = int(row["devices"])
    return Price(
        accelerator_id=row["accelerator_id"],
        cloud=row["cloud"],
        region=row["region"],
        instance=row["instance"],
        devices=devices,
        usd_per_device_hour=float(row["usd_per_hour"]) / devices,
        price_date=row["price_date"],
        source=row["source"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
