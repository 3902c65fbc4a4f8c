"""Where a planned step's memory and time go, by module and by operator: from its trace, nothing of it runs."""

from __future__ import annotations

import re
from collections import defaultdict

from thrifty.cost import Trace
from thrifty.cost.time import seconds_by
from thrifty.cost.timeline import timeline as replay
from thrifty.planner.holding import RUNTIME, timeline
from thrifty.spec import Device
from thrifty.spec.traced import Traced

BESIDE_MODULES = "the loss and the optimizer"
MOST_MODULES, MOST_OPS = 12, 10
REST = "all others"


def breakdown(largest: Trace, typical: Trace, device: Device, *, peak_bytes: float, accumulating: bool) -> Traced:
    """Replay a traced step, and split its seconds.

    Args:
        largest: of the largest micro-batch, whose memory is told.
        typical: of one of the mean size, whose time is.
        device: whose rates price it.
        peak_bytes: predicted of the whole process or accelerator; what no step holds is the libraries' and the heap's.
        accumulating: gradients of earlier micro-batches are there from the start.
    """
    line = replay(largest, accumulating=accumulating)
    rest = max(0.0, peak_bytes - sum(line.holds.values()))
    return Traced(
        peak_at=line.ops[line.peak_op],
        peak_bytes=peak_bytes,
        holds={name: float(size) for name, size in {**line.holds, RUNTIME: rest}.items() if size > 0},
        modules={name: float(size) for name, size in line.modules},
        timeline=timeline(largest, rest, accumulating=accumulating),
        seconds_by_module=_first(seconds_by(typical, device, lambda op: repeated(op.module)), MOST_MODULES),
        seconds_by_op=_first(seconds_by(typical, device, lambda op: op.kind.replace("_", " ")), MOST_OPS),
    )


def repeated(module: str) -> str:
    """Name a module by its place in any of the blocks that are alike.

    >>> repeated("h.11.attn"), repeated("")
    ('h.*.attn', 'the loss and the optimizer')
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", module) or BESIDE_MODULES


def _first(seconds: dict[str, float], most: int) -> dict[str, float]:
    """The largest shares, and the others together."""
    found: dict[str, float] = defaultdict(float)
    for at, (name, spent) in enumerate(sorted(seconds.items(), key=lambda pair: -pair[1])):
        if spent > 0:
            found[name if at < most else REST] += spent
    return dict(found)
