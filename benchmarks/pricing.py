"""Price rows of published tables: which calibration each takes, and the seconds it predicts."""

from __future__ import annotations

from benchmarks.tables import Row
from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for
from thrifty.cost.cluster import step_breakdown


def name_of(row: Row) -> str:
    """The calibration that prices a row: of its device's family, software and date."""
    assert row.cluster is not None
    return f"{row.cluster.device.calibration} / {row.software}"


def priced_by(row: Row) -> Calibration:
    """The shipped calibration of a row's device, software and date; where there is none, of its device."""
    assert row.cluster is not None
    return calibration_for(row.cluster.device, row.software)


def predict(row: Row, calibration: Calibration) -> float:
    """Seconds of a row's step; where the source tuned what it does not state, of the fastest choice."""
    assert row.shape is not None and row.cluster is not None
    return min(
        step_breakdown(row.shape, layout, row.cluster, calibration, row.shard, logits=row.logits).seconds
        for layout in row.layouts
    )
