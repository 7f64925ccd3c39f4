"""`bud hardware`: the catalogue of devices, their prices, and what this machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.hardware.schemas import Accelerator, Price, WeightProducts

group = typer.Typer(
    help="Hardware: list, show, add, remove, prices, set-price, probe.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(help="Device, by id, name or alias.", metavar="DEVICE")]


@group.command("list")
def list_hardware(
    everything: Annotated[
        bool, typer.Option("--all", help="Also devices of which only the memory is known.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the devices that can be simulated."""
    from core.hardware import services as hardware

    found = [
        device
        for device in hardware.accelerators(context.operator())
        if everything or device.can_simulate
    ]
    rows = [
        (
            *(device.id, device.name, _figure(device.memory_gb, "GB")),
            *(_figure(device.memory_bandwidth_gb_per_s, "GB/s"), _tflops(device.bf16_tflops)),
            *(_tflops(device.fp8_tflops), _tflops(device.fp4_tflops), _figure(device.tdp_w, "W")),
        )
        for device in found
    ]
    columns = ("id", "name", "memory", "bandwidth", "BF16", "FP8", "FP4", "TDP")
    output.show(found, output.table(columns, rows, empty="No hardware."), as_json=as_json)


@group.command("show")
def show_hardware(device: _Name, as_json: Json = False) -> None:
    """Show what is known of a device, and its source."""
    from core.hardware import services as hardware

    _show(hardware.find(context.operator(), device), as_json=as_json)


def _show(found: Accelerator, *, as_json: bool) -> None:
    pairs = [
        *(("id", found.id), ("name", found.name), ("vendor", found.vendor)),
        *(("kind", found.kind), ("family", found.family or formats.NONE)),
        ("memory", _figure(found.memory_gb, "GB")),
        ("memory bandwidth", _figure(found.memory_bandwidth_gb_per_s, "GB/s")),
        ("BF16, dense", _tflops(found.bf16_tflops)),
        ("FP8, dense", _tflops(found.fp8_tflops)),
        ("INT8, dense", _figure(found.int8_tops, "TOPS")),
        ("FP4, dense", _tflops(found.fp4_tflops)),
        ("link, one direction", _figure(found.link_gb_per_s, "GB/s")),
        ("network, one direction", _figure(found.network_gb_per_s, "GB/s")),
        ("devices a node", found.devices_per_node),
        ("TDP", _figure(found.tdp_w, "W")),
        ("released", found.release_year or formats.NONE),
        ("can be simulated", "yes" if found.can_simulate else "no: only the memory is known"),
        ("source", found.source),
    ]
    output.show(found, output.details(pairs), as_json=as_json)


@group.command()
def add(
    name: Annotated[str, typer.Argument(help="Name.", metavar="NAME")],
    family: Annotated[
        str, typer.Option(help="Architecture whose overheads it is taken to have: hopper, cdna3 …")
    ],
    memory_gb: Annotated[float, typer.Option(help="Memory, 1e9 bytes.")],
    memory_bandwidth_gb_per_s: Annotated[float, typer.Option(help="Peak, 1e9 bytes/s.")],
    bf16_tflops: Annotated[float, typer.Option(help="Peak BF16 rate without sparsity.")],
    fp8_tflops: Annotated[float | None, typer.Option(help="Peak FP8 rate.")] = None,
    int8_tops: Annotated[float | None, typer.Option(help="Peak INT8 rate.")] = None,
    fp4_tflops: Annotated[float | None, typer.Option(help="Peak FP4 rate.")] = None,
    vendor: Annotated[str, typer.Option(help="Vendor.")] = "own",
    kind: Annotated[str, typer.Option(help="gpu, accelerator or cpu.")] = "gpu",
    link_gb_per_s: Annotated[
        float, typer.Option(help="To devices of its node, one direction (default: PCIe 4.0 x16).")
    ] = 32.0,
    network_gb_per_s: Annotated[
        float, typer.Option(help="To other nodes, one direction (default: 100 Gb/s).")
    ] = 12.5,
    devices_per_node: Annotated[int, typer.Option(help="Devices in a node.")] = 8,
    tdp_w: Annotated[float | None, typer.Option(help="Power, watts.")] = None,
    release_year: Annotated[int | None, typer.Option(help="Year it came out.")] = None,
    source: Annotated[str, typer.Option(help="Where the figures are from.")] = "",
    as_json: Json = False,
) -> None:
    """Add a device to the catalogue."""
    from core.hardware import services as hardware
    from core.hardware.schemas import NewAccelerator

    new = NewAccelerator(
        name=name,
        family=family,
        memory_gb=memory_gb,
        memory_bandwidth_gb_per_s=memory_bandwidth_gb_per_s,
        bf16_tflops=bf16_tflops,
        vendor=vendor,
        kind=kind,
        fp8_tflops=fp8_tflops,
        int8_tops=int8_tops,
        fp4_tflops=fp4_tflops,
        link_gb_per_s=link_gb_per_s,
        network_gb_per_s=network_gb_per_s,
        devices_per_node=devices_per_node,
        tdp_w=tdp_w,
        release_year=release_year,
        source=source,
    )
    _show(hardware.add(context.operator(), new), as_json=as_json)


@group.command()
def remove(device: _Name, yes: Yes = False, as_json: Json = False) -> None:
    """Remove a device that was added."""
    from core.hardware import services as hardware

    output.confirm(f"Remove {device}?", yes=yes)
    removed = hardware.remove(context.operator(), device)
    output.show({"removed": removed}, f"{removed} is removed.", as_json=as_json)


@group.command()
def prices(device: _Name, as_json: Json = False) -> None:
    """List what an hour of a device costs, by cloud and region."""
    from core.hardware import services as hardware

    found = hardware.prices(context.operator(), device)
    columns = ("USD/device/h", "cloud", "region", "instance", "devices", "read on", "source")
    empty = f"No price is known for {device}. Set your own: bud hardware set-price {device} …"
    text = output.table(columns, [_price_row(price) for price in found], empty=empty)
    output.show(found, text, as_json=as_json)


@group.command("set-price")
def set_price(
    device: _Name,
    usd_per_kwh: Annotated[float, typer.Option(help="Tariff, USD per kWh.")],
    purchase_usd: Annotated[float, typer.Option(help="What one device cost, USD.")],
    lifetime_hours: Annotated[
        float, typer.Option(help="Hours that it will serve (default: three years).")
    ] = 26_280.0,
    watts: Annotated[
        float | None, typer.Option(help="What it draws (default: its published TDP).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set what an hour of a device of your own costs."""
    from core.hardware import services as hardware

    price = hardware.set_own_price(
        context.operator(),
        device,
        usd_per_kwh=usd_per_kwh,
        purchase_usd=purchase_usd,
        lifetime_hours=lifetime_hours,
        watts=watts,
    )
    text = f"An hour of {price.accelerator_id} costs {formats.usd(price.usd_per_device_hour)}."
    output.show(price, text, as_json=as_json)


@group.command()
def probe(as_json: Json = False) -> None:
    """Measure what this machine's memory and cores give again (about four seconds)."""
    from core.hardware import services as hardware

    result = hardware.measure_this_machine(context.operator())
    pairs = [
        ("processor", f"{result.cpu_model}, {result.cores} cores"),
        ("memory bandwidth", _figure(result.rates.memory_bandwidth_gb_per_s, "GB/s")),
        ("float32 matrix rate", _tflops(result.rates.matmul_float32_tflops)),
        *_product_pairs(result.rates.weight_products),
        ("measured", result.measured_at),
    ]
    output.show(result, output.details(pairs), as_json=as_json)


def _product_pairs(products: WeightProducts | None) -> list[tuple[str, str]]:
    if products is None:
        return []
    return [
        ("Q4_1 weights, one sequence", _tflops(products.q4_1_one_tflops)),
        ("Q4_1 weights, a prompt", _tflops(products.q4_1_many_tflops)),
        ("Q8_0 weights, one sequence", _tflops(products.q8_0_one_tflops)),
        ("Q8_0 weights, a prompt", _tflops(products.q8_0_many_tflops)),
    ]


def _price_row(price: Price) -> tuple[object, ...]:
    return (
        *(f"{price.usd_per_device_hour:.3f}", price.cloud, price.region or formats.NONE),
        *(price.instance or formats.NONE, price.devices, price.price_date, price.source),
    )


def _figure(value: float | None, unit: str) -> str:
    return f"{value:,.4g} {unit}" if value else formats.NONE


def _tflops(value: float | None) -> str:
    return _figure(value, "TFLOPS")
