"""`Task`: all that a worker needs to take part in a search, on this machine or another, as JSON."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field

from thrifty.spec import Budget, Device, Job, Plan
from thrifty.spec.plain import Plain
from thrifty.spec.tuning import Goal, Pruner, Sampler, Space
from thrifty.tune.forecast import error_of
from thrifty.tune.record import Record


class Aim(Plain):
    """What a search is after.

    Attributes:
        goal: the best figure, or the least cost to a target.
        metric: validation figure, and whether more of it is better.
        target: of the figure, for the goal ``cheapest``.
    """

    goal: Goal
    metric: str
    rises: bool
    target: float = math.nan

    def better(self, one: float, other: float) -> bool:
        """Whether a figure is better than another; anything is better than none (``nan``)."""
        if math.isnan(one):
            return False
        return math.isnan(other) or (one > other if self.rises else one < other)

    def is_perfect(self, value: float) -> bool:
        """Whether a figure cannot be better, and nothing but the figure is sought."""
        return self.goal == "best" and (value >= 1 if self.rises else value <= 0)

    def figure(self, record: Record, until: int | None = None) -> float:
        """The best figure that a trial reached, until some step where that is said; ``nan`` for none."""
        values = [value for step, value in record.curve.items() if until is None or step <= until]
        values = [value for value in values if not math.isnan(value)]
        return (max if self.rises else min)(values) if values else math.nan

    def reached_at(self, record: Record) -> int | None:
        """The first step whose validation reached the target."""
        return next((step for step, value in record.curve.items() if self.reaches(value)), None)

    def has_reached(self, record: Record) -> bool:
        """Whether a trial has done what the search is after, and need not go on; never for the goal ``best``."""
        return self.goal == "cheapest" and self.reached_at(record) is not None

    def reaches(self, value: float) -> bool:
        """Whether a figure is as good as the target; never without one."""
        return value >= self.target if self.rises else value <= self.target

    def seconds_to_target(self, record: Record) -> float:
        """What reaching the target takes, by the price of the trial; ``inf`` where it was not reached."""
        step = self.reached_at(record)
        return math.inf if step is None else record.said.priced.seconds * step / record.said.total

    def goodness(self, record: Record, until: int | None = None) -> float:
        """How good a trial is, more is better; ``nan`` where nothing is known.

        For the goal ``cheapest``: less the seconds to the target; one that has not reached it is worse than any that
        did, the more the further its figure is away.
        """
        figure = self.figure(record, until)
        if math.isnan(figure):
            return math.nan
        if self.goal == "best":
            return figure if self.rises else -figure
        step = self.reached_at(record)
        if step is not None and (until is None or step <= until):
            return -math.log(max(self.seconds_to_target(record), 1e-9))
        # a factor away from what the error should be, on top of a price that no trial has
        away = math.log(error_of(figure, self.rises) / error_of(self.target, self.rises))
        return -(math.log(1e9) + max(away, 0.0))


class Task(Plain):
    """A search as its workers are told of it.

    Attributes:
        job: with its own settings: the first trial's.
        key: content key of the search.
        aim: what it is after.
        space: what may be tried.
        shares: levels of the ladder.
        sampler, pruner: as in a `thrifty.spec.tuning.Tune`.
        trials: configurations at most.
        budget: of the whole search.
        began_at: when it began, by the clock; seconds since then count.
        earlier_s: seconds that attempts before it took.
        url: of the study.
        store: folder of the prepared data.
        folder: where checkpoints and the best bundle go.
        device: what one worker has of the machine.
        workers: that share the machine.
        gpus: of this machine, by uuid, that workers are placed on in turn; empty where all have the same.
        seed: of the sampler.
        path: of Python, for models of a user's own.
        plans: of the pricer, as made until now: nobody makes them again.
    """

    job: Job
    key: str
    aim: Aim
    space: Space
    shares: tuple[float, ...]
    sampler: Sampler
    pruner: Pruner
    trials: int
    budget: Budget
    began_at: float
    earlier_s: float = 0.0
    url: str
    store: Path
    folder: Path
    device: Device
    workers: int = 1
    gpus: tuple[str, ...] = ()
    seed: int = 0
    path: tuple[str, ...] = ()
    plans: dict[str, Plan] = Field(default_factory=dict)
