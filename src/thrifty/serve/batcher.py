"""`Batcher`: one thread that owns one model and computes the rows that wait; it never waits for more of them.

A request is a list of rows (images or prompts). Rows are counted, not requests: a request of many rows is computed in
several batches, and between them it is looked at again whether anyone still wants it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from thrifty.errors import RequestError

logger = logging.getLogger("thrifty.serve")

Compute = Callable[[list[Any]], Sequence[Any]]

FULL = "The batch scheduling queue to which this task was submitted is full"  # TensorFlow Serving's own words


class OverloadError(RequestError):
    """The queue is full, or would not be worked off within the deadline; ``retry_after_s`` says when it may be."""

    def __init__(self, what: str, *, retry_after_s: float) -> None:
        super().__init__(what, status=503)
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class _Task:
    """A request in the queue: its rows, how many are already computed, and whom to answer."""

    rows: list[Any]
    deadline: float
    future: Future[list[Any]]
    taken: int = 0
    queued: bool = True
    answers: list[Any] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.rows) - self.taken


class Batcher:
    """Answers requests on one model, in the order they came.

    When the worker is idle a request is computed at once, alone; while it computes, others gather and are taken
    together. So a batch grows with the load and no request waits for company.

    Args:
        compute: rows to as many answers, in order; called by the worker thread alone.
        name: of the model, for logs.
        batch_rows: computed at once, at most.
        queue_rows: waiting, at most.
        hung_after_seconds: a single batch that takes longer makes the worker count as hung.
        on_batch: told the rows and the seconds of every batch.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        name: str,
        batch_rows: int,
        queue_rows: int,
        hung_after_seconds: float = 30.0,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._compute, self._name, self._on_batch = compute, name, on_batch
        self._batch_rows, self._queue_rows, self._hung_after = batch_rows, queue_rows, hung_after_seconds
        self._queue: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closing = self._dead = False
        self._busy_since = 0.0
        self._thread = threading.Thread(target=self._work, name=f"thrifty-{name}", daemon=True)

    def start(self) -> None:
        """Start the worker; a second call does nothing."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, without those being computed."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether not one more row would be taken."""
        return self._waiting >= self._queue_rows

    @property
    def healthy(self) -> bool:
        """Whether the worker lives and is not stuck in a batch."""
        busy = self._busy_since
        return not self._dead and not (busy and time.monotonic() - busy > self._hung_after)

    def submit(self, rows: Sequence[Any], *, deadline: float) -> Future[list[Any]]:
        """Queue a request from any thread; its future holds an answer for each row, or a `RequestError`.

        Cancel the future when nobody wants the answer any more: rows not yet computed leave the queue at once.

        Args:
            rows: at least one.
            deadline: `time.monotonic` after which the answer is worth nothing and is not computed.

        Raises:
            RequestError: 503, the queue is full, or the worker is gone.
        """
        task = _Task(list(rows), deadline, Future())
        with self._changed:
            if self._closing or self._dead:
                raise RequestError("The server is shutting down" if self._closing else self._gone(), status=503)
            if self._waiting + len(task.rows) > self._queue_rows:
                raise RequestError(FULL, status=503)
            self._queue.append(task)
            self._waiting += len(task.rows)
            self._changed.notify()
        task.future.add_done_callback(lambda _: self._forget(task))
        return task.future

    def close(self, seconds: float) -> None:
        """Take no more, answer what waits for at most this long, then refuse the rest with 503."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._refuse_all("The server is shutting down")

    def _gone(self) -> str:
        return f"The worker of model '{self._name}' is gone; restart the server"

    def _work(self) -> None:
        batch: list[tuple[_Task, list[Any]]] = []
        try:
            while batch := self._take():
                self._busy_since = time.monotonic()
                self._answer(batch)
                self._on_batch(sum(len(rows) for _, rows in batch), time.monotonic() - self._busy_since)
                self._busy_since = 0.0
        except BaseException:
            logger.exception("the worker of model '%s' died", self._name)
        finally:
            self._dead = True
            for task, _ in batch:
                _fail(task, RequestError(self._gone(), status=503))
            self._refuse_all(self._gone())

    def _take(self) -> list[tuple[_Task, list[Any]]]:
        """Wait for a request, then take all that wait up to the bound; empty once closed and drained."""
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return []
                batch, expired = self._gather()
            for task in expired:
                _fail(task, RequestError("Deadline exceeded before the request was computed", status=504))
            if batch:
                return batch

    def _gather(self) -> tuple[list[tuple[_Task, list[Any]]], list[_Task]]:
        """Rows from the head of the queue, as many as fit a batch; and the requests that came too late for it."""
        batch: list[tuple[_Task, list[Any]]] = []
        expired: list[_Task] = []
        room, now = self._batch_rows, time.monotonic()
        while room and self._queue:
            task = self._queue[0]
            if now > task.deadline:
                self._drop(task)
                expired.append(task)
                continue
            rows = task.rows[task.taken : task.taken + room]
            task.taken += len(rows)
            self._waiting -= len(rows)
            room -= len(rows)
            batch.append((task, rows))
            if not task.left:
                self._drop(task)
        return batch, expired

    def _answer(self, batch: list[tuple[_Task, list[Any]]]) -> None:
        rows = [row for _, part in batch for row in part]
        try:
            answers = self._checked(rows)
        except Exception as error:
            if len(batch) > 1:  # one of them may be at fault: each gets another chance without the others
                for each in batch:
                    self._answer([each])
                return
            if isinstance(error, RequestError):  # the model's own word on a request that it cannot answer
                _fail(batch[0][0], error)
            else:
                logger.exception("model '%s' failed on %d rows", self._name, len(rows))
                _fail(batch[0][0], RequestError(f"The model failed: {type(error).__name__}", status=500))
            return
        start = 0
        for task, part in batch:
            task.answers += answers[start : start + len(part)]
            start += len(part)
            if len(task.answers) == len(task.rows):
                _resolve(task)

    def _checked(self, rows: list[Any]) -> list[Any]:
        answers = list(self._compute(rows))
        if len(answers) != len(rows):
            raise RuntimeError(f"{len(answers)} answers for {len(rows)} rows")
        return answers

    def _forget(self, task: _Task) -> None:
        """Take a request out of the queue that was answered, failed or given up before all of it was computed."""
        with self._changed:
            if task.queued:
                self._drop(task)

    def _drop(self, task: _Task) -> None:
        self._queue.remove(task)
        task.queued = False
        self._waiting -= task.left

    def _refuse_all(self, why: str) -> None:
        with self._changed:
            left = list(self._queue)
        for task in left:
            _fail(task, RequestError(why, status=503))


def _resolve(task: _Task) -> None:
    try:
        task.future.set_result(task.answers)
    except InvalidStateError:  # its client left while it was computed
        return


def _fail(task: _Task, error: RequestError) -> None:
    try:
        task.future.set_exception(error)
    except InvalidStateError:
        return
