"""Seconds of an operator from those timed on the device: a roofline for its group, bent to go through the points.

Method: within a group the logarithm of measured over roofline time is a Gaussian process over the coordinates of
`features` (Rasmussen and Williams 2006, ch. 2), with its length chosen by leave-one-out error (sec. 5.4.2). Its own
variance is the doubt of what it says; far from every point it returns to the group's mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thrifty.cost.features import Called, Place, place
from thrifty.hardware.overheads import FLUSH
from thrifty.spec.device import KernelPoint

Array = NDArray[np.float64]

# doublings over which operators are alike; each group takes the one that predicts its own points best
LENGTHS = (1.0, 2.0, 4.0, 8.0)
# share of a group's times that its roofline lies below
_BEST = 0.1
# operators that nothing but their traffic bounds
_PLAIN = frozenset(["add", "sub", "mul", "neg", "relu", "copy_", "clone", "clamp_min"])
# of a rate that another group or another precision lends
BORROWED_DOUBT = 0.35
# of an operator that goes by its bytes alone
UNKNOWN_DOUBT = 0.7


class Estimate(NamedTuple):
    """Seconds of one operator, its data in the cache and not, and the standard deviation of their logarithm."""

    warm_s: float
    cold_s: float
    doubt: float


class Traffic:
    """Seconds to read and write so many bytes, warm and cold: the better of plain copies and sums, by size.

    Between sizes it goes straight in logarithms; beyond the largest at its rate.
    """

    def __init__(self, points: Iterable[KernelPoint]) -> None:
        sized: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for point in points:
            if point.name in _PLAIN and point.dtype == "float32" and len(set(point.layouts) - {">"}) == 1:
                sized[round(math.log2(max(point.moved_bytes, 1)))].append((point.warm_s, point.cold_s))
        self.sizes = np.array(sorted(sized), dtype=float)
        self.logs = np.array([np.log(np.quantile(sized[int(size)], 0.25, axis=0)) for size in self.sizes])
        # a larger block takes no less time than a smaller one
        self.logs = np.maximum.accumulate(self.logs, axis=0) if len(self.sizes) else self.logs

    def __call__(self, moved_bytes: Array) -> Array:
        """Seconds, warm and cold in the last dimension."""
        if not len(self.sizes):
            return np.zeros((*np.shape(moved_bytes), 2))
        size = np.log2(np.maximum(moved_bytes, 1.0))
        beyond = np.maximum(size - self.sizes[-1], 0.0) * math.log(2)
        found = [np.interp(size, self.sizes, self.logs[:, state]) + beyond for state in (0, 1)]
        return np.exp(np.stack(found, axis=-1))


class _Group:
    """The points of one group and dtype, and the process through them."""

    def __init__(self, places: list[Place], points: list[KernelPoint], traffic: Traffic) -> None:
        self.at = np.array([each.at for each in places])
        self.low, self.high = self.at.min(axis=0), self.at.max(axis=0)
        self.traffic = traffic
        work = np.array([max(each.work, 1.0) for each in places])
        moved = np.array([max(point.moved_bytes, 1.0) for point in points])
        seconds = np.array([[point.warm_s, point.cold_s] for point in points])
        self.least_s = float(seconds.min())
        beyond_s = np.maximum(seconds[:, 0] - self.least_s, 0.1 * self.least_s)
        self.per_work_s = float(np.quantile(beyond_s / work, _BEST))
        bent = np.log(seconds / self._roofline(work, moved))
        self.mean = np.median(bent, axis=0)
        rest = bent - self.mean
        self.variance = max(float(rest.var()), 0.02**2)
        spread = np.array([point.spread for point in points])
        noise = np.clip(spread, 0.02, 0.3) ** 2 / self.variance
        self.error, self.length = min((self._left_out(rest, noise, length), length) for length in LENGTHS)
        self.inverse = np.linalg.inv(self._alike(self.at, self.length) + np.diag(noise))
        self.weights = self.inverse @ rest

    def _roofline(self, work: Array, moved: Array) -> Array:
        busy: Array = self.least_s + np.maximum((work * self.per_work_s)[:, None], self.traffic(moved))
        return busy

    def _alike(self, other: Array, length: float) -> Array:
        apart = ((other[:, None, :] - self.at[None, :, :]) ** 2).sum(axis=-1)
        found: Array = np.exp(-0.5 * apart / length**2)
        return found

    def _left_out(self, rest: Array, noise: Array, length: float) -> float:
        """Root mean square of the error at each point as predicted from the others."""
        inverse = np.linalg.inv(self._alike(self.at, length) + np.diag(noise))
        return float(np.sqrt(np.mean(((inverse @ rest) / np.diag(inverse)[:, None]) ** 2)))

    def estimate(self, where: Place, moved_bytes: float) -> Estimate:
        """Seconds at a place, which is moved to the edge of what was timed when it lies beyond."""
        wanted = np.array(where.at)
        at = np.clip(wanted, self.low, self.high)
        alike = self._alike(at[None, :], self.length)[0]
        roof = self._roofline(np.array([max(where.work, 1.0)]), np.array([max(moved_bytes, 1.0)]))[0]
        warm_s, cold_s = roof * np.exp(self.mean + alike @ self.weights)
        unknown = max(1.0 - float(alike @ self.inverse @ alike), 0.0)
        outside = float(np.abs(wanted - at).max())
        # half the error of leaving a point out stays even at one: other calls that look the same differ, too
        doubt = math.sqrt(self.variance * unknown + (self.error / 2) ** 2 + (0.05 * outside) ** 2)
        return Estimate(float(warm_s), float(max(warm_s, cold_s)), min(doubt, 1.0))


class Curves:
    """Prices operators from the points of a device; fitting them takes some tens of milliseconds."""

    def __init__(self, points: Iterable[KernelPoint]) -> None:
        given = list(points)
        # between two operators of a step their own code and tables stay in the caches: that is taken off
        self.flush_s = max((point.warm_s for point in given if point.name == FLUSH), default=0.0)
        usable = [point for point in given if point.shapes and point.warm_s > 0]
        calmed = [
            point.model_copy(update={"cold_s": max(point.cold_s - self.flush_s, point.warm_s)}) for point in usable
        ]
        self.traffic = Traffic(calmed)
        gathered: dict[tuple[str, str], list[tuple[Place, KernelPoint]]] = defaultdict(list)
        for point in calmed:
            where = place(point)
            gathered[where.group, point.dtype].append((where, point))
        self._groups = {
            key: _Group([where for where, _ in found], [point for _, point in found], self.traffic)
            for key, found in gathered.items()
            if len(found) >= 3
        }
        self.others = float(np.median([math.exp(group.mean[0]) for group in self._groups.values()] or [1.0]))
        self._known: dict[tuple[object, ...], Estimate | None] = {}

    def estimate(self, op: Called, dtype: str) -> Estimate | None:
        """Seconds of one call; None when nothing like it was timed."""
        key = (op.name, dtype, op.shapes, op.layouts, op.tensors, op.moved_bytes)
        if key not in self._known:
            self._known[key] = self._estimate(op, dtype)
        return self._known[key]

    def left_out(self) -> dict[tuple[str, str], float]:
        """Error of each group's points as predicted from its other points, as a share."""
        return {key: group.error for key, group in self._groups.items()}

    def _estimate(self, op: Called, dtype: str) -> Estimate | None:
        where = place(op)
        for name in (where.group, where.group.split(" ")[0], op.name.rstrip("_"), f"{op.name}_"):
            for kind in (dtype, *(other for other in ("float32", "bfloat16") if other != dtype)):
                group = self._groups.get((name, kind))
                if group is not None and group.at.shape[1] == len(where.at):
                    found = group.estimate(where, op.moved_bytes)
                    lent = (name, kind) != (where.group, dtype)
                    return found._replace(doubt=math.hypot(found.doubt, BORROWED_DOUBT)) if lent else found
        if not len(self.traffic.sizes):
            return None
        warm_s, cold_s = self.traffic(np.array(float(op.moved_bytes))) * self.others
        return Estimate(float(warm_s), float(cold_s), UNKNOWN_DOUBT)
