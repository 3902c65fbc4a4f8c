"""How often a run is validated: what a validation takes, against the training that is past its end until the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thrifty.planner.rules import DOUBTS, Source
from thrifty.spec import Job, OptimPlan, StopPlan
from thrifty.spec.units import format_seconds

# of the training's time for validations: of a run that its steps alone end; of one that a validation may end; and for
# the few without which there is no best model to keep
SHARE, AIMED_SHARE, FEW_SHARE = 0.05, 0.1, 0.2
FEWEST = 4
# of a run that its steps alone end, where epochs are longer than a tenth of it
USUAL = 10
# that validations may take of any run: beside what starting and finishing take, less is not worth sparing
SPARE_SECONDS = 1.0


@dataclass(frozen=True)
class Aims:
    """What of a job decides how often it is validated.

    Attributes:
        per_epoch: steps of an epoch.
        target: whether reaching one ends the run.
        patience: validations without improvement that end it; 0 for never.
        asked: validations that the job asks for.
        plateau: whether the schedule counts validations, so that what is learned goes by how many there are.
    """

    per_epoch: int
    target: bool = False
    patience: int = 0
    asked: int | None = None
    plateau: bool = False


def aims_of(job: Job, optim: OptimPlan, stop: StopPlan) -> Aims:
    """What of a job, and of what was decided to learn, decides how often it is validated."""
    return Aims(
        per_epoch=optim.steps_per_epoch,
        target=math.isfinite(stop.target),
        patience=stop.patience,
        asked=job.train.evaluations,
        plateau=optim.schedule == "plateau",
    )


def validations(aims: Aims, steps: int, step_s: float, validation_s: float) -> int:
    """Return how many times to validate within so many steps, the last step included: one at least.

    Of N steps of t seconds each, with n validations of v seconds, a run that a target ends goes on for half an interval
    past it, N / 2n steps in the mean, so its validations cost n v + N t / 2n in all. That is least at
    n = sqrt(N t / 2 v), which is an interval of sqrt(2 N v / t) steps. Patience of p validations spends p intervals
    past the best: n v + p N t / n is least at n = sqrt(p N t / v). Both are flat about the least: half as many or twice
    as many cost a quarter more. N is what is planned, so a run whose target comes early is looked at too seldom.

    Args:
        aims: what ends the run.
        steps: of the whole run.
        step_s, validation_s: seconds of one, keeping the weights included.
    """
    if aims.asked is not None:
        return min(aims.asked, steps)
    epochs = steps / aims.per_epoch
    if aims.plateau:
        return min(math.ceil(epochs) if epochs >= FEWEST else USUAL, steps)
    validation_s, training_s = max(validation_s, 1e-9), steps * step_s

    def affordable(share: float) -> float:
        return max(share * training_s, SPARE_SECONDS) / validation_s

    least = math.inf
    if aims.target:
        least = math.sqrt(training_s / (2 * validation_s))
    elif aims.patience:
        least = math.sqrt(aims.patience * training_s / validation_s)
    count = max(min(FEWEST, affordable(FEW_SHARE)), min(max(math.ceil(epochs), USUAL), affordable(SHARE)))
    if math.isfinite(least):
        count = max(count, min(least, affordable(AIMED_SHARE)))
    if aims.patience:
        # or a few unlucky batches would end it: what patience waits for is an epoch, or a quarter of a shorter run
        count = min(count, aims.patience * steps / min(aims.per_epoch, steps / FEWEST))
    return max(1, min(int(count), steps))


def interval(steps: int, count: int) -> int:
    """Steps between so many validations, spread evenly over the run."""
    return math.ceil(steps / count)


def reason(aims: Aims, steps: int, step_s: float, validation_s: float) -> tuple[str, Source, str]:
    """Say why a run is validated as often as it is: the reason, what it comes from, and its doubt."""
    count = math.ceil(steps / interval(steps, validations(aims, steps, step_s, validation_s)))
    share = count * validation_s / (steps * step_s)
    cost = (
        f"a validation takes {format_seconds(validation_s)}, a step {format_seconds(step_s)}: "
        f"{count:,} of them {'take' if count != 1 else 'takes'} {share:.1%} of the time of training".replace("%", " %")
    )
    if aims.asked is not None:
        return f"train.evaluations asks for {aims.asked:,}; {cost}", "job", ""
    if aims.plateau:
        return f"the plateau schedule counts validations, so their number goes by epochs; {cost}", "rule", ""
    if aims.target:
        return (
            f"{cost}; fewer would train longer past the target",
            "rule",
            "each is another chance that a lucky one passes for the target",
        )
    if aims.patience:
        return f"{cost}; patience of {aims.patience} spans at least an epoch, or a quarter of the run", "rule", ""
    return f"{cost}; its steps alone end the run", "rule", DOUBTS["evaluate_every"]
