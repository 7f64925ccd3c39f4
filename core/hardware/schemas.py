"""What callers see of hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightProducts:
    """What all cores reach with weights that are stored in 4 and 8 bits, in 1e12 operations/s.

    `one` is for one sequence, whose weights are read from memory as they are multiplied; `many` for
    a prompt.
    """

    q4_1_one_tflops: float
    q4_1_many_tflops: float
    q8_0_one_tflops: float
    q8_0_many_tflops: float


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
        weight_products: Only of this machine, as it was measured.
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
    weight_products: WeightProducts | None = None


@dataclass(frozen=True, slots=True)
class NewAccelerator:
    """A device to add; units and meaning as in `Accelerator`.

    `family` names the architecture whose overheads the simulator takes for it.
    """

    name: str
    family: str
    memory_gb: float
    memory_bandwidth_gb_per_s: float
    bf16_tflops: float
    vendor: str = "own"
    kind: str = "gpu"
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    fp4_tflops: float | None = None
    link_gb_per_s: float = 32.0
    network_gb_per_s: float = 12.5
    devices_per_node: int = 8
    tdp_w: float | None = None
    release_year: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """What an hour of one device costs.

    Attributes:
        accelerator_id: As in the catalogue.
        cloud: `aws`, `azure`, `gcp`, or `own` for a machine of one's own.
        region: As the cloud names it; empty for one's own.
        instance: The instance type; empty for one's own.
        devices: How many devices the instance has: it is rented whole.
        usd_per_device_hour: The instance's on-demand price over its devices.
        price_date: The day the price was read, ISO 8601.
        source: Where it was read.
    """

    accelerator_id: str
    cloud: str
    region: str
    instance: str
    devices: int
    usd_per_device_hour: float
    price_date: str
    source: str


@dataclass(frozen=True, slots=True)
class Rates:
    """What a probe measures: memory traffic in 1e9 bytes/s, float32 matrix products in 1e12/s.

    `weight_products` is None where the model server's library does not let itself be measured.
    """

    memory_bandwidth_gb_per_s: float
    matmul_float32_tflops: float
    weight_products: WeightProducts | None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The rates of one machine, and when they were measured (ISO 8601, UTC)."""

    cpu_model: str
    cores: int
    rates: Rates
    measured_at: str
