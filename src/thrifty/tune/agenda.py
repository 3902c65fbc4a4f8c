"""What a search may do next, the most promising first, each piece of work with its price."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from thrifty.errors import BudgetError, JobError
from thrifty.spec import Plan
from thrifty.spec.tuning import Settings
from thrifty.train.checkpoint import learning_key
from thrifty.tune.forecast import expected_end, forecast
from thrifty.tune.ladder import Ladder, Standing, bracket_of, climbers
from thrifty.tune.pricing import Pricer, correction
from thrifty.tune.proposals import STARTUP, Known, propose
from thrifty.tune.record import Price, Record
from thrifty.tune.space import start_of
from thrifty.tune.task import Task

# proposals in a row that were tried before, after which the space is taken for exhausted
REPEATS = 20
# of the settings of the first configurations, those that stay as the search begins
KEPT_SHARE = 0.5
# configurations in a row whose settings do not go together, after which the space is
IMPOSSIBLE = 25


@dataclass(frozen=True)
class Part:
    """A piece of work: a trial, and how far it should go.

    Attributes:
        record: of a trial that waits; None for a new one.
        settings, plan, key: of it.
        bracket: level of the ladder that it goes to at once.
        until: step to train to.
        foreseen_s: seconds of its whole training by the plan alone.
        whole, price: of its whole training and of this part, set right by the trials before.
    """

    record: Record | None
    settings: Settings
    plan: Plan
    key: str
    bracket: int
    until: int
    foreseen_s: float
    whole: Price
    price: Price


class Agenda:
    """Tells what may be done next: trials that go on, then a new one.

    Args:
        task: the search.
        pricer: of configurations.
        data: content key of the prepared data.
        has: whether a trial, by its key and the step it came to, can be gone on with here.
        reject: is told of settings that do not go together, and why.
    """

    def __init__(
        self,
        task: Task,
        pricer: Pricer,
        data: str,
        *,
        has: Callable[[str, int], bool],
        reject: Callable[[Settings, str], None],
    ) -> None:
        self._task, self._pricer, self._data, self._has, self._reject = task, pricer, data, has, reject
        self._ladder, self._aim = Ladder(task.shares), task.aim

    def parts(self, records: Sequence[Record]) -> Iterator[Part]:
        """What may be done next, the most promising first.

        Raises:
            JobError: whatever is proposed, its settings do not go together.
        """
        by_number = {each.number: each for each in records}
        for number in climbers(self._task.pruner, self._standings(records), self._ladder.top):
            waiting = by_number[number]
            if self._has(waiting.said.key, waiting.said.step):
                yield self._next(waiting, records)
        fresh = list(self._new(records)) if len(counted(records)) < self._task.trials else []
        yield from fresh
        if not fresh and not any(each.status == "running" for each in records):
            yield from self._last(records)

    def _standings(self, records: Sequence[Record]) -> list[Standing]:
        found = []
        for each in counted(records):
            steps = self._ladder.steps(each.said.total)
            level = self._ladder.level_of(max(each.curve, default=0), each.said.total)
            values = (self._aim.goodness(each, steps[at]) for at in range(level + 1))
            # one without a figure there is the worst of all that came as far
            found.append(
                Standing(
                    each.number,
                    tuple(value if math.isfinite(value) else -math.inf for value in values),
                    each.said.bracket,
                    each.status == "paused",
                )
            )
        return found

    def _next(self, record: Record, records: Sequence[Record]) -> Part:
        """The next level of a trial that waits; of one that has not come to where it began for, that level."""
        plan = self._pricer.plan(record.settings, self._ladder)
        level = self._ladder.level_of(record.said.step, plan.stop.steps)
        target = min(max(level + 1, record.said.bracket), self._ladder.top)
        return self._part(record, record.settings, plan, target, records)

    def _part(
        self, record: Record | None, settings: Settings, plan: Plan, level: int, records: Sequence[Record]
    ) -> Part:
        total, done = plan.stop.steps, record.said.step if record else 0
        until = self._ladder.steps(total)[level]
        foreseen = self._pricer.price(settings, plan)
        whole = foreseen.part(correction(records, settings))
        return Part(
            record=record,
            settings=settings,
            plan=plan,
            key=learning_key(plan, self._data),
            bracket=record.said.bracket if record else level,
            until=until,
            foreseen_s=foreseen.seconds,
            whole=whole,
            price=whole.part((until - done) / total),
        )

    def _new(self, records: Sequence[Record]) -> Iterator[Part]:
        """A configuration that nobody tried; those whose settings do not go together are noted and passed over."""
        number, tried = len(records), {each.said.key for each in records}
        known, failures = self._known(records), 0
        for attempt in range(REPEATS + IMPOSSIBLE):
            settings = self._proposal(known, number, attempt)
            if settings is None:
                return
            try:
                plan = self._pricer.plan(settings, self._ladder)
            except (JobError, BudgetError) as error:
                failures += 1
                self._reject(settings, error.what)
                worst = min((each.goodness for each in known if each.goodness is not None), default=None)
                known.append(Known(settings, worst))
                if failures == IMPOSSIBLE:
                    raise JobError(
                        f"{IMPOSSIBLE} configurations in a row cannot be had, the last one {settings}: {error.what}",
                        mend="Narrow tune.space to settings that go together.",
                    ) from error
                continue
            if learning_key(plan, self._data) in tried:
                known.append(Known(settings, None))
                continue
            level = bracket_of(self._task.pruner, number, self._ladder.top)
            yield self._part(None, settings, plan, level, records)
            if level:
                # there may be the budget for the first level, and not for its bracket's
                yield self._part(None, settings, plan, 0, records)
            return

    def _proposal(self, known: Sequence[Known], number: int, attempt: int) -> Settings | None:
        if not number and not attempt:
            return start_of(self._task.space)
        # a sampler may propose again and again what was tried
        sampler = "random" if attempt > REPEATS // 2 and self._task.sampler != "grid" else self._task.sampler
        chance = random.Random(f"{self._task.seed} {number} {attempt}")
        settings = propose(self._task.space, known, sampler, seed=chance.getrandbits(31))
        if settings is None or number > STARTUP or self._task.sampler in {"random", "grid"}:
            return settings
        # where little is known, what the rules say is better than chance: half of the settings stay as they begin
        return {
            name: first if chance.random() < KEPT_SHARE else settings[name]
            for name, first in start_of(self._task.space).items()
        }

    def _known(self, records: Sequence[Record]) -> list[Known]:
        """What the sampler goes by: each configuration, with what it is expected to end at."""
        finished = ended(records)
        expected: dict[int, float | None] = {}
        for each in records:
            goodness = self._aim.goodness(each)
            if self._aim.goal == "best" and each.curve:
                end = expected_end(curve_of(each), finished, rises=self._aim.rises)
                goodness = end if self._aim.rises else -end
            expected[each.number] = None if math.isnan(goodness) else goodness
        worst = min((value for value in expected.values() if value is not None), default=None)
        return [
            Known(each.settings, worst if each.status in {"failed", "impossible"} else expected[each.number])
            for each in records
        ]

    def _last(self, records: Sequence[Record]) -> Iterator[Part]:
        """Once nothing else is left: of those that wait, the one that is expected to end best, if better than all."""
        if self._aim.goal == "cheapest":
            return
        best, finished = best_figure(records, self._task), ended(records)
        found: list[tuple[float, Record]] = []
        for each in records:
            if each.status == "paused" and each.curve and self._has(each.said.key, each.said.step):
                end = forecast(curve_of(each), finished, rises=self._aim.rises)
                if end is not None and self._aim.better(end.value, best):
                    found.append((end.value if self._aim.rises else -end.value, each))
        if found:
            yield self._next(max(found, key=lambda pair: pair[0])[1], records)


def counted(records: Sequence[Record]) -> list[Record]:
    """Trials that count: not those that could not be had, or that another has."""
    return [each for each in records if each.status not in {"impossible", "repeated"} and each.said.total]


def ended(records: Sequence[Record]) -> list[dict[float, float]]:
    """The curves of those that came to their end."""
    return [curve_of(each) for each in records if each.curve and max(each.curve) >= each.said.total > 0]


def curve_of(record: Record) -> dict[float, float]:
    """The figures of a trial by the share of its training."""
    return {step / record.said.total: value for step, value in record.curve.items()}


def best_figure(records: Sequence[Record], task: Task) -> float:
    """The best figure that any trial reached; ``nan`` where none has one."""
    best = math.nan
    for each in records:
        figure = task.aim.figure(each)
        if task.aim.better(figure, best):
            best = figure
    return best
