"""Learning-rate schedules: what share of the highest rate a step gets; no torch.

``n`` below is the steps after the warm-up, ``t`` the steps taken of them. Cosine and linear reach zero at step ``n``,
which is never taken: the last step is not wasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from thrifty.errors import unknown_name
from thrifty.spec import OptimPlan


def _progress(step: int, plan: OptimPlan) -> float:
    """``t / n``, from 0 to 1."""
    steps = max(plan.total_steps - plan.warmup_steps, 1)
    return min(max(step - plan.warmup_steps, 0) / steps, 1.0)


def fixed(step: int, plan: OptimPlan) -> float:
    """1 throughout."""
    return 1.0


def exponential(step: int, plan: OptimPlan) -> float:
    """``decay`` to the power of the epochs since the warm-up; falls at every step, not in jumps between epochs."""
    return float(plan.decay ** (max(step - plan.warmup_steps, 0) / plan.steps_per_epoch))


def step_down(step: int, plan: OptimPlan) -> float:
    """``decay`` once at half of all steps and once more at three quarters (He et al. 2015, section 4.2)."""
    return float(plan.decay ** ((2 * step >= plan.total_steps) + (4 * step >= 3 * plan.total_steps)))


def cosine(step: int, plan: OptimPlan) -> float:
    """``(1 + cos(pi t / n)) / 2`` (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * _progress(step, plan))) / 2


def linear(step: int, plan: OptimPlan) -> float:
    """``1 - t / n``."""
    return 1 - _progress(step, plan)


# Each gives a factor in [0, 1] of the step and the plan. That of ``plateau`` is held by a `Schedule`.
SCHEDULES: dict[str, Callable[[int, OptimPlan], float]] = {
    "fixed": fixed,
    "exponential": exponential,
    "step": step_down,
    "plateau": fixed,
    "cosine": cosine,
    "linear": linear,
}


def warmup(step: int, plan: OptimPlan) -> float:
    """Rise linearly to 1, which the last of the warm-up steps has; the first is above 0 (Goyal et al. 2017)."""
    return min((step + 1) / plan.warmup_steps, 1.0) if plan.warmup_steps else 1.0


class Schedule:
    """The learning rate of each step of a plan.

    All but ``plateau`` depend on the step alone. That one multiplies the rate by ``plan.decay`` each time
    ``plan.plateau_patience`` evaluations in a row did not improve on the best.

    Raises:
        JobError: there is no schedule of the plan's name; the nearest one is given.
    """

    def __init__(self, plan: OptimPlan) -> None:
        if plan.schedule not in SCHEDULES:
            raise unknown_name("schedule", plan.schedule, SCHEDULES)
        self._plan = plan
        self._factor = 1.0
        self._best = -math.inf
        self._since_best = 0

    def rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        share = SCHEDULES[self._plan.schedule](step, self._plan) * warmup(step, self._plan)
        return self._plan.learning_rate * share * self._factor

    def evaluated(self, value: float, higher_is_better: bool) -> None:
        """Take note of a validation; only ``plateau`` does."""
        if self._plan.schedule != "plateau":
            return
        goodness = value if higher_is_better else -value
        self._since_best += 1
        if goodness > self._best:
            self._best, self._since_best = goodness, 0
        elif self._since_best >= self._plan.plateau_patience:
            self._factor, self._since_best = self._factor * self._plan.decay, 0

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on from here: plain numbers."""
        return {"factor": self._factor, "best": self._best, "since_best": self._since_best}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._factor, self._best, self._since_best = state["factor"], state["best"], state["since_best"]
