"""Use cases of hardware: find it, add to it, what it costs, what this machine can do."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import threading
from dataclasses import asdict, fields
from pathlib import Path

import msgspec

from core.hardware import catalogue, crud, probe
from core.hardware.models import HardwareEntry
from core.hardware.schemas import Accelerator, NewAccelerator, Price, ProbeResult
from core.kernel import audit, clock, database, ids, machine
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound
from core.kernel.settings import settings
from core.prices import services as machine_prices

log = logging.getLogger(__name__)

THIS_MACHINE = machine_prices.THIS_MACHINE

_PROBE_FILE = "hardware_probe.json"
_MAX_ID_CHARACTERS = 30
_KINDS = ("gpu", "accelerator", "cpu")
# What a figure may be: far below and above any device there is, to catch a wrong unit.
_RANGES = {
    "memory_gb": (0.1, 20_000.0),
    "memory_bandwidth_gb_per_s": (1.0, 1_000_000.0),
    "bf16_tflops": (0.01, 1_000_000.0),
    "fp8_tflops": (0.01, 1_000_000.0),
    "int8_tops": (0.01, 1_000_000.0),
    "fp4_tflops": (0.01, 1_000_000.0),
    "link_gb_per_s": (0.01, 100_000.0),
    "network_gb_per_s": (0.001, 10_000.0),
    "devices_per_node": (1, 10_000),
    "tdp_w": (0.1, 100_000.0),
    "release_year": (1990, 2100),
}
_probing = threading.Lock()
_in_background: threading.Thread | None = None


def accelerators(actor: Actor) -> tuple[Accelerator, ...]:
    """Every device: those that people of the tenant added, then the shipped ones."""
    with database.reading() as session:
        added = tuple(_of_entry(row) for row in crud.entries(session, actor.tenant_id))
    return added + catalogue.shipped()


def find(actor: Actor, name: str) -> Accelerator:
    """The device of that name (an id, a name or an alias in any case), or this machine.

    Raises:
        NotFound: There is none; the remedy names the three nearest.
    """
    if catalogue.key(name) == catalogue.key(THIS_MACHINE):
        return this_machine()
    return catalogue.find_in(name, accelerators(actor), catalogue.aliases())


def families() -> tuple[str, ...]:
    """The architecture families of the devices that can be simulated."""
    return tuple(sorted({device.family for device in catalogue.shipped() if device.can_simulate}))


def add(actor: Actor, new: NewAccelerator) -> Accelerator:
    """Add a device to the tenant's catalogue. Admins only.

    Raises:
        InvalidInput: A figure out of range, or an unknown kind or family.
        Conflict: The name is taken.
    """
    actor.require("hardware:create")
    slug = _checked_slug(new)
    row = HardwareEntry(
        id=ids.new_id("hw"),
        tenant_id=actor.tenant_id,
        slug=slug,
        created_at=clock.now(),
        created_by_name=actor.name,
        **asdict(new) | {"name": new.name.strip(), "source": new.source or f"{actor.name}"},
    )
    _check_free(actor, new.name)
    with database.transaction() as tx:
        tx.add(row)
        audit.record(tx, actor, "hardware.created", f"hardware:{slug}", **asdict(new))
    return _of_entry(row)


def remove(actor: Actor, name: str) -> str:
    """Remove a device that somebody added; its id. Admins only.

    Raises:
        NotFound: There is no such device.
        Conflict: It is one of the shipped ones, or this machine.
    """
    actor.require("hardware:delete")
    device = find(actor, name)
    with database.transaction() as tx:
        row = crud.entry(tx, actor.tenant_id, device.id)
        if row is None:
            raise Conflict(
                f"{device.id} ships with Bud and cannot be removed.",
                remedy="Only what was added with `bud hardware add` can be removed.",
            )
        tx.delete(row)
        audit.record(tx, actor, "hardware.deleted", f"hardware:{device.id}")
    return device.id


def prices(actor: Actor, name: str) -> list[Price]:
    """What an hour of one device costs, one's own price first, then clouds from the cheapest on."""
    device = find(actor, name)
    rented = [price for price in catalogue.shipped_prices() if price.accelerator_id == device.id]
    own = own_price(actor, device.id)
    return [own, *rented] if own is not None else rented


def cheapest(actor: Actor, name: str) -> Price | None:
    """The cheapest of `prices`; None when there is none."""
    return min(prices(actor, name), key=lambda price: price.usd_per_device_hour, default=None)


def own_price(actor: Actor, accelerator_id: str) -> Price | None:
    """What an hour of a device of one's own costs; None is "not set"."""
    price = machine_prices.machine_price(actor, _price_key(accelerator_id))
    if price is None or price.usd_per_hour is None:
        return None
    return Price(
        accelerator_id=accelerator_id,
        cloud="own",
        region="",
        instance="",
        devices=1,
        usd_per_device_hour=price.usd_per_hour,
        price_date=price.valid_from.date().isoformat(),
        source=f"set by {price.set_by_name}",
    )


def set_own_price(
    actor: Actor,
    name: str,
    *,
    usd_per_kwh: float,
    purchase_usd: float,
    lifetime_hours: float,
    watts: float | None = None,
) -> Price:
    """Set what an hour of a device of one's own costs: electricity and a share of its price.

    Args:
        actor: Who sets it. Admins only.
        name: The device.
        usd_per_kwh: The tariff.
        purchase_usd: What one device cost, with its share of the server.
        lifetime_hours: Hours it will serve, such as 26,280 for three years.
        watts: What one device draws; its TDP when None.

    Raises:
        InvalidInput: An absurd figure, or no watts and no published TDP.
    """
    device = find(actor, name)
    watts = device.tdp_w if watts is None else watts
    if watts is None:
        raise InvalidInput(
            f"No power draw is published for {device.name}.", remedy="Give the watts of a device."
        )
    machine_prices.set_machine_price(
        actor,
        _price_key(device.id),
        watts=watts,
        usd_per_kwh=usd_per_kwh,
        purchase_usd=purchase_usd,
        lifetime_hours=lifetime_hours,
    )
    price = own_price(actor, device.id)
    if price is None:  # taken back by somebody else in this very moment
        raise NotFound(f"The price of {device.id} was taken back.", remedy="Set it again.")
    return price


def this_machine() -> Accelerator:
    """This machine as a device of kind `cpu`, measured on the first call (about four seconds).

    Its BF16 rate is the measured float32 rate: what a CPU without matrix units gives.
    """
    limits = machine.cgroup_limits()
    result = _stored(limits) or _probe(limits)
    total_bytes, _ = machine.memory_bytes(limits)
    rates = result.rates
    return Accelerator(
        id=THIS_MACHINE,
        name=f"This machine ({result.cpu_model}, {result.cores} cores)",
        vendor="this-machine",
        kind="cpu",
        family="arm" if platform.machine().lower() in ("arm64", "aarch64") else "x86",
        memory_gb=total_bytes / 1e9,
        memory_bandwidth_gb_per_s=rates.memory_bandwidth_gb_per_s,
        bf16_tflops=rates.matmul_float32_tflops,
        fp8_tflops=None,
        int8_tops=None,
        fp4_tflops=None,
        # One socket stands for the whole machine: nothing is ever sent to another one.
        link_gb_per_s=rates.memory_bandwidth_gb_per_s,
        network_gb_per_s=rates.memory_bandwidth_gb_per_s,
        devices_per_node=1,
        tdp_w=None,
        release_year=None,
        source=f"measured on this machine at {result.measured_at}",
        can_simulate=True,
        weight_products=rates.weight_products,
    )


def is_being_measured() -> bool:
    """Whether this machine is measured in the background now; begins to, where it never was.

    False once there is a measurement, and when the last attempt failed: `this_machine` then
    measures itself and says why.
    """
    global _in_background
    if _stored(machine.cgroup_limits()) is not None:
        return False
    if _in_background is None:
        _in_background = threading.Thread(target=_measure_quietly, name="probe", daemon=True)
        _in_background.start()
    elif not _in_background.is_alive():
        _in_background = None
    return _in_background is not None


def _measure_quietly() -> None:
    try:
        this_machine()
    except BudError:
        log.exception("this machine could not be measured")


def measure_this_machine(actor: Actor) -> ProbeResult:
    """Measure this machine again. Admins only."""
    actor.require("hardware:create")
    result = _probe(machine.cgroup_limits())
    with database.transaction() as tx:
        audit.record(tx, actor, "hardware.measured", f"hardware:{THIS_MACHINE}", **asdict(result))
    return result


def _probe(limits: machine.Limits) -> ProbeResult:
    # One at a time: two measurements would halve each other.
    asked_at = clock.now().isoformat()
    with _probing:
        stored = _stored(limits)
        if stored is not None and stored.measured_at >= asked_at:
            return stored
        cores = machine.cores(limits)
        rates = probe.measure(cores)
        result = ProbeResult(machine.cpu_model(), cores, rates, clock.now().isoformat())
        _store(result)
    return result


def _stored(limits: machine.Limits) -> ProbeResult | None:
    # The folder may have moved to another machine, or the container got other limits.
    try:
        result = msgspec.json.decode(_probe_path().read_bytes(), type=ProbeResult)
    except (OSError, msgspec.DecodeError):
        return None
    same = (result.cpu_model, result.cores) == (machine.cpu_model(), machine.cores(limits))
    return result if same else None


def _store(result: ProbeResult) -> None:
    path = _probe_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(asdict(result), indent=2))
    fresh.replace(path)


def _probe_path() -> Path:
    return settings().data_dir / _PROBE_FILE


def _price_key(accelerator_id: str) -> str:
    return f"hardware:{accelerator_id}"


def _of_entry(row: HardwareEntry) -> Accelerator:
    names = {field.name for field in fields(Accelerator)} - {
        *("id", "can_simulate", "weight_products")
    }
    return Accelerator(
        id=row.slug, can_simulate=True, **{name: getattr(row, name) for name in names}
    )


def _checked_slug(new: NewAccelerator) -> str:
    slug = catalogue.key(new.name)
    if not slug or len(slug) > _MAX_ID_CHARACTERS:
        raise InvalidInput(
            f"A device's name needs 1 to {_MAX_ID_CHARACTERS} letters and digits.",
            value=new.name,
            remedy="Give a name such as H100 SXM.",
        )
    _check_choice("kind", new.kind, _KINDS)
    _check_choice("family", new.family, families())
    for name, (least, most) in _RANGES.items():
        value = getattr(new, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            raise InvalidInput(
                f"{name} must be between {least:,g} and {most:,g}.",
                value=value,
                remedy="Check the figure and its unit.",
            )
    return slug


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInput(
            f"There is no hardware {name} {value!r}.", remedy=f"Use one of: {', '.join(choices)}."
        )


def _check_free(actor: Actor, name: str) -> None:
    try:
        taken = find(actor, name)
    except NotFound:
        return
    raise Conflict(
        f"The name {name!r} already means {taken.name} ({taken.id}).",
        remedy="Choose another name, or remove the former entry first.",
    )
