"""What callers see of hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device: a GPU, an accelerator or a CPU socket.

    Peaks are dense (no sparsity) and those of the vendor. Where a device has no bfloat16,
    `bf16_tflops` is its best 16-bit or, on an old CPU, 32-bit rate. Of a device that cannot be
    simulated only the memory is known: its bandwidth, peaks and links are 0.

    Attributes:
        memory_gb: 1e9 bytes, as the driver reports it; the nominal GiB where none is known.
        memory_bandwidth_gb_per_s: Peak, 1e9 bytes a second.
        link_gb_per_s: One direction, all links to the other devices of its node together.
        network_gb_per_s: One direction, to a device of another node, as servers are commonly sold.
        devices_per_node: Devices that the fast link joins; 72 in the NVL72 racks.
        tdp_w: None where the vendor publishes none.
        can_simulate: False is "memory only".
    """

    id: str
    name: str
    vendor: str
    kind: str
    family: str
    memory_gb: float
    memory_bandwidth_gb_per_s: float
    bf16_tflops: float
    fp8_tflops: float | None
    int8_tops: float | None
    fp4_tflops: float | None
    link_gb_per_s: float
    network_gb_per_s: float
    devices_per_node: int
    tdp_w: float | None
    release_year: int | None
    source: str
    can_simulate: bool
