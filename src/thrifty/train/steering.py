"""What a run is asked for while it trains, looked at between steps: to wait, to stop, to spend less."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from thrifty.spec.events import Emit, Lowered, Paused, WentOn
from thrifty.spec.plan import StopPlan
from thrifty.spec.steering import ASKS, Ask, Steering
from thrifty.train.ranks import ALONE, World
from thrifty.train.signals import Asked

# how often it is looked at, between steps and while training waits
LOOK_SECONDS = 0.2

Steer = Callable[[], Steering]


def undisturbed() -> Steering:
    """Ask for nothing."""
    return Steering()


class Helm:
    """What is asked for, the same on every rank.

    Attributes:
        stop: when training ends: as planned, or earlier where less may be spent since.

    Args:
        steer: says what is asked for now; of several ranks the first one's counts.
        stop: when training ends as planned.
        world: the ranks, all of which look at the same place of their work.

    >>> from thrifty.spec import StopPlan
    >>> limits = {"patience": 0, "seconds": 60, "joules": 9, "usd": 9}
    >>> stop = StopPlan(steps=9, metric="loss", higher_is_better=False, target=0, **limits)
    >>> helm = Helm(lambda: Steering.model_validate({"ask": "pause", "time": "20s"}), stop)
    >>> helm.follow(3, print), helm.stop.seconds
    Lowered(step=3, budget='20.0 s')
    ('pause', 20.0)
    """

    def __init__(self, steer: Steer, stop: StopPlan, world: World = ALONE) -> None:
        self._steer, self._world = steer, world
        self._planned = self.stop = stop
        self._now = self._followed = Steering()
        self._looked_at = -math.inf

    def follow(self, step: int, emit: Emit) -> Ask:
        """Look at what is asked for and take up its limits, of which lower ones are told; return what is left to do."""
        asked = self._look()
        if asked is not self._followed:
            self._followed, before = asked, self.stop
            limits = {name: min(limit, getattr(self._planned, name)) for name, limit in asked.limits.items()}
            self.stop = self._planned.model_copy(update=limits)
            if self.stop != before and asked.says:
                emit(Lowered(step, asked.says))
        return asked.ask

    def wait(self, step: int, asked: Asked, emit: Emit) -> None:
        """Wait until something else is asked for, or a signal asks for the end; both ends are told."""
        emit(Paused(step))
        began = time.perf_counter()
        while self._look().ask == "pause":
            asked.agree()
            if asked.signal is not None:
                break
            time.sleep(LOOK_SECONDS)
        emit(WentOn(step, time.perf_counter() - began))

    def _look(self) -> Steering:
        if self._steer is undisturbed:
            return self._now
        if self._world.first and time.perf_counter() - self._looked_at >= LOOK_SECONDS:
            found, self._looked_at = self._steer(), time.perf_counter()
            self._now = found if found != self._now else self._now
        if self._world.size > 1:
            shared = _steering(self._world.gather(*_numbers(self._now))[0])
            self._now = shared if shared != self._now else self._now
        return self._now


def _numbers(asked: Steering) -> tuple[float, ...]:
    limits = asked.limits
    return (ASKS.index(asked.ask), *(limits.get(name, math.inf) for name in ("seconds", "joules", "usd")))


def _steering(numbers: tuple[float, ...]) -> Steering:
    limits = (limit if math.isfinite(limit) else None for limit in numbers[1:])
    time_s, joules, usd = limits
    return Steering.model_construct(ask=ASKS[int(numbers[0])], time=time_s, energy=joules, money=usd)
