"""`Waiting`: the requests that wait for one model, and which of their rows go into the next batch.

The oldest request is always in it, so none starves; what is taken beside it is of like length, since a batch is padded
to its longest row.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from thrifty.serve.spans import Trace

# Rows go together up to this ratio of their lengths; below the length, padding costs less than another batch.
LIKE = 1.5
SHORT = 16


@dataclass(eq=False)
class Task:
    """A request in the queue: its rows, how many are already computed, and whom to answer.

    Attributes:
        rows: to compute.
        deadline: `time.monotonic` after which the answer is worth nothing.
        future: of the answers.
        length: of its longest row; 0 where all rows are alike.
        queued_at: when it came.
        taken: rows that are computed or being computed.
        losses: workers that were lost while they computed rows of it.
        trace: to be told when it was computed; None where nobody wants to know.
    """

    rows: list[Any]
    deadline: float
    future: Future[list[Any]]
    length: int = 0
    queued_at: float = 0.0
    taken: int = 0
    losses: int = 0
    answers: list[Any] = field(default_factory=list)
    trace: Trace | None = None

    @property
    def left(self) -> int:
        """Rows not yet taken."""
        return len(self.rows) - self.taken

    def computed(self, begun: float, ended: float, *, rows: int, batch_rows: int) -> None:
        """Note in its trace that it waited until a batch of ``batch_rows`` began, ``rows`` of them its own."""
        if self.trace is not None:
            since = max((part.ended for part in self.trace.parts if part.name == "computing"), default=self.queued_at)
            self.trace.note("waiting", since, begun)
            self.trace.note("computing", begun, ended, batch_rows=batch_rows, rows=rows)


Part = tuple[Task, list[Any]]


class Waiting:
    """A queue of requests, oldest first; not for several threads at once.

    Attributes:
        rows: that wait.
    """

    def __init__(self) -> None:
        self._tasks: dict[Task, None] = {}
        self.rows = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Put a request at the end."""
        self._tasks[task] = None
        self.rows += task.left

    def drop(self, task: Task) -> None:
        """Take a request out, if it is still here."""
        if task in self._tasks:
            del self._tasks[task]
            self.rows -= task.left

    def all(self) -> list[Task]:
        """Every request, the oldest first."""
        return list(self._tasks)

    def take(self, room: int, now: float) -> tuple[list[Part], list[Task]]:
        """Take rows for a batch: of the oldest, then of those like it in length; and the requests that came too late.

        Args:
            room: rows at most.
            now: of the deadlines' clock.
        """
        expired = [task for task in self._tasks if now > task.deadline]
        for task in expired:
            self.drop(task)
        if not self._tasks:
            return [], expired
        oldest = next(iter(self._tasks))
        like = [task for task in self._tasks if _alike(task.length, oldest.length)]
        if oldest.length:
            like.sort(key=lambda task: (task is not oldest, abs(task.length - oldest.length)))
        batch: list[Part] = []
        for task in like:
            if not room:
                break
            rows = task.rows[task.taken : task.taken + room]
            task.taken += len(rows)
            self.rows -= len(rows)
            room -= len(rows)
            batch.append((task, rows))
            if not task.left:
                del self._tasks[task]
        return batch, expired


def _alike(one: int, other: int) -> bool:
    longest = max(one, other)
    return longest <= max(SHORT, LIKE * min(one, other))
