"""The search as one worker carries it out: the first piece of work that the budget holds is done, and told to the rest.

Workers know of each other through the study alone: each piece of work is taken in it before it is begun.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence

from thrifty.data import Store
from thrifty.errors import BudgetError, BusyError, DivergedError, SignalledError, ThriftyError
from thrifty.files import hold
from thrifty.spec import Spent
from thrifty.spec.events import Emit, Event, Lowered, Tried, WentOn
from thrifty.spec.steering import Ask
from thrifty.spec.tuning import Settings, Status
from thrifty.train.steering import LOOK_SECONDS, Steer, undisturbed
from thrifty.tune.agenda import Agenda, Part, best_figure, counted, curve_of, ended
from thrifty.tune.best import BestBundle
from thrifty.tune.forecast import can_beat, forecast
from thrifty.tune.pricing import Pricer
from thrifty.tune.purse import Purse
from thrifty.tune.record import Price, Record, Said
from thrifty.tune.steering import STOPPED, Wheel
from thrifty.tune.storage import Study
from thrifty.tune.task import Task
from thrifty.tune.told import trial_of
from thrifty.tune.trial import Hopeless, Runner

# a worker without work looks again after so long
IDLE_SECONDS = 0.5


class Worker:
    """Takes part in a search until nothing is left to do.

    Args:
        task: the search.
        study: its trials.
        store: prepared data.
        pricer: of configurations.
        spent: what the search took until now, as the loop asks it.
        emit: is told what happens.
        steer: says what the search is asked for: to wait, to stop, to spend less.
    """

    def __init__(
        self,
        task: Task,
        study: Study,
        store: Store,
        pricer: Pricer,
        *,
        spent: Callable[[], Spent],
        emit: Emit,
        steer: Steer = undisturbed,
    ) -> None:
        self._task, self._study, self._aim, self._emit = task, study, task.aim, emit
        self._waited_s, self._wheel = 0.0, Wheel(steer, task.budget, self._hear)
        self._purse = Purse(task.budget, lambda: _price_of(spent()))
        self._runner = Runner(store, task.folder, self._purse.limits(), spent, self._hear, steer)
        self._best = BestBundle(task, store)
        self._agenda = Agenda(task, pricer, store.dataset.key, has=self._runner.has, reject=self._reject)

    def work(self) -> str:
        """Carry the search on; returns why there is nothing more to do.

        Raises:
            BudgetError: not the least part of any trial fits the budget.
            JobError: settings of the space do not go together, whichever are tried.
            SignalledError: a signal asked for the end; the trial at work is saved.
            StorageError: the study's database does not come back.
        """
        while True:
            if self._follow() == "stop":
                return STOPPED
            records = self._study.records()
            if lost := self._study.reclaim(records):
                for each in lost:
                    self._tell(each)
                records = self._study.records()
            if self._aim.is_perfect(best := best_figure(records, self._task)):
                return f"nothing is left to gain: {self._aim.metric} {best:g}"
            dear: Part | None = None
            for part in self._agenda.parts(records):
                if self._purse.holds(part.price, _promised(records)):
                    self._do(part, records)
                    break
                dear = dear or part
            else:
                if any(each.status == "running" for each in records):
                    time.sleep(IDLE_SECONDS)
                elif dear is not None:
                    return self._too_dear(dear, records)
                else:
                    return self._exhausted(records)

    def _follow(self) -> Ask:
        """Take up what is asked for; wait as long as that is asked, and return what is left to do."""
        while (ask := self._wheel.look()) == "pause":
            time.sleep(LOOK_SECONDS)
        if self._purse.budget != self._wheel.budget:
            self._purse = Purse(self._wheel.budget, self._purse.spent)
            self._runner.limits = self._purse.limits()
        return ask

    def _hear(self, event: Event) -> None:
        """Pass on what a part of a trial or the wheel tells."""
        if isinstance(event, WentOn):
            self._waited_s += event.seconds
        elif isinstance(event, Lowered):
            self._wheel.heard(event)
        self._emit(event)

    def _working_s(self) -> float:
        """A clock that stands still while the search waits."""
        return time.perf_counter() - self._waited_s

    def _do(self, part: Part, records: Sequence[Record]) -> None:
        """Carry out a piece of work, unless another worker has it."""
        record = self._take(part)
        if record is None:
            return
        self._tell(record)
        began = self._working_s()
        status: Status = "paused"
        says, curve, step = "", {}, record.said.step
        before = max((good for each in records if not math.isnan(good := self._aim.goodness(each))), default=-math.inf)

        def look(at: int, value: float) -> None:
            curve[at] = value
            if math.isfinite(value):
                self._study.note(record, at, value)
            self._judge(record, {**record.curve, **curve}, records, part)

        try:
            with hold(self._runner.folder_of(part.key), "trial"), self._study.beating(record):
                ran = self._runner.run(record.number, part.plan, part.key, part.until, look)
                step, says = ran.trained.steps, ran.trained.reason
                now = record.model_copy(update={"curve": {**record.curve, **curve}})
                if step >= part.plan.stop.steps or ran.trained.gave_up or self._aim.has_reached(now):
                    status = "done"
                goodness = self._aim.goodness(now)
                if goodness > before:
                    self._best.keep(ran.model, part.plan, now, goodness, spent=self._runner.spent())
        except Hopeless as why:
            status, says, step = "pruned", str(why), max(curve)
        except DivergedError as error:
            status, says = "failed", error.what
        except BudgetError as error:
            if self._purse.holds(Price()):
                # memory, and not that the search's own budget ran out before a first step
                status, says = "failed", error.what
        except BusyError:
            # a worker that lost touch with the database lives on, and is at it
            self._study.leave(record, "paused")
            time.sleep(IDLE_SECONDS)
            return
        except SignalledError as error:
            self._note(record, part, "paused", curve, max(curve, default=step), error.what, self._working_s() - began)
            kept = f"trial {record.number + 1} and those before it are kept"
            raise SignalledError(kept, signal=error.signal, number=error.number) from None
        except BaseException as error:
            strange = isinstance(error, Exception) and not isinstance(error, ThriftyError)
            if not strange or not any(each.curve for each in records):
                # where the last whole part of it ended there is a checkpoint
                self._note(record, part, "paused", {}, record.said.step, "", self._working_s() - began)
                raise
            # others learned: it is these settings that the model or the data break on
            status, says = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        left = self._note(record, part, status, curve, step, says, self._working_s() - began)
        if status != "paused":
            shutil.rmtree(self._runner.folder_of(part.key), ignore_errors=True)
        self._tell(left, best=self._aim.goodness(left) > before)

    def _take(self, part: Part) -> Record | None:
        """Make a trial this worker's own; None where another was first."""
        if part.record is not None:
            before = part.record.said
            return self._study.claim(part.record, before.model_copy(update={"under_way": part.price}))
        said = Said(
            key=part.key,
            bracket=part.bracket,
            total=part.plan.stop.steps,
            per_epoch=part.plan.optim.steps_per_epoch,
            foreseen_s=part.foreseen_s,
            priced=part.whole,
            under_way=part.price,
        )
        mine = self._study.begin(part.settings, self._task.space, said)
        twins = [
            each
            for each in self._study.records()
            if each.said.key == part.key and each.number < mine.number and each.status != "impossible"
        ]
        if twins:
            self._study.leave(_saying(mine, f"as trial {twins[0].number + 1}"), "repeated")
            return None
        return mine

    def _judge(self, record: Record, curve: dict[int, float], records: Sequence[Record], part: Part) -> None:
        """Look at a trial after a validation.

        Raises:
            Hopeless: what it is expected to end at cannot win.
        """
        now = record.model_copy(update={"curve": curve})
        others = [each for each in records if each.number != record.number]
        if self._aim.goal == "cheapest":
            best = min((self._aim.seconds_to_target(each) for each in others), default=math.inf)
            so_far = part.whole.seconds * max(curve) / part.plan.stop.steps
            if so_far > best and self._aim.reached_at(now) is None:
                raise Hopeless("reaching the target would cost more than the cheapest so far")
            return
        if self._task.pruner == "none" or max(curve) >= record.said.total:
            return
        best = best_figure(others, self._task)
        # one that is the best so far has won already
        if math.isnan(best) or self._aim.better(self._aim.figure(now), best):
            return
        end = forecast(curve_of(now), ended(others), rises=self._aim.rises)
        if end is not None and not can_beat(best, end, rises=self._aim.rises):
            likely = end.high if self._aim.rises else end.low
            raise Hopeless(f"expected to end at {end.value:.4g}, at best {likely:.4g}; the best is {best:.4g}")

    def _reject(self, settings: Settings, says: str) -> None:
        record = self._study.begin(settings, self._task.space, Said(key="", says=says))
        self._tell(self._study.leave(record, "impossible"))

    def _note(
        self, record: Record, part: Part, status: Status, curve: dict[int, float], step: int, says: str, took_s: float
    ) -> Record:
        """Write what came of a piece of work, its bill with it."""
        # a worker's device has its part of the machine's power and price
        device = self._task.device
        usd = device.usd_per_hour.value / 3600 * took_s
        took = Price(seconds=took_s, joules=device.watts(1.0) * took_s, usd=usd)
        said = record.said.model_copy(update={"step": step, "says": says, "spent": record.said.spent.plus(took)})
        noted = self._study.say(record, said, {at: value for at, value in curve.items() if math.isfinite(value)})
        return self._study.leave(noted, status, self._aim.figure(noted) if status == "done" else None)

    def _tell(self, record: Record, *, best: bool = False) -> None:
        self._emit(Tried(trial_of(record, self._aim), self._aim.metric, best))

    def _too_dear(self, part: Part, records: Sequence[Record]) -> str:
        """Why nothing more is begun; where nothing ever was, an error.

        Raises:
            BudgetError: no trial came to a first validation.
        """
        left = self._purse.says(part.price)
        if not any(each.curve for each in records):
            raise BudgetError(
                f"the budget is smaller than a trial: {left}, for {part.until:,} of its {part.plan.stop.steps:,} steps",
                mend="Raise --budget, or lower train.epochs.",
            )
        return f"budget: {left}"

    def _exhausted(self, records: Sequence[Record]) -> str:
        differ = len(counted(records))
        if differ >= self._task.trials:
            return f"all {self._task.trials} trials done"
        return f"the space is exhausted: {differ} configurations of it differ"


def _promised(records: Sequence[Record]) -> Price:
    """What others that are at work now were priced, of what all share: time passes for everybody alike."""
    promised = Price()
    for each in records:
        if each.status == "running":
            promised = promised.plus(each.said.under_way.model_copy(update={"seconds": 0.0}))
    return promised


def _saying(record: Record, says: str) -> Record:
    return record.model_copy(update={"said": record.said.model_copy(update={"says": says})})


def _price_of(spent: Spent) -> Price:
    return Price(seconds=spent.wall_s, joules=spent.joules, usd=spent.usd)
