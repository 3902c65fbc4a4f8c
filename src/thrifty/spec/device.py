"""`Device`, `Link`, `Cluster`: what hardware is and can do; each number with its source."""

from __future__ import annotations

from typing import Literal

from thrifty.spec.plain import Plain

DeviceKind = Literal["cpu", "cuda", "rocm", "tpu"]


class Quantity(Plain):
    """A number and where it comes from: ``measured 2026-11-23``, a datasheet, or how it was derived."""

    value: float
    source: str


class KernelPoint(Plain):
    """One operator on one set of shapes, timed.

    Attributes:
        name: of torch's operator, such as ``addmm``.
        dtype: that it computes in.
        shapes, layouts: as `thrifty.hardware.signature` writes them.
        tensors: among its arguments.
        moved_bytes: that it must read and write, each element once.
        warm_s: seconds of one call when what it touches was touched just before; median of a few.
        cold_s: when none of it is in a cache.
        spread: median deviation of the warm times from their median, as a share of it.
        host_s: seconds in which the host asks a GPU for it, while the GPU is busy with something else.
        scratch_bytes: of the GPU's memory that it takes while it runs, beside its results.
    """

    name: str
    dtype: str
    shapes: str
    layouts: str
    tensors: int
    moved_bytes: int
    warm_s: float
    cold_s: float
    spread: float
    host_s: float = 0.0
    scratch_bytes: int = 0


class Device(Plain):
    """One processor that can train or serve, with the host memory or device memory it may use.

    Attributes:
        name: what the maker calls it.
        kind: ``cpu``, ``cuda``, ``rocm`` or ``tpu``.
        cores: logical processors this process may run on; multiprocessors of a GPU.
        isa: instruction sets that matter here, such as ``avx512_vnni`` and ``amx_bf16``.
        cache_bytes: by level (``L1d``, ``L2``, ``L3``), in all.
        memory_bytes: what may be used: the smaller of what is installed and what the cgroup allows.
        flops_per_second: matrix-product rate by precision (``fp32``, ``bf16``): measured, or of a catalogue device its
            datasheet's peak; each says which.
        bytes_per_second: memory bandwidth, read plus written, likewise.
        datasheet_flops_per_second: the same by the maker's figures; empty when they are not known.
        datasheet_bytes_per_second: likewise; keyed ``memory``.
        idle_watts, busy_watts: power when idle and when fully used.
        usd_per_hour: price of the machine by the hour.
        measured_on: ISO date of the measurements; empty for a device of the catalogue, which was never run here.
        disturbed: share of the processor's time that others took while it was measured.
        calibration: which fit of `thrifty.cost` prices its kernels: the name of one, or of the family it is nearest to.
        host_cores: logical processors of the host that this process may run on; 0 for a CPU, which is its own host.
        kernels: operators timed here, by `thrifty.hardware.bench`; empty for a device that was never measured so.
    """

    name: str
    kind: DeviceKind
    cores: int
    isa: tuple[str, ...]
    cache_bytes: dict[str, int]
    memory_bytes: int
    memory_source: str
    flops_per_second: dict[str, Quantity]
    bytes_per_second: Quantity
    datasheet_flops_per_second: dict[str, Quantity]
    datasheet_bytes_per_second: dict[str, Quantity]
    idle_watts: Quantity
    busy_watts: Quantity
    usd_per_hour: Quantity
    measured_on: str
    disturbed: float = 0.0
    calibration: str = ""
    host_cores: int = 0
    kernels: tuple[KernelPoint, ...] = ()

    @property
    def threads(self) -> int:
        """Threads that the host may run."""
        return self.host_cores or self.cores

    @property
    def parts(self) -> str:
        """Its cores, by their name: ``2 cores``, ``132 multiprocessors``."""
        return f"{self.cores} {'cores' if self.kind == 'cpu' else 'multiprocessors'}"

    def watts(self, utilisation: float) -> float:
        """Power at a utilisation from 0 to 1, on the straight line from idle to busy."""
        share = min(max(utilisation, 0.0), 1.0)
        return self.idle_watts.value + share * (self.busy_watts.value - self.idle_watts.value)


class Link(Plain):
    """A connection between devices, as each device sees it.

    Attributes:
        name: such as ``NVLink 3``, ``PCIe 4 x16``, ``InfiniBand HDR x8``.
        bytes_per_second: that one device can send, in one direction, while all others do the same.
        latency_s: of one message.
    """

    name: str
    bytes_per_second: Quantity
    latency_s: Quantity


class Cluster(Plain):
    """Equal devices in equal nodes.

    Attributes:
        name: as it is asked for, such as ``a100-80g:8x128`` (8 devices a node, 128 nodes) or ``h100:8``.
        device: one of them.
        per_node, nodes: devices a node, and nodes.
        intra: link between devices of a node.
        inter: link between nodes; each device's share of its node's network.
        host_memory_bytes: of one node.
        host_watts: of one node, beside its devices: processors, memory, fans, network.
        pue: power of the whole building over that of its machines.
        grid_kg_per_kwh: carbon dioxide equivalent of the grid's electricity.
        usd_per_hour, spot_usd_per_hour: of one device with its share of the node; on demand and interruptible. A spot
            price nobody lists is 0, and says so.
    """

    name: str
    device: Device
    per_node: int
    nodes: int
    intra: Link
    inter: Link
    host_memory_bytes: Quantity
    host_watts: Quantity
    pue: Quantity
    grid_kg_per_kwh: Quantity
    usd_per_hour: Quantity
    spot_usd_per_hour: Quantity

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.per_node * self.nodes
