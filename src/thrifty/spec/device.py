"""`Device`: what a piece of hardware is and can do; each number with its source."""

from __future__ import annotations

from typing import Literal

from thrifty.spec.plain import Plain


class Quantity(Plain):
    """A number and where it comes from: ``measured 2026-11-23``, a datasheet, or how it was derived."""

    value: float
    source: str


class Device(Plain):
    """One processor that can train or serve, with the host memory or device memory it may use.

    Attributes:
        name: what the maker calls it.
        kind: ``cpu`` or ``cuda``.
        cores: logical processors this process may run on; multiprocessors of a GPU.
        isa: instruction sets that matter here, such as ``avx512_vnni`` and ``amx_bf16``.
        cache_bytes: by level (``L1d``, ``L2``, ``L3``), in all.
        memory_bytes: what may be used: the smaller of what is installed and what the cgroup allows.
        flops_per_second: measured matrix-product rate by precision (``fp32``, ``bf16``).
        bytes_per_second: measured memory bandwidth, read plus written.
        datasheet_flops_per_second: the same by the maker's figures; empty when they are not known.
        datasheet_bytes_per_second: likewise; keyed ``memory``.
        idle_watts, busy_watts: power when idle and when fully used.
        usd_per_hour: price of the machine by the hour.
        measured_on: ISO date of the measurements.
    """

    name: str
    kind: Literal["cpu", "cuda"]
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

    def watts(self, utilisation: float) -> float:
        """Power at a utilisation from 0 to 1, on the straight line from idle to busy."""
        share = min(max(utilisation, 0.0), 1.0)
        return self.idle_watts.value + share * (self.busy_watts.value - self.idle_watts.value)
