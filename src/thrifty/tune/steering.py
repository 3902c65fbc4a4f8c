"""What a search is asked for while it works, told as it changes: to wait, to stop, to spend less.

Training looks for it between steps; a search looks between its trials, and so does the process that follows workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from thrifty.spec import Budget
from thrifty.spec.events import Emit, Lowered, Paused, WentOn
from thrifty.spec.steering import Ask, Steering

STOPPED = "stopped as asked"
# between trials no step is at hand
NO_STEP = 0


class Wheel:
    """What is asked for now.

    Attributes:
        budget: of the search, lower where less may be spent since.

    Args:
        steer: says what is asked for now.
        budget: of the search, as it was begun.
        emit: is told of each change that training has not told of.

    >>> wheel = Wheel(lambda: Steering.model_validate({"time": "20s"}), Budget(), print)
    >>> wheel.look(), wheel.budget.time
    Lowered(step=0, budget='20.0 s')
    ('go', 20.0)
    """

    def __init__(self, steer: Callable[[], Steering], budget: Budget, emit: Emit) -> None:
        self._steer, self._given, self._emit = steer, budget, emit
        self.budget, self._told = budget, ""
        self._waits_since: float | None = None

    def look(self) -> Ask:
        """Take up what may be spent, tell where a wait begins or ends, and return what is left to do."""
        asked = self._steer()
        self.budget = lowered(self._given, asked)
        if asked.says != self._told and self.budget != self._given:
            self._emit(Lowered(NO_STEP, asked.says))
        self._told = asked.says
        if asked.ask == "pause" and self._waits_since is None:
            self._waits_since = time.perf_counter()
            self._emit(Paused(NO_STEP))
        elif asked.ask != "pause" and self._waits_since is not None:
            waited_s, self._waits_since = time.perf_counter() - self._waits_since, None
            self._emit(WentOn(NO_STEP, waited_s))
        return asked.ask

    def heard(self, event: Lowered) -> None:
        """Training told of a lower budget already."""
        self._told = event.budget


def lowered(budget: Budget, asked: Steering) -> Budget:
    """Return a budget with the limits that are asked for, where they are lower.

    >>> lowered(Budget.model_validate({"time": "1h"}), Steering.model_validate({"time": "2h", "money": "1USD"}))
    Budget(memory=None, time=3600.0, energy=None, money=1.0)
    """
    limits = {"time": asked.time, "energy": asked.energy, "money": asked.money}
    lower = {
        name: limit
        for name, limit in limits.items()
        if limit is not None and (getattr(budget, name) is None or limit < getattr(budget, name))
    }
    return budget.model_copy(update=lower)
