"""Seconds of a step on a GPU: the host asks for operators one after another, the GPU works them off as they come.

A step takes what the slower of the two takes, instant by instant: small operators end before the host has asked for the
next one, and large ones let the host run ahead. Where a batch is copied, and at the end, the host waits for the GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from thrifty.cost.recorder import Op
from thrifty.hardware.overheads import BACKWARD, MODULE, PARAMETER, START, TO_DEVICE, WATCHED
from thrifty.spec.device import KernelPoint

# seconds that asking takes, where nothing was timed
_ASKING_S = 10e-6
# tensors of a batch: what is learned from, and what is to be learned
_BATCH_TENSORS = 2
_PHASES = {"forward": MODULE, "backward": BACKWARD, "update": PARAMETER}


class Host:
    """What the host of a GPU needs for each operator, by those timed there."""

    def __init__(self, points: Sequence[KernelPoint]) -> None:
        named: dict[str, list[float]] = defaultdict(list)
        for point in points:
            if point.shapes and point.host_s:
                named[point.name].append(point.host_s)
        self._names = {name: float(np.median(seconds)) for name, seconds in named.items()}
        self._any = float(np.median(list(self._names.values()))) if named else _ASKING_S
        self._aside = {(point.name, point.dtype): point.warm_s for point in points if not point.shapes}
        copies = sorted((point.moved_bytes, point.warm_s) for point in points if point.name == TO_DEVICE)
        self._copy_s, self._byte_s = _line(copies)

    def ask(self, op: Op, known_s: float | None, precision: str) -> float:
        """Seconds of one operator, with what lies beside it; ``known_s`` where this one was timed."""
        own_s = known_s if known_s is not None else self._names.get(op.name, self._any)
        beside_s = op.entered * self._of(MODULE, precision)
        if op.phase == "backward":
            beside_s += self._of(BACKWARD, precision)
        return own_s + beside_s + self._aside.get((f"{WATCHED} {op.watched}", ""), 0.0)

    def begin(self, phase: str, precision: str, parameters: int) -> float:
        """Seconds before the first operator of ``forward``, ``backward`` or ``update``; of that by its parameters."""
        name = _PHASES[phase]
        start_s = self._of(f"{name} {START}", precision)
        return start_s + parameters * self._of(PARAMETER, precision) if name == PARAMETER else start_s

    def copy(self, batch_bytes: int) -> float:
        """Seconds to copy a batch to the GPU, which the host waits for."""
        return _BATCH_TENSORS * self._copy_s + batch_bytes * self._byte_s

    def _of(self, name: str, precision: str) -> float:
        return self._aside.get((name, "float32" if precision == "fp32" else "bfloat16"), 0.0)


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Seconds of nothing, and of one more byte, through the smallest and the largest of what was timed."""
    if not points:
        return 0.0, 0.0
    (least, least_s), (most, most_s) = points[0], points[-1]
    byte_s = max(most_s - least_s, 0.0) / (most - least) if most > least else least_s / least
    return max(least_s - byte_s * least, 0.0), byte_s


def queue_seconds(asked: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Seconds until the GPU is done with all that it is asked for, and those of them in which it waits for the host.

    Args:
        asked: of each operator in order the seconds of the host, and those of the GPU.

    >>> queue_seconds([(1.0, 5.0), (1.0, 5.0)]), queue_seconds([(5.0, 1.0), (5.0, 1.0)])
    ((11.0, 1.0), (11.0, 9.0))
    """
    host = done = busy = 0.0
    for host_s, busy_s in asked:
        host += host_s
        done = max(done, host) + busy_s
        busy += busy_s
    end = max(host, done)
    return end, end - busy
