"""What holds the memory of a step: at its peak, and after each of its operators."""

from __future__ import annotations

from collections.abc import Sequence

import thrifty.cost.timeline as cost_timeline
from thrifty.cost import Trace
from thrifty.planner.explain import quote_of
from thrifty.planner.search import Way
from thrifty.spec.proposal import Timeline
from thrifty.spec.units import format_bytes

RUNTIME = "torch and its libraries"
INSTANTS = 400


def timeline(trace: Trace, base_bytes: float, *, accumulating: bool) -> Timeline:
    """Say what is alive after each operator of a step, by what holds it.

    Args:
        trace: of one step of one micro-batch.
        base_bytes: alive through the whole step beside what the step holds: the libraries, and holes of the heap.
        accumulating: gradients of earlier micro-batches are there from the start.
    """
    line = cost_timeline.timeline(trace, accumulating=accumulating)
    last = max(1, len(line.ops) - 1)
    rows = [(100 * at / last, sizes) for at, sizes in enumerate(zip(*line.bytes.values(), strict=True))]
    shown = _thinned(rows)
    held = {name: tuple(float(row[1][index]) for row in shown) for index, name in enumerate(line.bytes)}
    where = line.ops[line.peak_op]
    return Timeline(
        says=f"Memory over one micro-batch, by replay of the traced step; most is alive at {where}. "
        f"Beside it stand {format_bytes(base_bytes)} of libraries and holes of the heap.",
        axis="per cent of the step's operators",
        at=tuple(row[0] for row in shown),
        held=held,
    )


def holds(trace: Trace, accumulation: int, peak: float) -> dict[str, float]:
    """What is alive when most is, by what holds it; the rest of the predicted peak is the libraries and the heap."""
    held = cost_timeline.timeline(trace, accumulating=accumulation > 1).holds
    rest = max(0.0, peak - sum(held.values()))
    return {name: float(size) for name, size in {**held, RUNTIME: rest}.items() if size > 0}


def _thinned(rows: Sequence[tuple[float, tuple[int, ...]]]) -> list[tuple[float, tuple[int, ...]]]:
    """Keep the fullest instant of each stretch."""
    if len(rows) <= INSTANTS:
        return list(rows)
    stretches = [rows[n * len(rows) // INSTANTS : (n + 1) * len(rows) // INSTANTS] for n in range(INSTANTS)]
    return [max(stretch, key=lambda row: sum(row[1])) for stretch in stretches if stretch]


def base_bytes(way: Way) -> float:
    """Return the part of a way's peak that no step holds: libraries and the heap."""
    return quote_of(way).memory_holds.get(RUNTIME, 0.0)
