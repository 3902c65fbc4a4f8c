"""When training ends, and when it is looked at on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from thrifty.errors import BudgetError
from thrifty.spec import Plan, Spent
from thrifty.spec.plan import StopPlan
from thrifty.spec.units import format_joules, format_seconds, format_usd
from thrifty.train.checkpoint import State
from thrifty.train.ranks import World

BUDGET_CHECK_SECONDS = 0.2


class Budget:
    """Asks what was spent now and then, because asking reads the system's counters."""

    def __init__(self, spent: Callable[[], Spent], world: World) -> None:
        self.world = world
        self.spent, self.asked_at, self.last = spent, -math.inf, Spent()

    def now(self, stop: StopPlan) -> Spent:
        limited = any(math.isfinite(limit) for limit in (stop.seconds, stop.joules, stop.usd))
        if limited and time.perf_counter() - self.asked_at > BUDGET_CHECK_SECONDS:
            self.last, self.asked_at = self.spent(), time.perf_counter()
        if not limited or self.world.size == 1:
            return self.last
        wall_s, joules, usd = self.world.gather(self.last.wall_s, self.last.joules, self.last.usd)[0]
        return self.last.model_copy(update={"wall_s": wall_s, "joules": joules, "usd": usd})


def reason_to_stop(stop: StopPlan, state: State, budget: Budget, *, told: bool = False) -> str:
    """Why training should end now, or an empty string.

    Args:
        stop: when it is to end.
        state: where it stands.
        budget: what was spent.
        told: somebody asks for the end, which is heard once there is a step to keep.

    Raises:
        BudgetError: the budget is spent before the first step, so there is nothing to keep.
    """
    if state.best and _reached(state.best[stop.metric], stop):
        return f"target reached: {stop.metric} {state.best[stop.metric]:.4g} (wanted {stop.target:g})"
    if state.step >= stop.steps:
        return f"all {stop.steps:,} steps done"
    if told and state.step:
        return f"stopped as asked, at step {state.step:,} of {stop.steps:,}"
    if stop.patience and state.since_best >= stop.patience:
        return f"no better {stop.metric} in {stop.patience} validations"
    reason = _spent(stop, budget.now(stop))
    if reason and not state.step:
        raise BudgetError(
            f"nothing was trained: {reason}",
            mend="Raise the budget: it was gone before the first step, in an "
            "earlier attempt or because this machine was slower than when it was planned.",
        )
    return reason


def _spent(stop: StopPlan, spent: Spent) -> str:
    if spent.wall_s >= stop.seconds:
        return f"time budget: {format_seconds(spent.wall_s)} of {format_seconds(stop.seconds)} for training spent"
    if spent.joules >= stop.joules:
        return f"energy budget: {format_joules(spent.joules)} of {format_joules(stop.joules)} for training spent"
    if spent.usd >= stop.usd:
        return f"money budget: {format_usd(spent.usd)} of {format_usd(stop.usd)} for training spent"
    return ""


def due_for_validation(plan: Plan, state: State) -> bool:
    """Whether the weights are to be validated after this step."""
    return state.step > 0 and (state.step % plan.evaluate_every == 0 or state.step == plan.stop.steps)


def _reached(value: float, stop: StopPlan) -> bool:
    return value >= stop.target if stop.higher_is_better else value <= stop.target
