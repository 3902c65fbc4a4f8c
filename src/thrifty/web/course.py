"""How far a run came, by what its folder holds: figures, curves, what happened; what is not there is left out."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from thrifty.errors import ThriftyError
from thrifty.ledger import Entry
from thrifty.report.figures import curves, number, smooth
from thrifty.report.happened import happened, marks
from thrifty.report.rows import UNKNOWN, metric_name, metric_text, usd_text
from thrifty.report.words import Pair, figure_words, pair, sentences, words_of
from thrifty.runs import Following, RunFolder
from thrifty.spec import Budget, Device, Plan
from thrifty.spec.events import Evaluated, Event, Paused, StepDone, WentOn
from thrifty.spec.units import format_seconds
from thrifty.web.render import drawn
from thrifty.web.studies import counted, study_in

# steps that are kept of a long run: some more than curves are drawn with
_MOST_STEPS = 6_000
# of what happened, the last
_MOST_TOLD = 60
# the last steps, by which the time that is left is guessed
_RECENT = 50


class Tile(NamedTuple):
    """A figure, what it is of, and what belongs to it."""

    what: str
    figure: str
    more: str | Pair


class Course:
    """What a run said until now, as much of it as a page draws; threads may share one.

    Attributes:
        steps: taken; of a long run a part, in which of each stretch the least and the greatest loss are.
        looks: validations.
        others: all else.
        spent_s: seconds of all steps and validations.
        seen: events that were read.

    Args:
        following: its events.
    """

    def __init__(self, following: Following) -> None:
        self._following = following
        self._lock = threading.Lock()
        self._begin([])

    def _begin(self, source: list[Event]) -> None:
        self._source, self.seen, self.spent_s = source, 0, 0.0
        self.steps: list[StepDone] = []
        self.looks: list[Evaluated] = []
        self.others: list[Event] = []
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def read(self) -> None:
        """Take up what was said since."""
        with self._lock:
            self._following.read()
            source = self._following.events
            if source is not self._source:  # another course was begun, or steps are repeated
                self._begin(source)
            for event in source[self.seen :]:
                self._take(event)
            self.seen = len(source)

    @property
    def unread(self) -> int:
        """Lines that are no events."""
        return self._following.unread

    @property
    def step_s(self) -> float:
        """Seconds of a step, in the mean of the last; 0 before the first."""
        return math.fsum(self._recent) / len(self._recent) if self._recent else 0.0

    def _take(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.steps.append(event)
            self.spent_s += event.seconds
            self._recent.append(event.seconds)
            if len(self.steps) > _MOST_STEPS:
                self.steps = halved(self.steps)
        elif isinstance(event, Evaluated):
            self.looks.append(event)
            self.spent_s += event.seconds
        else:
            self.others.append(event)


def halved(steps: Sequence[StepDone]) -> list[StepDone]:
    """Keep about half of some steps: of each four those of the least and of the greatest loss; and the last four.

    >>> steps = [StepDone(n, 9, 0.0, loss, 1e-3, 1.0, 1.0, 1.0) for n, loss in enumerate((3, 9, 1, 2, 5, 6, 7, 8), 1)]
    >>> [step.step for step in halved(steps)]
    [2, 3, 5, 6, 7, 8]
    """
    kept: list[StepDone] = []
    for at in range(0, len(steps) - 4, 4):
        four = sorted(steps[at : at + 4], key=lambda step: step.loss)
        kept += sorted((four[0], four[-1]), key=lambda step: step.step)
    return [*kept, *steps[4 * max(0, math.ceil((len(steps) - 4) / 4)) :]]


def told_of(course: Course, folder: RunFolder, entry: Entry) -> dict[str, Any]:
    """Tell how a run goes, as its page draws it.

    Args:
        course: of the run.
        folder: its folder; it may hold nothing yet.
        entry: its line of the ledger.
    """
    steps, looks, others = list(course.steps), list(course.looks), list(course.others)
    plan, device = _found(folder, "plan", Plan), _found(folder, "device", Device)
    told = [{"says": line.says, "trouble": line.trouble} for line in happened(others)]
    under_way = entry.status == "running"
    says = _says(entry, plan, steps, others, searches=folder.searches)
    tiles = _searched(folder, entry) if folder.searches else _tiles(plan, device, course, under_way=under_way)
    figures = drawn(curves(plan, steps, looks, marks(others))) if plan is not None and (steps or looks) else []
    texts = [says, entry.status, *(tile.what for tile in tiles), *(tile.more for tile in tiles)]
    return {
        "status": entry.status,
        "seen": course.seen,
        "says": says,
        "paused": under_way and is_paused(others),
        "ask": folder.steering().ask if under_way else "go",
        "tiles": [tile._asdict() for tile in tiles],
        "done": number(steps[-1].step / steps[-1].steps) if steps and steps[-1].steps else 0,
        "figures": figures,
        "told": told[-_MOST_TOLD:],
        "left_out": max(0, len(told) - _MOST_TOLD),
        "unread": course.unread,
        "report": is_reported(folder, entry),
        "words": {
            **words_of([*texts, *(str(line["says"]) for line in told[-_MOST_TOLD:])]),
            **figure_words(figures, whole=True),
        },
    }


def is_reported(folder: RunFolder, entry: Entry) -> bool:
    """Whether the report of the run's end is written: that comes a moment after the ledger knows of it."""
    if not entry.finished or not folder.page.is_file():
        return False
    with contextlib.suppress(ValueError):  # a date that somebody's hand spoilt
        return folder.page.stat().st_mtime >= datetime.fromisoformat(entry.finished).timestamp()
    return True


def is_paused(events: Sequence[Event]) -> bool:
    """Whether training waits: it paused, and has not gone on."""
    return isinstance(next((e for e in reversed(events) if isinstance(e, Paused | WentOn)), None), Paused)


def _found(folder: RunFolder, name: str, kind: Any) -> Any:
    try:
        return folder.find(name, kind)
    except (ThriftyError, OSError):  # damaged: the rest is shown
        return None


def _says(
    entry: Entry, plan: Plan | None, steps: Sequence[StepDone], others: Sequence[Event], *, searches: bool
) -> str:
    """Where the run stands, in a sentence."""
    if entry.status == "interrupted":
        verb = "tune" if searches else "run"
        return f"Its process is gone. What was saved is whole: thrifty {verb} its job goes on from there."
    if entry.status != "running":
        return f"{entry.reason[:1].upper()}{entry.reason[1:]}"
    if is_paused(others):
        return "It waits. What was learned is saved; it goes on where it was."
    if searches:
        return "It searches."
    if steps:
        return "It trains."
    return "It is about to train." if plan is not None else "It prepares its data, and plans."


def _tiles(plan: Plan | None, device: Device | None, course: Course, *, under_way: bool) -> list[Tile]:
    if plan is None:
        return []
    steps, looks, spent_s = list(course.steps), list(course.looks), course.spent_s
    taken = steps[-1].step if steps else 0
    left_s = (plan.stop.steps - taken) * course.step_s if steps else plan.cost.seconds.value
    predicted = pair("predicted {due}", due=format_seconds(plan.cost.seconds.value))
    left: str | Pair = pair("{time} left at most;", time=format_seconds(left_s)) if under_way and left_s > 0 else ""
    even = smooth([step.loss for step in steps[-500:]], 20.0)
    name = plan.stop.metric
    best = next((look for look in reversed(looks) if look.best), None)
    value = best.metrics.get(name, math.nan) if best is not None else math.nan
    per_second = device.usd_per_hour.value / 3600 if device is not None else 0.0
    return [
        Tile(
            "Steps",
            f"{taken:,}",
            pair("of {all}; epoch {epoch}", all=f"{plan.stop.steps:,}", epoch=f"{steps[-1].epoch:.1f}")
            if steps
            else "not one yet",
        ),
        Tile(
            f"Validation {metric_name(name)}",
            metric_text(name, value) if math.isfinite(value) else UNKNOWN,
            pair("best, at step {step}", step=f"{best.step:,}")
            if best is not None
            else pair("loss {loss}", loss=f"{even[-1]:.3g}")
            if even
            else "not one yet",
        ),
        Tile("Training", format_seconds(spent_s), sentences([left, predicted])),
        Tile(
            "Money",
            usd_text(spent_s * per_second) if per_second else UNKNOWN,
            pair("of training; predicted {due}", due=usd_text(plan.cost.usd.value)),
        ),
    ]


def _searched(folder: RunFolder, entry: Entry) -> list[Tile]:
    """What a search took and may take, and its trials where its study lies beside it."""
    budget, total = _found(folder, "search", Budget) or Budget(), entry.total
    study = study_in(folder.folder)
    trials = study.trials if study is not None else ()
    best = study.best if study is not None else None
    return [
        Tile("Trials", f"{len(trials):,}", counted(trials)),
        Tile("Best so far", UNKNOWN if best is None else f"{best.value:.4g}", "of the validation split"),
        Tile("Time", format_seconds(total.wall_s), _of(budget.time, format_seconds)),
        Tile("Money", usd_text(total.usd), _of(budget.money, usd_text)),
    ]


def _of(limit: float | None, text: Callable[[float], str]) -> Pair | str:
    return "no limit" if limit is None else pair("of {limit}", limit=text(limit))
