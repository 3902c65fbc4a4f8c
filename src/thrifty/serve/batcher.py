"""`Batcher`: one thread that has one model's rows computed; it never waits for more of them.

A request is a list of rows (images or prompts). Rows are counted, not requests: a request of many rows is computed in
several batches, and between them it is looked at again whether anyone still wants it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.curve import Curve, length_of
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.spans import TRACE
from thrifty.serve.waiting import Part, Task, Waiting

logger = logging.getLogger("thrifty.serve")

Compute = Callable[[list[Any]], Sequence[Any]]

FULL = "The batch scheduling queue to which this task was submitted is full"  # TensorFlow Serving's own words
_RETRY_SECONDS = 0.5  # between probes of a worker that is lost


class OverloadError(RequestError):
    """The queue is full, or would not be worked off within the deadline; ``retry_after_s`` says when it may be."""

    def __init__(self, what: str, *, retry_after_s: float) -> None:
        super().__init__(what, status=503)
        self.retry_after_s = retry_after_s


class Batcher:
    """Answers requests on one model, the oldest first.

    When the worker is idle a request is computed at once, alone; while it computes, others gather and are taken
    together. So a batch grows with the load and no request waits for company. What fails is told apart from its
    neighbours: each gets another chance alone; who was there when a second worker was lost is at fault.

    Args:
        compute: rows to as many answers, in order; called by one thread alone.
        name: of the model, for logs.
        batch_rows: computed at once, at most.
        queue_rows: waiting, at most.
        deadline_seconds: a request that would wait longer is refused when it comes.
        hung_after_seconds: a single batch that takes longer makes the worker count as hung.
        curve: of this model's batches; measured when nothing waits, if it is not known.
        probe: a row that a model which answers nothing else is asked now and then; None to never ask.
        typical: a row to measure with.
        probe_seconds: between such questions.
        on_batch: told the rows and the seconds of every batch, and those that its oldest request had waited.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        name: str,
        batch_rows: int,
        queue_rows: int,
        deadline_seconds: float = 30.0,
        hung_after_seconds: float = 30.0,
        curve: Curve | None = None,
        probe: Callable[[], Any] | None = None,
        typical: Callable[[], Any] | None = None,
        probe_seconds: float = 10.0,
        on_batch: Callable[[int, float, float], None] = lambda rows, seconds, waited: None,
    ) -> None:
        self._compute, self._name, self._on_batch = compute, name, on_batch
        self._queue_rows, self._deadline, self._hung_after = queue_rows, deadline_seconds, hung_after_seconds
        self.curve = curve or Curve(batch_rows, deadline_seconds)
        self._measures = curve is not None and typical is not None
        self._probe, self._typical, self._probe_seconds = probe, typical, probe_seconds
        self._queue = Waiting()
        self._changed = threading.Condition()
        self._closing = False
        self._failing = ""
        self._busy_since, self._busy_rows = 0.0, 0
        self._answered_at = -math.inf
        self._thread = threading.Thread(target=self._work, name=f"thrifty-{name}", daemon=True)

    def start(self) -> None:
        """Start the worker; a second call does nothing."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, without those being computed."""
        return self._queue.rows

    @property
    def measured(self) -> bool:
        """Whether nothing is left to measure."""
        return self.curve.done or not self._measures

    @property
    def healthy(self) -> bool:
        """Whether the last that was asked of the worker was answered, and it is not stuck in a batch."""
        busy = self._busy_since
        return not self._failing and not (busy and time.monotonic() - busy > self._hung_after)

    def check_load(self, rows: int = 1) -> None:
        """Refuse rows that the queue has no room for, or that would not be computed within the deadline.

        Raises:
            OverloadError: 503, with the seconds after which it is worth asking again.
        """
        wait = self.wait_seconds(rows)
        if self._queue.rows + rows > self._queue_rows or wait > self._deadline:
            # half of the queue is worked off by then
            raise OverloadError(FULL, retry_after_s=max(wait / 2, wait - self._deadline))

    def wait_seconds(self, rows: int = 0) -> float:
        """Predicted seconds until so many more rows would be computed; 0 before anything is measured."""
        busy = self._busy_since
        begun = max(0.0, self.curve.wait_seconds(self._busy_rows) - (time.monotonic() - busy)) if busy else 0.0
        return begun + self.curve.wait_seconds(self._queue.rows + rows)

    def submit(self, rows: Sequence[Any], *, deadline: float) -> Future[list[Any]]:
        """Queue a request from any thread; its future holds an answer for each row, or a `RequestError`.

        Cancel the future when nobody wants the answer any more: rows not yet computed leave the queue at once.

        Args:
            rows: at least one.
            deadline: `time.monotonic` after which the answer is worth nothing and is not computed.

        Raises:
            RequestError: 503, the queue is full or too slow, or the server stops.
        """
        longest = max(map(length_of, rows))
        task = Task(list(rows), deadline, Future(), longest, time.monotonic(), trace=TRACE.get())
        with self._changed:
            if self._closing:
                raise RequestError("The server is shutting down", status=503)
            if deadline < math.inf:
                self.check_load(len(task.rows))
            self._queue.add(task)
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
        with self._changed:
            left = self._queue.all()
        for task in left:
            _fail(task, RequestError("The server is shutting down", status=503))

    def _work(self) -> None:
        while batch := self._take():
            begun = time.monotonic()
            rows, waited = sum(len(part) for _, part in batch), begun - batch[0][0].queued_at
            self._busy_rows, self._busy_since = rows, begun
            answered = self._answer(batch)
            took = time.monotonic() - begun
            self._busy_since = 0.0
            if answered:
                self.curve.observe(rows, took)
            try:
                self._on_batch(rows, took, waited)
            except Exception:
                logger.exception("counting a batch of model '%s' failed", self._name)

    def _take(self) -> list[Part]:
        """Wait for a request, then take what goes together up to the bound; empty once closed and drained."""
        while True:
            with self._changed:
                while not len(self._queue) and not self._closing:
                    seconds = self._idle_seconds()
                    if seconds is not None and seconds <= 0:
                        break
                    self._changed.wait(seconds)
                if not len(self._queue) and self._closing:
                    return []
                batch, expired = self._queue.take(self.curve.bound, time.monotonic())
            for task in expired:
                _fail(task, RequestError("Deadline exceeded before the request was computed", status=504))
            if batch:
                return batch
            if not expired:
                self._use_idleness()

    def _idle_seconds(self) -> float | None:
        """Seconds until something is to be done although nothing waits; None for never."""
        if self._answered_at == -math.inf and not self._failing:
            return None  # the first question is the server's, not this one's
        if self._measures and not self._failing and self.curve.next_rows() is not None:
            return 0.0
        if self._probe is None:
            return None
        return self._answered_at + (_RETRY_SECONDS if self._failing else self._probe_seconds) - time.monotonic()

    def _use_idleness(self) -> None:
        """Measure one more size of batch, or ask the worker whether it still answers."""
        size = self.curve.next_rows() if self._measures and not self._failing else None
        make = self._probe if size is None else self._typical
        if make is None:
            return
        rows = [make()] * (size or 1)
        begun = time.monotonic()
        self._busy_rows, self._busy_since = 0, begun
        try:
            self._checked(rows)
        except BaseException as error:
            if size is not None:
                self._measures = False  # too large a batch for this machine's memory, say: none is measured
            self._failing = f"{type(error).__name__}: {error}"
            logger.warning("model '%s' does not answer a made-up input: %s", self._name, self._failing)
        else:
            self._failing = ""
            if size is not None:
                self.curve.probed(size, time.monotonic() - begun)
        self._busy_since, self._answered_at = 0.0, time.monotonic()

    def _answer(self, batch: list[Part]) -> bool:
        """Compute rows and answer those of whom none are left; says whether it went well at once."""
        batch = [each for each in batch if not each[0].future.done()]
        rows = [row for _, part in batch for row in part]
        if not rows:
            return False
        begun = time.monotonic()
        try:
            answers = self._checked(rows)
        except BaseException as error:  # also what ends a thread: the next batch needs it
            _note(batch, begun)
            self._find_fault(batch, error)
            return False
        _note(batch, begun)
        self._failing, self._answered_at = "", time.monotonic()
        start = 0
        for task, part in batch:
            task.answers += answers[start : start + len(part)]
            start += len(part)
            if len(task.answers) == len(task.rows):
                _resolve(task)
        return True

    def _find_fault(self, batch: list[Part], error: BaseException) -> None:
        """Give each request of a failed batch another chance alone, or tell the one that was alone."""
        lost = isinstance(error, WorkerLostError) or not isinstance(error, Exception)
        if lost:
            self._failing, self._answered_at = str(error) or type(error).__name__, time.monotonic()
            if isinstance(error, WorkerLostError) and not error.by_rows:
                for task, _ in batch:
                    _fail(task, RequestError(f"The worker of model '{self._name}' {error}", status=503))
                return
            logger.error("the worker of model '%s' was lost: %r", self._name, error)
            for task, _ in batch:
                task.losses += 1
        if len(batch) > 1 or (lost and batch[0][0].losses == 1):
            for each in batch:
                self._answer([each])
            return
        ((task, part),) = batch
        if lost:
            _fail(task, RequestError("The model failed: its worker was lost over this input, twice", status=500))
        elif isinstance(error, RequestError):  # the model's own word on a request that it cannot answer
            _fail(task, error)
        else:
            logger.error("model '%s' failed on %d rows", self._name, len(part), exc_info=error)
            _fail(task, RequestError(f"The model failed: {type(error).__name__}", status=500))

    def _checked(self, rows: list[Any]) -> list[Any]:
        answers = list(self._compute(rows))
        if len(answers) != len(rows):
            raise RuntimeError(f"{len(answers)} answers for {len(rows)} rows")
        return answers

    def _forget(self, task: Task) -> None:
        """Take a request out of the queue that was answered, failed or given up before all of it was computed."""
        if not task.left:  # it has left the queue with its last row
            return
        with self._changed:
            self._queue.drop(task)


def _note(batch: list[Part], begun: float) -> None:
    """Tell the traces of requests that rows of theirs were computed together until now."""
    ended, batch_rows = time.monotonic(), sum(len(part) for _, part in batch)
    for task, part in batch:
        task.computed(begun, ended, rows=len(part), batch_rows=batch_rows)


def _resolve(task: Task) -> None:
    try:
        task.future.set_result(task.answers)
    except InvalidStateError:  # its client left while it was computed
        return


def _fail(task: Task, error: RequestError) -> None:
    try:
        task.future.set_exception(error)
    except InvalidStateError:
        return
