"""What a search on a cluster needs of a job, whichever way its model is priced: a space, prices, bounds and limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from thrifty.planner.search import Bound, Found, Price, Settings, Space, Way, search
from thrifty.spec import Budget, Cluster

# Twice the devices cost twice as much an hour: they pay while they give at least half of that back, a speed-up of 1.5.
PAYS = 1.5
# what breakdowns call the terms of a step, in a reader's words
TERMS = {
    "matmul": "matrix products", "attention": "attention", "other": "norms and pointwise", "launch": "launching",
    "copy": "copying batches",
    "tensor": "tensor-parallel messages", "expert": "expert messages", "context": "context messages",
    "data": "data-parallel messages", "statistics": "batch norm's messages", "pipeline": "pipeline messages",
    "bubble": "pipeline bubble", "optimizer": "optimizer", "offload": "states to and from the host",
    "validation": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """A job on one cluster, ready to be searched.

    Attributes:
        space: of layouts.
        price: of one of them.
        bounds: of it: its time alone, then its memory too.
        limits: the budget, and the memory of a device.
        coarse: values that do where many machines are searched, by field.
        notes: what a reader must know of a way beside its price.
    """

    cluster: Cluster
    space: Space
    price: Price
    bounds: tuple[Bound, ...]
    limits: Mapping[str, float]
    coarse: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    notes: Callable[[Way], tuple[str, ...]] = lambda way: ()

    def search(self, *objectives: str) -> Found:
        """Search it."""
        return search(self.space, self.price, limits=self.limits, bounds=self.bounds, objectives=objectives)

    def restricted(self, settings: Settings) -> Space:
        """The part of its space with these values; empty where it has no such value."""
        has = self.space.dimensions
        held = {name: (value,) if value in has.get(name, ()) else () for name, value in settings.items()}
        return Space({**has, **held}, self.space.constraints)


class Work(Protocol):
    """A job whose model can be priced on clusters; what was worked out for one cluster serves the next."""

    def ground(self, cluster: Cluster, allowed: Collection[str] = ()) -> Ground:
        """Lay out what can be tried on a cluster.

        Args:
            cluster: where.
            allowed: marked moves that were asked for.

        Raises:
            JobError: degrees that do not divide, or a pin that the model does not bear.
        """


def limits_of(budget: Budget, cluster: Cluster) -> dict[str, float]:
    """Return the limits of a search by quantity: the budget's, and the memory of a device."""
    asked = {"seconds": budget.time, "joules": budget.energy, "usd": budget.money}
    limits = {name: most for name, most in asked.items() if most is not None}
    return {**limits, "peak_bytes": min(float(cluster.device.memory_bytes), budget.memory or math.inf)}
