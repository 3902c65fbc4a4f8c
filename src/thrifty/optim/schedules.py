"""Learning-rate schedules: what share of the highest rate a step gets; no torch.

``n`` below is the steps after the warm-up, ``t`` the steps taken of them. Those that fall to zero reach it at step
``n``, which is never taken: the last step is not wasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from thrifty.errors import unknown_name
from thrifty.spec import OptimPlan

# of the highest rate, at the start of one cycle; and of that one, at its end (fastai's, which torch took over)
CYCLE_START, CYCLE_END = 1 / 25, 1e-4


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


def plateau(step: int, plan: OptimPlan) -> float:
    """1, times ``decay`` whenever ``plateau_patience`` validations brought nothing better; a `Schedule` counts them."""
    return 1.0


def cosine(step: int, plan: OptimPlan) -> float:
    """``(1 + cos(pi t / n)) / 2`` (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * _progress(step, plan))) / 2


def linear(step: int, plan: OptimPlan) -> float:
    """``1 - t / n``."""
    return 1 - _progress(step, plan)


def polynomial(step: int, plan: OptimPlan) -> float:
    """``(1 - t / n)`` to the ``power`` of the plan (You et al. 2017, with a power of 2)."""
    return float((1 - _progress(step, plan)) ** plan.power)


def one_cycle(step: int, plan: OptimPlan) -> float:
    """Up from 1/25 over the warm-up, then down to 4e-6, each half a cosine wave (Smith and Topin 2018; as torch's)."""
    top, last = max(plan.warmup_steps - 1, 0), plan.total_steps - 1
    if step < top:
        low, share = CYCLE_START, step / top
        return low + (1 - low) * (1 - math.cos(math.pi * share)) / 2
    low, share = CYCLE_START * CYCLE_END, min((step - top) / max(last - top, 1), 1.0)
    return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2


def warmup_stable_decay(step: int, plan: OptimPlan) -> float:
    """1 until the last ``cooldown_steps``, then ``1 - sqrt`` of the share of them taken (Hägele et al. 2024)."""
    taken = step - (plan.total_steps - plan.cooldown_steps)
    return 1.0 if taken <= 0 else 1 - math.sqrt(min(taken / plan.cooldown_steps, 1.0))


def inverse_sqrt(step: int, plan: OptimPlan) -> float:
    """``sqrt(w / (w + t))``, ``w`` the steps of the warm-up, at least one (Vaswani et al. 2017, section 5.3)."""
    start = max(plan.warmup_steps, 1)
    return math.sqrt(start / (start + max(step - plan.warmup_steps, 0)))


# Each gives a factor in [0, 1] of the step and the plan.
SCHEDULES: dict[str, Callable[[int, OptimPlan], float]] = {
    "fixed": fixed,
    "exponential": exponential,
    "step": step_down,
    "plateau": plateau,
    "cosine": cosine,
    "linear": linear,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "wsd": warmup_stable_decay,
    "inverse_sqrt": inverse_sqrt,
}
# they shape the steps of the warm-up themselves
OWN_RISE = frozenset(["one_cycle"])


def warmup(step: int, plan: OptimPlan) -> float:
    """Rise linearly to 1, which the last of the warm-up steps has; the first is above 0 (Goyal et al. 2017)."""
    if plan.schedule in OWN_RISE or not plan.warmup_steps:
        return 1.0
    return min((step + 1) / plan.warmup_steps, 1.0)


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
