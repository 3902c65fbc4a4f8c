"""`Batcher`: has one model's rows computed, and never waits for more of them.

A request is a list of rows (images or prompts). Rows are counted, not requests: a request of many rows is computed in
several batches, and between them it is looked at again whether anyone still wants it.

A thread computes them. But rows for a process that runs are posted by the event loop itself, and answered from it: to
wake a thread and be woken by it takes longer than all else that is done for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Protocol

from thrifty.errors import RequestError
from thrifty.serve.curve import Curve, length_of
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.spans import TRACE
from thrifty.serve.waiting import Part, Task, Waiting

logger = logging.getLogger("thrifty.serve")

Compute = Callable[[list[Any]], Sequence[Any]]


class Posts(Protocol):
    """What computes rows and need not be waited for, as `thrifty.serve.workers.process.Process` says."""

    def patience(self, rows: int) -> float:
        """Return the seconds after which a batch of so many rows counts as hung."""

    @property
    def starts(self) -> int:
        """How many processes there were."""

    def post(self, rows: list[Any]) -> bool:
        """Send rows; False where they cannot be sent at once."""

    def bell(self) -> int:
        """Return a descriptor of one's own that can be read once what was posted to this process is answered."""

    def read(self) -> Sequence[Any] | None:
        """Return the answers; None where they are not there yet."""

    def hung(self) -> Exception:
        """Give up what was posted."""


FULL = "The batch scheduling queue to which this task was submitted is full"  # TensorFlow Serving's own words
EXPIRED = "Deadline exceeded before the request was computed"
_RETRY_SECONDS = 0.5  # between probes of a worker that is lost


@dataclass(frozen=True)
class _Posted:
    """What was posted and is not answered yet: its parts, how many rows, since when, and what is done if it is late."""

    batch: list[Part]
    rows: int
    begun: float
    late: asyncio.TimerHandle


@dataclass(frozen=True)
class _Bell:
    """What an event loop listens to for answers of one process."""

    loop: asyncio.AbstractEventLoop
    descriptor: int
    start: int


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
        posts: the same without a wait, where there is such; never used while ``compute`` is.
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
        posts: Posts | None = None,
    ) -> None:
        self._compute, self._name, self._on_batch, self._posts = compute, name, on_batch, posts
        # of the thread, of what is posted, and of what was posted in vain and is the thread's now
        self._works, self._is_posted, self._waits_for_posts = False, False, False
        self._back: tuple[list[Part], BaseException | None] | None = None
        self._posted: _Posted | None = None
        self._bell: _Bell | None = None
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
            loop = self._loop_to_post_by()
            if loop is not None:
                self._is_posted = True
            elif not self._is_posted:
                self._changed.notify()
        task.future.add_done_callback(lambda _: self._forget(task))
        if loop is not None:
            self._post(loop)
        return task.future

    def _loop_to_post_by(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of whoever asks, if nothing is computed now, and the worker is known to answer."""
        busy = self._is_posted or self._works or self._back is not None
        if self._posts is None or busy or self._failing or self._answered_at == -math.inf:
            return None
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            return loop if self._bell is None or self._bell.loop is loop or self._bell.loop.is_closed() else None
        return None

    def _post(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the next batch from the event loop; without one, and where that cannot be done, the thread may go on."""
        assert self._posts is not None
        rows: list[Any] = []
        while not rows:
            with self._changed:
                batch, expired = self._queue.take(self.curve.bound, time.monotonic())
                if not batch and not expired:
                    self._is_posted = False
                    if self._waits_for_posts or self._closing:
                        self._changed.notify()
                    return
            for task in expired:
                _fail(task, RequestError(EXPIRED, status=504))
            batch = [each for each in batch if not each[0].future.done()]
            rows = [row for _, part in batch for row in part]
        begun = time.monotonic()
        self._busy_rows, self._busy_since = len(rows), begun
        try:
            if not self._posts.post(rows):
                self._give_back(batch, None)
                return
            self._listen(loop)
        except Exception as error:
            self._give_back(batch, error)
            return
        late = loop.call_later(self._posts.patience(len(rows)), self._give_up)
        self._posted = _Posted(batch, len(rows), begun, late)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the event loop told of answers; it goes on to listen between batches, for beginning takes long."""
        assert self._posts is not None
        if self._bell is not None and self._bell.start == self._posts.starts and self._bell.loop is loop:
            return
        self._stop_listening()
        self._bell = bell = _Bell(loop, self._posts.bell(), self._posts.starts)
        loop.add_reader(bell.descriptor, self._rung)

    def _stop_listening(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            if not bell.loop.is_closed():
                bell.loop.remove_reader(bell.descriptor)
            os.close(bell.descriptor)

    def _rung(self) -> None:
        """Answer what was posted, and post what has come since."""
        posted = self._posted
        if posted is None or self._posts is None:  # it rings for the thread
            self._stop_listening()
            return
        try:
            found = self._posts.read()
            if found is None:
                return
            answers = _as_many(found, posted.rows)
        except Exception as error:
            self._give_back(posted.batch, error)
            return
        self._posted = None
        posted.late.cancel()
        self._deliver(posted.batch, answers, posted.begun)
        self._count(posted.batch, posted.rows, posted.begun)
        self._busy_since = 0.0
        if self._bell is not None:
            self._post(self._bell.loop)

    def _give_up(self) -> None:
        if self._posted is not None:
            self._give_back(self._posted.batch, TimeoutError())

    def _give_back(self, batch: list[Part], error: BaseException | None) -> None:
        """Leave a batch to the thread: to be computed there, or to find out whose fault it was."""
        if self._posted is not None:
            self._posted.late.cancel()
            self._posted = None
        self._stop_listening()
        self._busy_since = 0.0
        with self._changed:
            self._is_posted, self._back = False, (batch, error)
            self._changed.notify()

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
        bell = self._bell
        if bell is not None and bell.loop.is_closed():
            self._stop_listening()
        elif bell is not None:
            with contextlib.suppress(RuntimeError):  # it was closed this very moment
                bell.loop.call_soon_threadsafe(self._stop_listening)

    def _work(self) -> None:
        while taken := self._take():
            batch, error = taken
            begun = time.monotonic()
            rows = sum(len(part) for _, part in batch)
            self._busy_rows, self._busy_since = rows, begun
            if error is None:
                answered = self._answer(batch)
            else:
                self._find_fault(batch, error)
            if error is None and answered:
                self._count(batch, rows, begun)
            self._busy_since = 0.0

    def _count(self, batch: list[Part], rows: int, begun: float) -> None:
        """Take in what a batch took that was answered."""
        took = time.monotonic() - begun
        self.curve.observe(rows, took)
        try:
            self._on_batch(rows, took, begun - batch[0][0].queued_at)
        except Exception:
            logger.exception("counting a batch of model '%s' failed", self._name)

    def _take(self) -> tuple[list[Part], BaseException | None] | None:
        """Wait for a request, then take what goes together up to the bound; None once closed and drained.

        Beside it what went wrong with it already, where it was posted.
        """
        while True:
            with self._changed:
                self._works = False
                while self._back is None and (self._is_posted or (not len(self._queue) and not self._closing)):
                    self._waits_for_posts = self._is_posted
                    seconds = None if self._is_posted else self._idle_seconds()
                    if seconds is not None and seconds <= 0:
                        break
                    self._changed.wait(seconds)
                self._works = True
                if self._back is not None:
                    back, self._back = self._back, None
                    return back
                if not len(self._queue) and self._closing:
                    return None
                batch, expired = self._queue.take(self.curve.bound, time.monotonic())
            for task in expired:
                _fail(task, RequestError(EXPIRED, status=504))
            if batch:
                return batch, None
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
        self._deliver(batch, answers, begun)
        return True

    def _deliver(self, batch: list[Part], answers: list[Any], begun: float) -> None:
        """Answer those of whom no row is left."""
        _note(batch, begun)
        self._failing, self._answered_at = "", time.monotonic()
        start = 0
        for task, part in batch:
            task.answers += answers[start : start + len(part)]
            start += len(part)
            if len(task.answers) == len(task.rows):
                _resolve(task)

    def _find_fault(self, batch: list[Part], error: BaseException) -> None:
        """Give each request of a failed batch another chance alone, or tell the one that was alone."""
        if isinstance(error, TimeoutError) and self._posts is not None:
            error = self._posts.hung()
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
        return _as_many(self._compute(rows), len(rows))

    def _forget(self, task: Task) -> None:
        """Take a request out of the queue that was answered, failed or given up before all of it was computed."""
        if not task.left:  # it has left the queue with its last row
            return
        with self._changed:
            self._queue.drop(task)


def _as_many(answers: Sequence[Any], rows: int) -> list[Any]:
    if len(answers) != rows:
        raise RuntimeError(f"{len(answers)} answers for {rows} rows")
    return list(answers)


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
