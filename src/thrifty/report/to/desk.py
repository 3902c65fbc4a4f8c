"""A thread for each writer: events wait in a queue, and a writer that fails or hangs holds up nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from thrifty.spec.events import Emit, Ended, Evaluated, Event, Planned, StepDone, Warned

# steps that may wait for a slow writer; those beyond are left out, and counted
MOST_WAITING = 20_000
# that the end of a run waits for what is still to be written
CLOSING_SECONDS = 60.0
HEARD = StepDone | Evaluated | Planned | Ended


class Last(NamedTuple):
    """The last step that was told, and the step of the last validation; 0 for none."""

    step: int = 0
    validation: int = 0


class Writer(Protocol):
    """Tells others of a run; all of its calls come from one thread, after each other.

    Opened by a function of a `Place`; what it raises ends it, and nothing else.
    """

    def last(self) -> Last:
        """Return what an earlier attempt told last; what would be told again up to there is left out."""

    def tell(self, event: Event) -> None:
        """Tell one event: `StepDone` and `Evaluated` after `last`, `Planned`, `Ended`."""

    def flush(self) -> None:
        """Have what was told so far outlive the process."""

    def close(self) -> None:
        """End; the last call."""


class Writers:
    """An ``emit`` to several writers, that is also given whom to warn.

    Args:
        opened: what opens each, by name; called in its thread, with the first event.
    """

    def __init__(self, opened: Mapping[str, Callable[[], Writer]]) -> None:
        self._desks = [_Desk(name, each) for name, each in opened.items()]

    def __call__(self, event: Event, warn: Emit) -> None:
        """Hand an event to each writer's thread, and warn of those that have failed since."""
        for desk in self._desks:
            if isinstance(event, HEARD):
                desk.put(event)
            desk.warn(warn)

    def close(self, warn: Emit, seconds: float = CLOSING_SECONDS) -> None:
        """Have all that waits written, within so many seconds, and warn of what was not."""
        for desk in self._desks:
            desk.finish()
        for desk in self._desks:
            desk.wait(seconds)
            desk.warn(warn)


class _Desk:
    def __init__(self, name: str, opened: Callable[[], Writer]) -> None:
        self._name, self._opened = name, opened
        self._waiting: queue.Queue[Event | None] = queue.Queue()
        self._failed, self._told, self._left_out = "", False, 0
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        if self._failed:
            return
        if isinstance(event, StepDone) and self._waiting.qsize() >= MOST_WAITING:
            self._left_out += 1
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"report to {self._name}", daemon=True)
            self._thread.start()
        self._waiting.put(event)

    def finish(self) -> None:
        self._waiting.put(None)

    def wait(self, seconds: float) -> None:
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive() and not self._failed:
            self._failed = f"it did not take what it was told within {seconds:g} s; the rest is lost to it"
        elif self._left_out and not self._failed:
            self._failed = f"it was too slow for {self._left_out:,} steps, which it lacks"

    def warn(self, warn: Emit) -> None:
        if self._failed and not self._told:
            self._told = True
            warn(Warned(f"reporting to {self._name}: {self._failed}; the run goes on, its own files have all of it"))

    def _work(self) -> None:
        try:
            self._write()
        except Exception as error:  # whatever a package of others raises must not end the run
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._failed = f"it failed and is told no more ({said})"

    def _write(self) -> None:
        writer = self._opened()
        try:
            last = writer.last()
            while (event := self._waiting.get()) is not None:
                if not _told_before(event, last):
                    writer.tell(event)
                if self._waiting.empty():
                    writer.flush()
        finally:
            writer.close()


def _told_before(event: Event, last: Last) -> bool:
    match event:
        case StepDone(step):
            return step <= last.step
        case Evaluated(step):
            return step <= last.validation
        case _:
            return False
