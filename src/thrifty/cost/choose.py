"""Which calibration prices a device, and in what a request lies outside what it was fitted on."""

from __future__ import annotations

from thrifty.cost.calibrations import Calibration, shipped_calibrations
from thrifty.errors import unknown_name
from thrifty.spec import Device, Layout, TransformerShape


def calibration_for(device: Device, software: str = "") -> Calibration:
    """Return the calibration of a device: the one it names, or its family's newest.

    Args:
        device: its ``calibration`` is the name of one, or a family such as ``a100``.
        software: a stack, such as ``megatron 2021``, to be preferred within the family.

    Raises:
        JobError: the device names one that does not ship.
    """
    known = shipped_calibrations()
    if not software and device.calibration in known:
        return known[device.calibration]
    family = device.calibration.partition(" / ")[0]
    exact = known.get(f"{family} / {software}")
    if exact is not None:
        return exact
    default = known.get(f"{family} / default")
    if default is None:
        raise unknown_name("calibration", device.calibration or device.name, known)
    return default


def doubts(shape: TransformerShape, layout: Layout, calibration: Calibration) -> tuple[str, ...]:
    """Say in what a request lies outside what a calibration was fitted on, a factor of two left free."""
    if not calibration.covers:
        return (
            (f"{calibration.family} was never measured: its efficiencies are assumed",)
            if not calibration.fitted
            else ()
        )
    asked = {
        "devices": layout.devices,
        "hidden": shape.hidden,
        "length": shape.length,
        "tensor": layout.tensor,
        "pipeline": layout.pipeline,
        "experts": shape.experts,
        "micro_batch": layout.micro_batch,
    }
    found = []
    for name, value in asked.items():
        low, high = calibration.covers.get(name, (0.0, float("inf")))
        if not low / 2 <= value <= max(1, high) * 2:
            found.append(f"{name} {value} lies outside {low:g} to {high:g}, which it was fitted on")
    return tuple(found)
