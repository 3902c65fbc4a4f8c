"""Devices made for the planner's tests."""

from __future__ import annotations

from thrifty.spec import Device, DeviceKind, Quantity
from thrifty.spec.device import KernelPoint


def quantity(value: float) -> Quantity:
    return Quantity(value=value, source="made for a test")


def device(
    *,
    kind: DeviceKind = "cpu",
    rates: dict[str, float] | None = None,
    bf16_gain: float = 4.0,
    memory_bytes: int = 8 * 2**30,
    kernels: tuple[KernelPoint, ...] = (),
) -> Device:
    """A small device; ``rates`` by precision instead of the usual two."""
    rates = rates or {"fp32": 1e11, "bf16": 1e11 * bf16_gain}
    return Device(
        name="test", kind=kind, cores=2, isa=("avx2",), cache_bytes={"L3": 2**25}, memory_bytes=memory_bytes,
        memory_source="test", flops_per_second={name: quantity(rate) for name, rate in rates.items()},
        bytes_per_second=quantity(2e10), datasheet_flops_per_second={}, datasheet_bytes_per_second={},
        idle_watts=quantity(10), busy_watts=quantity(50), usd_per_hour=quantity(0.1), measured_on="2026-11-23",
        kernels=kernels,
    )  # fmt: skip
