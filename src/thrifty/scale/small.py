"""The small runs: jobs like the one that is asked about but for size, rate and length, made one by one and told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from thrifty.errors import DivergedError
from thrifty.models.sized import split_name
from thrifty.spec import Budget, Job, Pins, Spent
from thrifty.spec.events import Emit, Event, Progress, StageDone, StageStarted, StepDone, Warned
from thrifty.spec.scaling import Size, SmallRun
from thrifty.spec.units import format_count


class Ran(NamedTuple):
    """What came of carrying out a job: its validation loss, its bill, where it lies, and whether it ran just now."""

    loss: float
    spent: Spent
    folder: str
    fresh: bool


# carries out a job, or finds that it was carried out before
Runner = Callable[[Job, Emit], Ran]


@dataclass
class SmallRuns:
    """Makes small runs, and remembers them.

    Attributes:
        job: that they are like.
        run: carries out one.
        emit: is told of each.
        pins: how they are computed.
        init: their initial weights.
        unit: what a sample counts for in an amount of data.
        count: how many there will be, as far as that is known.
        made: in the order they were made.
    """

    job: Job
    run: Runner
    emit: Emit
    pins: Pins
    init: str | dict[str, str] | None
    unit: int
    count: int
    made: list[SmallRun] = field(default_factory=list)

    def make(
        self, size: Size, steps: int, batch: int, rate: float, use: Literal["curve", "rate", "batch"] = "curve"
    ) -> SmallRun:
        """Make a run, or find it made; one whose training broke off has an infinite loss."""
        for known in self.made:
            if (known.size, known.steps, known.batch, known.learning_rate) == (size, steps, batch, rate):
                if use == "curve" and known.use != use:
                    self.made[self.made.index(known)] = known = known.model_copy(update={"use": use})
                return known
        name = f"run {len(self.made) + 1}"
        self.emit(StageStarted(name))
        try:
            ran = self.run(small_job(self.job, size, steps, batch, rate, self.init, self.pins), self._quieter(name))
        except DivergedError:
            ran = Ran(math.inf, Spent(), "", True)
        made = SmallRun(
            size=size,
            use=use,
            steps=steps,
            batch=batch,
            data=float(steps * batch * self.unit),
            learning_rate=rate,
            loss=ran.loss,
            spent=ran.spent,
            fresh=ran.fresh,
            folder=ran.folder,
        )
        self.made.append(made)
        self.count = max(self.count, len(self.made))
        again = "" if ran.fresh else ", made before"
        says = (
            f"{len(self.made)} of about {self.count}: {format_count(size.parameters)} parameters on "
            f"{format_count(made.data)}, rate {rate:.2g}: loss {ran.loss:.4g}{again}"
        )
        self.emit(StageDone(name, says, ran.spent if ran.fresh else Spent(), trouble=not math.isfinite(ran.loss)))
        return made

    def of_curve(self) -> list[SmallRun]:
        """Return those that the curve is fitted to."""
        return [each for each in self.made if each.use == "curve"]

    def _quieter(self, name: str) -> Emit:
        def emit(event: Event) -> None:
            if isinstance(event, StepDone):
                self.emit(Progress(name, event.step, event.steps, "steps"))
            elif isinstance(event, Warned):
                self.emit(event)

        return emit


def small_job(
    job: Job, size: Size, steps: int, batch: int, rate: float, init: str | dict[str, str] | None, pins: Pins
) -> Job:
    """The job at a size, in so many steps at a rate; it is validated once, when its rate has fallen to the end."""
    train = job.train.model_copy(
        update={
            "epochs": None,
            "steps": steps,
            "batch": batch,
            "learning_rate": rate,
            "init": init,
            "evaluations": 1,
            "patience": 0,
        }
    )
    if pins.micro_batch is not None:
        pins = pins.model_copy(update={"micro_batch": min(pins.micro_batch, batch)})
    name = f"{split_name(size.model)[1]}-{steps}x{batch}-{rate:g}"
    plain = {"target": None, "budget": Budget(), "plan": pins, "report_to": ()}
    return job.model_copy(update={"name": name, "model": size.model, "train": train, **plain})
