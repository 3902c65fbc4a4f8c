"""`Entry`: one ledger line: what was predicted of a run beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

from thrifty.spec.cost import Cost, Interval, Spent
from thrifty.spec.plain import Plain

TRAIN = "train"
Status = Literal["running", "interrupted", "done", "stopped", "failed"]
Quantity = Literal["seconds", "peak_bytes", "joules", "usd", "flops"]


class StageEntry(Plain):
    """What one stage of one attempt took; ``predicted`` where the plan spoke of this stage alone."""

    stage: str
    attempt: int
    spent: Spent
    predicted: Cost | None = None


class Comparison(Plain):
    """One quantity of training, predicted beside measured.

    Attributes:
        quantity: as in `Cost`.
        predicted: for the whole plan.
        due: the prediction for the work that was done: a run that reached its target early owes less.
        measured: what the meters said; 0 where none spoke.
    """

    quantity: Quantity
    predicted: Interval
    due: Interval
    measured: float

    @property
    def difference(self) -> float:
        """Measured over due, less one; ``nan`` where either is unknown."""
        return self.measured / self.due.value - 1 if self.measured > 0 and self.due.value > 0 else math.nan

    @property
    def inside(self) -> bool:
        """Whether the measurement fell in the interval that was due."""
        # a part in 10^9 forgives the rounding of the sums on both sides
        slack = 1e-9 * abs(self.due.value)
        return self.due.low - slack <= self.measured <= self.due.high + slack

    @property
    def miss(self) -> float:
        """``|ln(measured / due)|``: 0 for a perfect prediction, the same for twice as for half; 0 where unknown."""
        return 0.0 if math.isnan(self.difference) else abs(math.log1p(self.difference))


MEASURED: dict[Quantity, Callable[[Spent], float]] = {
    "seconds": lambda spent: spent.wall_s,
    "peak_bytes": lambda spent: float(spent.device_peak_bytes or spent.peak_rss_bytes),
    "joules": lambda spent: spent.joules,
    "usd": lambda spent: spent.usd,
    "flops": lambda spent: spent.flops,
}


class Entry(Plain):
    """One run as the ledger knows it.

    Attributes:
        id: number of the run in this ledger.
        name, key, folder: of the job, of its content, and where its files lie.
        status: ``interrupted`` is a run that was never finished and whose process is gone.
        started, finished: ISO date and time in UTC; ``finished`` is empty until then.
        attempts: how many times the run was begun.
        pid: process of the last attempt.
        stages: of every attempt, in the order they were first recorded.
        predicted: cost by the plan, for the whole run; None before there is a plan.
        total: of all stages and attempts.
        metrics: of the held-out test split.
        reason: why training ended.
        code: version or hash of the code that ran.
        device: name of the device.
        model: that the job names.
    """

    id: int
    name: str
    key: str
    folder: str
    status: Status
    started: str
    finished: str
    attempts: int
    pid: int
    stages: tuple[StageEntry, ...]
    predicted: Cost | None
    total: Spent
    metrics: dict[str, float]
    reason: str
    code: str
    device: str
    model: str = ""

    def training(self) -> Spent:
        """What the training stage took, over all attempts."""
        return add_spent(*(each.spent for each in self.stages if each.stage == TRAIN))

    def work_done(self) -> float:
        """Share of the planned operations that training did, at most 1; 1 where either is unknown."""
        done = self.training().flops
        planned = self.predicted.flops.value if self.predicted else 0.0
        return min(1.0, done / planned) if done > 0 and planned > 0 else 1.0

    def comparisons(self) -> tuple[Comparison, ...]:
        """Time, peak memory, energy, money and FLOPs of training, predicted beside measured; empty without a plan.

        All are due for the share of the planned work that was done, but peak memory: it does not grow with it.
        """
        if self.predicted is None:
            return ()
        spent, share = self.training(), self.work_done()
        return tuple(
            Comparison(
                quantity=quantity,
                predicted=(interval := getattr(self.predicted, quantity)),
                due=_scaled(interval, 1.0 if quantity == "peak_bytes" else share),
                measured=measure(spent),
            )
            for quantity, measure in MEASURED.items()
        )

    def worst_miss(self) -> tuple[str, float]:
        """Name the quantity that was predicted worst, with its ``|ln(measured / due)|``; ``("", 0.0)`` without one.

        Among time, peak memory, energy and money; a factor of two either way is 0.69.
        """
        misses = [(each.quantity, each.miss) for each in self.comparisons() if each.quantity != "flops"]
        quantity, worst = max(misses, key=lambda pair: pair[1], default=("", 0.0))
        return (quantity, worst) if worst > 0 else ("", 0.0)


def add_spent(*spents: Spent) -> Spent:
    """Add what several stages took: time, energy, money and work sum, peaks do not.

    ``peak_share`` is the mean over the time of the stages that counted operations; the methods are joined,
    each said once.

    >>> add_spent(Spent(wall_s=1, peak_rss_bytes=5), Spent(wall_s=2, peak_rss_bytes=3)).peak_rss_bytes
    5
    """
    counted_s = sum(each.wall_s for each in spents if each.flops > 0)
    return Spent(
        wall_s=sum(each.wall_s for each in spents),
        cpu_s=sum(each.cpu_s for each in spents),
        peak_rss_bytes=max((each.peak_rss_bytes for each in spents), default=0),
        device_peak_bytes=max((each.device_peak_bytes for each in spents), default=0),
        written_bytes=sum(each.written_bytes for each in spents),
        flops=sum(each.flops for each in spents),
        peak_share=sum(each.peak_share * each.wall_s for each in spents if each.flops > 0) / counted_s
        if counted_s > 0
        else 0.0,
        joules=sum(each.joules for each in spents),
        joules_method=_joined(each.joules_method for each in spents),
        usd=sum(each.usd for each in spents),
        usd_method=_joined(each.usd_method for each in spents),
    )


def _joined(methods: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(method for method in methods if method))


def _scaled(interval: Interval, share: float) -> Interval:
    if share == 1.0:
        return interval
    low, value, high = (bound * share for bound in (interval.low, interval.value, interval.high))
    return Interval(low=low, value=value, high=high, method=interval.method)
