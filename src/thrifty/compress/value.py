"""What a candidate is worth: its objective as a share of the reference's, and the front of those that none beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thrifty.spec import Measured, Objective, Tried

# of two candidates measured side by side, what noise may make of the difference
NOISE = 0.02

# what should become less, by objective
TAKES: dict[Objective, Callable[[Measured], float]] = {
    "latency": lambda found: found.latency_s.value,
    "throughput": lambda found: 1 / found.rows_per_s.value,
    "tokens": lambda found: 1 / found.tokens_per_s.value if found.tokens_per_s else found.latency_s.value,
    "size": lambda found: float(found.bytes),
    "energy": lambda found: found.joules_a_row.value,
}


def share(objective: Objective, found: Measured, reference: Measured) -> float:
    """Return what a candidate takes as a share of what the reference took beside it."""
    return TAKES[objective](found) / TAKES[objective](reference)


def front(tried: Sequence[Tried], objective: Objective) -> tuple[Tried, ...]:
    """Mark the Pareto front of drop and objective: no other trial is at least as good in both and better in one."""
    places = {
        at: (each.verdict.drop, TAKES[objective](each.measured))
        for at, each in enumerate(tried)
        if each.verdict is not None and each.measured is not None
    }

    def beaten(at: int) -> bool:
        drop, takes = places[at]
        return any(
            other != at and (d <= drop and t <= takes) and (d < drop or t < takes) for other, (d, t) in places.items()
        )

    marked = {at for at in places if not beaten(at)}
    return tuple(each.model_copy(update={"front": at in marked}) for at, each in enumerate(tried))
