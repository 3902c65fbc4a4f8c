"""The guard: a step whose loss or gradient is no number, or whose loss leaps up, is met by a ladder.

1. The step is skipped: weights, optimizer and running statistics stay as they were; only its data is used up.
2. After several in a window, the learning rate is lowered for a while.
3. After twice as many, weights and optimizer go back to the last checkpoint known to be good, the rate is lowered for
   good, and training goes on with the data that follows (Chowdhery et al. 2022, section 5.1; Zhang et al. 2022, 2.5).
4. After several of these, or without such a checkpoint, training ends; the best weights are kept.

A loss leaps up when it is the highest of the last steps, and lies further above their median than six standard
deviations (the window and the deviations of OLMo-core's SkipStepOptimizer; here by the median absolute deviation, which
a leap does not move) and than half of what an untrained model loses: late in training losses are small and their tails
heavy, and a batch with one hard sample is not one to leave out.

Where weights are stepped in the backward pass (`thrifty.optim.release`), the loss is asked about before it, and steps
are skipped by it as ever. A gradient that is no number is known after it: weights go back at once, the third rung.

A checkpoint is known to be good when the step after it was: the loss of a step judges the weights it began with. When
checkpoints were taken goes by the clock, so weights that were rolled back are not the same in every run of a plan.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from thrifty.spec import GuardPlan
from thrifty.spec.events import Emit, RateLowered, RolledBack, Skipped
from thrifty.train.checkpoint import State

# losses that the untrained model's, and the usual one, are told from at least
LEAST_LOSSES = 16
# of a normal distribution: the standard deviation over the median absolute deviation
_DEVIATION = 1.4826


@dataclass
class Watch:
    """What the guard remembers; part of a checkpoint.

    Attributes:
        losses: of the last sound steps.
        untrained: median of the first ones; 0 before they are enough.
        skipped: the steps skipped of late, with the seconds of each.
        lowered_until: the step up to which the rate is lowered.
        factor: of the rate for good, after roll-backs.
        rollbacks: so far.
        trained_seconds: of all steps.
        wasted_seconds: of those that taught nothing, or nothing that was kept.
        sound: whether the last step was.
        gave_up: why training must end; empty while it need not.
    """

    losses: list[float] = field(default_factory=list)
    untrained: float = 0.0
    skipped: list[tuple[int, float]] = field(default_factory=list)
    lowered_until: int = 0
    factor: float = 1.0
    rollbacks: int = 0
    trained_seconds: float = 0.0
    wasted_seconds: float = 0.0
    sound: bool = True
    gave_up: str = ""


class Guard:
    """Watches the steps of a run; in a run without trouble it changes nothing.

    Args:
        plan: the rungs of the ladder.
        model: whose running statistics a skipped step must not change.
        state: of a checkpoint; empty at the start.
        releases: weights are stepped in the backward pass, so that a gradient that is no number has changed them when
            it is known.
    """

    def __init__(self, plan: GuardPlan, model: nn.Module, state: dict[str, Any], *, releases: bool = False) -> None:
        self.plan, self._releases = plan, releases
        self.watch = Watch(**state)
        self._sorted = sorted(self.watch.losses)
        self._statistics = _statistics(model)
        self._before = [each.clone() for each in self._statistics]

    @property
    def calm(self) -> bool:
        """Whether the last step was sound: its weights may be validated and kept."""
        return self.watch.sound

    @property
    def gave_up(self) -> str:
        """Why training must end, a sentence; empty while it need not."""
        return self.watch.gave_up

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to hold: plain numbers."""
        return asdict(self.watch)

    def rate(self, scheduled: float, step: int) -> float:
        """The rate of a step, counted from 0, whose schedule says ``scheduled``."""
        lowered = self.plan.factor if step < self.watch.lowered_until else 1.0
        return scheduled * self.watch.factor * lowered

    def bound(self) -> float:
        """The loss above which a step is skipped; ``inf`` before there is enough to tell by."""
        if len(self._sorted) < LEAST_LOSSES:
            return math.inf
        usual = _median(self._sorted)
        spread = _DEVIATION * _median(sorted(abs(loss - usual) for loss in self._sorted))
        return max(self._sorted[-1], usual + max(self.plan.deviations * spread, self._rise()))

    def begin(self) -> None:
        """Remember the running statistics: a step that computes its loss has changed them already.

        A step that nobody asks `sound` about, for the scale of its loss was too high, is none of the guard's.
        """
        self.watch.sound = True
        if self._statistics:
            torch._foreach_copy_(self._before, self._statistics)

    def again(self) -> None:
        """Put the running statistics back as they were when the step began: it is taken again."""
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._before)

    def sound(self, loss: float, gradient_norm: float) -> bool:
        """Say whether a step may change the weights; where it may not, the running statistics are as before it."""
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        self.watch.sound = finite and not self._leaps(loss)
        if self.watch.sound:
            self._note(loss)
        else:
            self.again()
        return self.watch.sound

    def ended(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        seconds: float,
        roll_back: Callable[[int], State | None],
        emit: Emit,
    ) -> None:
        """Take note of a step that ended, and where it was skipped, go up the ladder.

        Args:
            step: counted from 1.
            loss, gradient_norm, seconds: of the step.
            roll_back: puts weights and optimizer of the newest checkpoint of fewer steps than it is given back, and
                returns where training stood then; None where there is no such checkpoint.
            emit: is told of each rung.
        """
        watch, plan = self.watch, self.plan
        watch.trained_seconds += seconds
        if self.watch.sound:
            return
        if self._releases and not math.isfinite(gradient_norm):
            self._spoilt(step, loss, gradient_norm, roll_back, emit)
            return
        bound = self.bound()
        watch.wasted_seconds += seconds
        watch.skipped = [each for each in watch.skipped if each[0] > step - plan.window] + [(step, seconds)]
        emit(Skipped(step, loss, gradient_norm, bound, seconds))
        count = len(watch.skipped)
        if count == plan.skips:
            watch.lowered_until = step + plan.lowered_steps
            factor = watch.factor * plan.factor
            wasted_s = sum(each for _, each in watch.skipped)
            emit(RateLowered(step, watch.lowered_until, factor, loss, gradient_norm, wasted_s))
        elif count >= 2 * plan.skips:
            then = roll_back(watch.skipped[0][0] - 1) if watch.rollbacks < plan.rollbacks else None
            finite = math.isfinite(loss) and math.isfinite(gradient_norm)
            if then is None and finite and watch.rollbacks < plan.rollbacks:
                # steps that are skipped change no weight, and would stay as high for ever
                watch.losses, self._sorted, watch.skipped = [], [], []
                watch.lowered_until = step + plan.lowered_steps
                emit(RateLowered(step, watch.lowered_until, watch.factor * plan.factor, loss, gradient_norm, 0.0))
            elif then is None:
                watch.gave_up = _why(step, loss, gradient_norm, bound, watch.rollbacks)
            else:
                self._rolled_back(step, then, loss, gradient_norm, emit)

    def _spoilt(
        self, step: int, loss: float, gradient_norm: float, roll_back: Callable[[int], State | None], emit: Emit
    ) -> None:
        """The step has changed weights by what is no number: they go back at once, however few were skipped before."""
        watch = self.watch
        # the loss of this very step was sound, and judges the weights it began with
        then = roll_back(step) if watch.rollbacks < self.plan.rollbacks else None
        if then is None:
            watch.gave_up = _why(step, loss, gradient_norm, math.inf, watch.rollbacks)
        else:
            self._rolled_back(step, then, loss, gradient_norm, emit)

    def _rolled_back(self, step: int, then: State, loss: float, gradient_norm: float, emit: Emit) -> None:
        watch, kept = self.watch, Watch(**then.guard)
        lost_s = watch.trained_seconds - kept.trained_seconds - (watch.wasted_seconds - kept.wasted_seconds)
        watch.wasted_seconds += lost_s
        watch.losses, self._sorted = list(kept.losses), sorted(kept.losses)
        watch.skipped, watch.lowered_until = [], 0
        watch.rollbacks += 1
        watch.factor *= self.plan.factor
        emit(RolledBack(step, then.step, watch.factor, loss, gradient_norm, lost_s))

    def _leaps(self, loss: float) -> bool:
        # what is had without sorting comes first, and nearly always answers
        if len(self._sorted) < LEAST_LOSSES or loss <= self._sorted[-1]:
            return False
        return loss > self.bound()

    def _rise(self) -> float:
        return self.plan.rise * abs(self.watch.untrained)

    def _note(self, loss: float) -> None:
        watch = self.watch
        watch.losses.append(loss)
        bisect.insort(self._sorted, loss)
        if len(watch.losses) > self.plan.window:
            del self._sorted[bisect.bisect_left(self._sorted, watch.losses.pop(0))]
        if not watch.untrained and len(watch.losses) == LEAST_LOSSES:
            watch.untrained = _median(self._sorted)


def _statistics(model: nn.Module) -> list[Tensor]:
    """What the state of a model holds beside parameters, such as the running statistics of batch norm."""
    parameters = {id(parameter) for parameter in model.parameters()}
    state = model.state_dict(keep_vars=True)
    return [value.detach() for value in state.values() if isinstance(value, Tensor) and id(value) not in parameters]


def _median(ordered: list[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _why(step: int, loss: float, gradient_norm: float, bound: float, rollbacks: int) -> str:
    what = f"the loss of step {step:,} is {loss:.4g}"
    if math.isfinite(loss) and not math.isfinite(gradient_norm):
        what = f"the gradient's norm of step {step:,} is {gradient_norm:.4g}"
    elif math.isfinite(loss):
        what += f", above {bound:.4g}"
    back = (
        f"after {rollbacks} roll-back{'s' * (rollbacks > 1)}" if rollbacks else "with no good checkpoint to go back to"
    )
    return f"{what}, {back}"
