"""Step times that the catalogue foresees of a GPU it has not seen, beside those that `benchmarks.gpu` measured there.

    python -m benchmarks.catalogue_gpu [--quick]

No GPU is needed: measured steps come from the reports of `benchmarks.gpu`, prices from what `thrifty plan --on` takes.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.cases import GPU_CASES, Case, trace
from benchmarks.record import REPORTS, record
from thrifty import hardware
from thrifty.cost.replicas import replicas_cost
from thrifty.hardware import find_cluster
from thrifty.spec import Interval

# devices of the catalogue, and whose report tells of them
SEEN = {"h200": "gpu-nvidia-h200-*.md", "h100": "gpu-nvidia-h100-*.md"}
_STEP = re.compile(r"^\| (?P<case>[a-z0-9-]+) \|[^|]*\|[^|]*\|[^|]*\| (?P<ms>[\d.]+) ±", re.MULTILINE)


class Row(NamedTuple):
    """A case on a device: seconds of a step measured and foreseen, by what they go into."""

    device: str
    case: str
    measured_s: float
    foreseen: Interval
    parts: dict[str, float]

    @property
    def off(self) -> float:
        """By how much it is foreseen too long, as a share."""
        return self.foreseen.value / self.measured_s - 1


def measured(device: str) -> dict[str, float]:
    """Seconds of a step of each case, by the newest report of a device."""
    text = sorted(REPORTS.glob(SEEN[device]))[-1].read_text(encoding="utf-8")
    return {found["case"]: float(found["ms"]) / 1e3 for found in _STEP.finditer(text)}


def rows(cases: tuple[Case, ...]) -> Iterator[Row]:
    """Trace each case once, and price it on each device."""
    steps = {device: measured(device) for device in SEEN}
    for case in cases:
        traced = trace(case)
        for device, seen in steps.items():
            if case.name in seen:
                layout: Any = case.layout
                cost = replicas_cost(traced, find_cluster(f"{device}:1"), data=1, memory_format=layout)
                parts = {name: seconds for name, seconds in vars(cost.breakdown).items() if seconds}
                yield Row(device, case.name, seen[case.name], cost.seconds, parts)


def figures(found: list[Row]) -> dict[str, float]:
    """Errors as shares, by device."""
    result: dict[str, float] = {}
    for device in SEEN:
        own = [row for row in found if row.device == device]
        errors = [abs(row.off) for row in own]
        inside = [row.foreseen.low <= row.measured_s <= row.foreseen.high for row in own]
        result |= {
            f"catalogue_{device}_median_error": statistics.median(errors),
            f"catalogue_{device}_p90_error": statistics.quantiles(errors, n=10)[-1],
            f"catalogue_{device}_bias": statistics.median(row.off for row in own),
            f"catalogue_{device}_interval_coverage": statistics.fmean(inside),
            f"catalogue_{device}_cases": len(own),
        }
    return result


def main() -> None:
    """Price, print the figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every fifth case")
    found = list(rows(GPU_CASES[::5] if parser.parse_args().quick else GPU_CASES))
    lines = ["| device | case | measured ms | foreseen ms | off | goes into, ms |", "|---|---|---:|---:|---:|---|"]
    for row in found:
        parts = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in row.parts.items())
        cells = [row.device, row.case, f"{row.measured_s * 1e3:.1f}", f"{row.foreseen.value * 1e3:.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{row.off:+.0%}', parts])} |")
    says = "One micro-batch a step on one device. Measured steps are those of `benchmarks.gpu`.\n\n" + "\n".join(lines)
    plain = hardware.here(kind="cpu").model_copy(update={"kernels": ()})
    record("catalogue_gpu", plain, says, {name: [value] for name, value in figures(found).items()})


if __name__ == "__main__":
    main()
