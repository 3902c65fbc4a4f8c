"""A writer that fails, hangs or is slow is warned of once, and neither ends a run nor holds it up."""

from __future__ import annotations

import threading
import time

import pytest
from told_runs import ENDED, step, steps

from thrifty.report.to.desk import Last, Writer, Writers
from thrifty.spec.events import Ended, Event, StageStarted, StepDone, Warned


class Kept:
    """Keeps what it is told."""

    def __init__(self, last: Last = Last()) -> None:  # noqa: B008 - a tuple
        self.told: list[Event] = []
        self.before, self.flushed, self.closed = last, 0, 0

    def last(self) -> Last:
        return self.before

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    def tell(self, event: Event) -> None:
        super().tell(event)
        if len(self.told) == 3:
            raise OSError("no route to host")


class Hanging(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def tell(self, event: Event) -> None:
        self.go.wait()


def told(writer: Writer, events: list[Event], seconds: float = 240.0) -> tuple[list[str], float]:
    warned: list[Event] = []
    writers, began = Writers({"mlflow": lambda: writer}), time.perf_counter()
    for event in events:
        writers(event, warned.append)
    took = time.perf_counter() - began
    writers.close(warned.append, seconds)
    assert all(isinstance(event, Warned) for event in warned)
    return [event.message for event in warned if isinstance(event, Warned)], took


def test_what_writers_hear_comes_in_its_order() -> None:
    kept, events = Kept(), [*steps(1, 20), ENDED]
    warned, _ = told(kept, [StageStarted("train"), *events])
    assert kept.told == events and warned == [] and kept.closed == 1


def test_what_was_told_before_is_not_told_again() -> None:
    kept = Kept(Last(step=15, validation=10))
    told(kept, [*steps(9, 20), ENDED])
    assert [event.step for event in kept.told if isinstance(event, StepDone)] == [16, 17, 18, 19, 20]
    assert [type(event).__name__ for event in kept.told].count("Evaluated") == 1
    assert isinstance(kept.told[-1], Ended)


def test_one_that_fails_is_warned_of_once() -> None:
    failing = Failing()
    warned, _ = told(failing, [step(number) for number in range(1, 500)])
    assert len(warned) == 1
    assert "reporting to mlflow: it failed and is told no more (OSError: no route to host)" in warned[0]
    assert failing.closed == 1


def test_one_that_cannot_be_opened_is_warned_of() -> None:
    def refuse() -> Writer:
        raise PermissionError("read-only")

    warned: list[Event] = []
    writers = Writers({"wandb": refuse})
    writers(step(1), warned.append)
    writers.close(warned.append)
    (only,) = warned
    assert isinstance(only, Warned) and "reporting to wandb" in only.message and "read-only" in only.message


def test_one_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.report.to.desk.MOST_WAITING", 50)
    hanging = Hanging()
    warned, took = told(hanging, [step(number) for number in range(1, 300)], seconds=0.2)
    assert took < 5 and len(warned) == 1 and "did not take what it was told within 0.2 s" in warned[0]
    hanging.go.set()


def test_a_slow_one_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.report.to.desk.MOST_WAITING", 50)
    slow = Hanging()
    threading.Timer(0.3, slow.go.set).start()
    warned, _ = told(slow, [step(number) for number in range(1, 300)])
    assert len(warned) == 1 and "too slow for" in warned[0] and "steps, which it lacks" in warned[0]


def test_nothing_told_needs_no_thread() -> None:
    before = threading.active_count()
    writers = Writers({"wandb": Kept})
    writers(StageStarted("train"), lambda event: None)
    writers.close(lambda event: None)
    assert threading.active_count() == before
