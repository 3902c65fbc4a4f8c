"""What is left of a search's budget, and whether a piece of work fits into it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from thrifty.spec import Budget
from thrifty.spec.units import format_joules, format_seconds, format_usd
from thrifty.tune.record import Price


@dataclass(frozen=True)
class Purse:
    """A budget and what was spent of it.

    Attributes:
        budget: of the whole search.
        spent: what the search took until now, earlier attempts included.
    """

    budget: Budget
    spent: Callable[[], Price]

    def left(self, promised: Price | None = None) -> Price:
        """What is left, less what others that are at work were promised; ``inf`` of what is not limited."""
        spent, promised = self.spent(), promised or Price()
        return Price(
            seconds=_less(self.budget.time, spent.seconds),
            joules=_less(self.budget.energy, spent.joules + promised.joules),
            usd=_less(self.budget.money, spent.usd + promised.usd),
        )

    def holds(self, price: Price, promised: Price | None = None) -> bool:
        """Whether something of this price fits into what is left."""
        left = self.left(promised)
        return price.seconds <= left.seconds and price.joules <= left.joules and price.usd <= left.usd

    def says(self, price: Price | None = None) -> str:
        """What is left of the budget and, if given, what a price is, in the units of its limits."""
        left, budget = self.left(), self.budget
        shown = [
            (budget.time, left.seconds, price.seconds if price else 0.0, format_seconds),
            (budget.energy, left.joules, price.joules if price else 0.0, format_joules),
            (budget.money, left.usd, price.usd if price else 0.0, format_usd),
        ]
        parts = [
            f"{words(max(rest, 0.0))} left" + (f", the next trial is priced {words(asked)}" if price else "")
            for limit, rest, asked, words in shown
            if limit is not None
        ]
        return "; ".join(parts) or "no limit"

    def limits(self) -> dict[str, float]:
        """The budget's limits, as a `thrifty.spec.plan.StopPlan` has them."""
        return {
            "seconds": self.budget.time or math.inf,
            "joules": self.budget.energy or math.inf,
            "usd": self.budget.money or math.inf,
        }


def _less(limit: float | None, spent: float) -> float:
    return math.inf if limit is None else limit - spent
