"""`Writer`: one thread that has one language model write many texts at once, a token of each in a step.

Texts join and leave between steps. A long prompt is read in parts between the others' tokens; a part that another text
has read, or reads now, is not read again. A text that is alone begins at once; none waits for company. When the worker
that computes is lost, another one reads what was written so far and goes on; each text is first tried by itself then,
and over which a second one is lost is at fault.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.export.forms.prompts import Prompts
from thrifty.models.paged import PAGE_TOKENS
from thrifty.serve.batcher import FULL, OverloadError
from thrifty.serve.generation.order import Order, Piece, Told
from thrifty.serve.generation.pool import Pool
from thrifty.serve.generation.turn import Steps
from thrifty.serve.generation.writing import READ_TOKENS, Tell, Writing, parts_of
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.spans import TRACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from thrifty.serve.limits import Limits
    from thrifty.serve.metrics import Metrics

logger = logging.getLogger("thrifty.serve")

# tokens of several prompts that are read in one step, where one in so many texts still has its prompt to read
_READ_TOGETHER, _MANY = 4 * READ_TOKENS, 4
_PART_PAGES = READ_TOKENS // PAGE_TOKENS  # that a part fills which texts share
_SHUTTING_DOWN = "The server is shutting down"
_RETRY_SECONDS = 0.5  # between trials to start a worker that is lost


class Writer:
    """Writes texts by one model, in the order they came.

    Args:
        form: of the bundle: its tokenizer, and what is asked by the other protocols.
        engine: that computes.
        length: the model's longest context.
        label: of the model, for logs and metrics.
        limits: of the server.
        metrics: told of tokens and times.

    Attributes:
        pool: of the engine's pages.
        length: the longest context; it may be shorter once it is known how much the engine keeps.
    """

    def __init__(
        self, form: Prompts, engine: Steps, *, length: int, label: str, limits: Limits, metrics: Metrics
    ) -> None:
        self._form, self._label, self._limits, self._metrics = form, label, limits, metrics
        self.engine, self.length, self.pool = engine, length, Pool(0)
        self._queue: deque[Writing] = deque()
        self._active: list[Writing] = []
        self._changed = threading.Condition()
        self._closing = self._dead = False
        self._failing = ""
        self._busy_since, self._answered_at = 0.0, time.monotonic()
        self._token_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name=f"thrifty-{label}", daemon=True)
        metrics.texts.watch(label, lambda: self.pool)

    def start(self) -> None:
        """Start the worker; a second call does nothing."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        return self._form.tokenizer

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Give a prompt's tokens; an empty one begins a new text."""
        tokens = self.tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        return tokens or [self._form.end]

    @property
    def waiting_rows(self) -> int:
        """Texts in the queue, without those being written."""
        return len(self._queue)

    @property
    def healthy(self) -> bool:
        """Whether the last that was asked of the worker was answered, and it is not stuck in a step."""
        busy = self._busy_since
        return not (self._dead or self._failing) and not (
            busy and time.monotonic() - busy > self._limits.deadline_seconds
        )

    def check_load(self, rows: int = 1) -> None:
        """Refuse texts that the queue has no room for.

        Raises:
            OverloadError: 503, with the seconds after which it is worth asking again.
        """
        if len(self._queue) + rows > self._limits.queue_rows:
            left = [each.order.max_tokens - len(each.written) for each in list(self._active)]
            # until the first of the texts that are written now has ended
            raise OverloadError(FULL, retry_after_s=min(left, default=1) * self._token_seconds)

    def submit(self, rows: Sequence[Any], *, deadline: float) -> Future[list[Any]]:
        """Have prompts completed; the future holds an answer for each, as the form gives them.

        Cancel the future when nobody wants the answers any more.

        Raises:
            OverloadError: 503, the queue is full.
            RequestError: 503, the worker is gone; 400, an option is out of range.
        """
        future: Future[list[Any]] = Future()
        orders = [self._form.order_of(row) for row in rows]
        answers: list[Any] = [None] * len(orders)
        left = [len(orders)]

        def heard(place: int) -> Tell:
            def tell(piece: Piece | RequestError) -> None:
                if isinstance(piece, RequestError):
                    _settle(future, piece)
                    return
                answers[place] = {"completion": piece.text}
                left[0] -= 1
                if not left[0]:
                    _settle(future, answers)

            return tell

        whole = [
            Order(prompt=prompt, max_tokens=count, wishes=wishes, seed=seed) for prompt, count, wishes, seed in orders
        ]
        writings = self.write(list(zip(whole, map(heard, range(len(whole))), strict=True)), deadline=deadline)
        future.add_done_callback(lambda _: self.drop(writings))
        return future

    def write(self, orders: Sequence[tuple[Order, Tell]], *, deadline: float) -> list[Writing]:
        """Queue texts, all or none, from any thread; each is told of by its own function, on the worker's thread.

        Raises:
            OverloadError: 503, the queue is full.
            RequestError: 503, the worker is gone.
        """
        now, trace = time.monotonic(), TRACE.get()
        writings = [
            Writing(order, tell, deadline=deadline, begun=now, end=self._form.end, trace=trace)
            for order, tell in orders
        ]
        with self._changed:
            if self._closing or self._dead:
                raise RequestError(_SHUTTING_DOWN if self._closing else self._gone(), status=503)
            self.check_load(len(writings))
            self._queue.extend(writings)
            self._changed.notify()
        return writings

    def drop(self, writings: Sequence[Writing]) -> None:
        """Forget texts that nobody waits for; their pages are free before the next step. From any thread."""
        with self._changed:
            for writing in writings:
                writing.left = True
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Take no more, write what was asked for at most this long, then refuse the rest with 503."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        with self._changed:
            for writing in (*self._queue, *self._active):
                writing.left = True
            rest = [*self._queue, *self._active]
        _tell_all(rest, RequestError(_SHUTTING_DOWN, status=503))

    def _gone(self) -> str:
        return f"The worker of model '{self._label}' is gone; restart the server"

    def _work(self) -> None:
        try:
            while self._gather():
                self._busy_since = time.monotonic()
                try:
                    if not self.pool.pages:
                        self._begin()
                    self._take_step()
                    self._failing, self._answered_at = "", time.monotonic()
                except WorkerLostError as error:
                    self._start_over(error)
                self._busy_since = 0.0
        except BaseException:
            logger.exception("what writes the texts of model '%s' died", self._label)
        finally:
            self._dead = True
            _tell_all([*self._active, *self._queue], RequestError(self._gone(), status=503))

    def _gather(self) -> bool:
        """Wait until there is something to do, an engine that was long not asked included; false once drained."""
        while True:
            with self._changed:
                late = self._forget()
                while self._queue and self._fits(self._queue[0]):
                    self._queue[0].taken = self._queue[0].taken or time.monotonic()
                    self._active.append(self._queue.popleft())
                idle = not (self._active or late or self._queue or self._closing)
                if idle:
                    pause = _RETRY_SECONDS if self._failing else self._limits.probe_seconds
                    left = self._answered_at + pause - time.monotonic()
                    if left > 0:
                        self._changed.wait(left)
                        continue
            _tell_all(late, RequestError("Deadline exceeded before the text was written", status=504))
            if self._active or idle or (self._queue and not self.pool.pages):
                return True
            if self._closing and not self._queue:
                return False

    def _begin(self) -> None:
        """Have the engine ready, and know its room.

        Raises:
            WorkerLostError: it cannot be started.
        """
        room = self.engine.begin()
        self.pool, self.length = Pool(room.pages), room.length

    def _start_over(self, error: WorkerLostError) -> None:
        """Go on after a worker was lost, with what it held; or give up all texts where none can be started."""
        self._failing, self._answered_at = str(error), time.monotonic()
        if not error.by_rows:
            with self._changed:
                rest = [*self._active, *self._queue]
                for writing in list(self._active):
                    self._release(writing)
                self._queue.clear()
            _tell_all(rest, RequestError(f"The worker of model '{self._label}' {error}", status=503))
            return
        lost = RequestError("The model failed: its worker was lost over this text, twice", status=500)
        for writing in [each for each in self._active if each.losses > 1]:
            self._fail(writing, lost)
        # the others begin again in the order they came, and share anew what they shared
        rest, self._active, self.pool = self._active, [], Pool(self.pool.pages)
        for writing in rest:
            writing.rewind()
        with self._changed:
            self._queue.extendleft(reversed(rest))

    def _forget(self) -> list[Writing]:
        """Drop texts whose client left and those that come too late, which are returned."""
        now = time.monotonic()
        gone = [each for each in (*self._active, *self._queue) if each.left or now > each.deadline]
        for writing in gone:
            if writing in self._active:
                self._release(writing)
            else:
                self._queue.remove(writing)
        return [each for each in gone if not each.left]

    def _release(self, writing: Writing) -> None:
        self._active.remove(writing)
        self.pool.give_back(writing.pages, writing.promised)
        writing.pages, writing.promised = [], 0

    def _fits(self, writing: Writing) -> bool:
        """Whether a text may begin: there is room for it, and the others' tokens do not come too slowly by now."""
        if len(self._active) >= self._limits.texts or (
            self._active and self._token_seconds > self._limits.token_seconds
        ):
            return False
        pages = writing.fit(self.length)
        shared = self.pool.promise(pages, writing.names)
        if shared is not None:
            writing.begin(pages, shared)
        return shared is not None

    def _take_step(self) -> None:
        """Take a step of the texts whose turn it is; of none, which proves that the engine answers.

        Raises:
            WorkerLostError: the engine is lost, and with it what its pages held.
        """
        begin, used = time.monotonic(), self.engine.cpu_seconds
        moves = self._tidy()
        parts, fresh = parts_of(self._next(), self.pool.take)
        turns = [writing.turn(part) for writing, part in parts]
        try:
            outcomes = self.engine.take(turns, fresh=fresh, moves=moves)
        except WorkerLostError as error:
            if error.by_rows:
                for writing, _ in parts:
                    writing.losses += 1
            raise
        self._metrics.cpu.labels(self._label).inc(max(0.0, self.engine.cpu_seconds - used))
        if not parts:
            return
        now = time.monotonic()
        self._metrics.texts.written(self._label, sum(each.token is not None for each in outcomes), len(self._active))
        for (writing, part), outcome in zip(parts, outcomes, strict=True):
            name = writing.next_name
            writing.read(part)
            if outcome.failed:
                self._fail(writing, RequestError(outcome.failed, status=500))
            elif outcome.token is not None:
                self._write(writing, outcome.token, outcome.told, now)
            elif name is not None:
                self.pool.name(name, writing.pages[-_PART_PAGES:])
        seconds = time.monotonic() - begin
        if all(len(part.tokens) == 1 for _, part in parts):  # how fast texts grow
            self._token_seconds += 0.1 * (seconds - self._token_seconds)
        self._metrics.batch_rows.labels(self._label).observe(len(parts))
        self._metrics.batch_seconds.labels(self._label).observe(seconds)

    def _tidy(self) -> dict[int, int]:
        """Bring pages closer together where many texts have left holes: a step looks at all up to the last."""
        moves = self.pool.closer()
        if moves:
            for each in self._active:
                each.move(moves)
        return moves

    def _next(self) -> list[Writing]:
        """Texts of the next step: all that wait for a token, and as many prompts as may be read beside them.

        One over which a worker was lost is alone until it has a token. What one text reads in a step another one waits
        for that would read the same.
        """
        for each in self._active:
            while (name := each.next_name) is not None and (pages := self.pool.share(name)):
                each.take_over(pages)
        suspect = next((each for each in self._active if each.losses), None)
        if suspect is not None:
            return [suspect]
        chosen = [each for each in self._active if each.to_read == 1]
        unread = len(self._active) - len(chosen)
        # while many wait to begin, reading them together gives more tokens in all than the others lose by waiting
        room = _READ_TOGETHER if _MANY * unread >= len(chosen) else READ_TOKENS
        reading: set[bytes | None] = set()
        for each in self._active:
            count, name = min(each.to_read, READ_TOKENS), each.next_name
            if 1 < count <= room and (name is None or name not in reading):
                chosen.append(each)
                reading.add(name)
                room -= count
        return chosen

    def _write(self, writing: Writing, token: int, told: Told | None, now: float) -> None:
        """Write a token of a text, and tell of it."""
        try:
            if not writing.first:
                writing.first = now
                self._metrics.texts.begun(self._label, len(writing.order.prompt), writing.shared, now - writing.begun)
            if writing.add(token, told, self._form.tokenizer):
                self._metrics.texts.ended(self._label, len(writing.written), now - writing.first)
                self._release(writing)
        except Exception as error:
            logger.exception("a text of model '%s' failed", self._label)
            self._fail(writing, RequestError(f"The text failed: {type(error).__name__}", status=500))

    def _fail(self, writing: Writing, error: RequestError) -> None:
        self._release(writing)
        writing.note()
        _tell_all([writing], error)


def _tell_all(writings: Sequence[Writing], error: RequestError) -> None:
    for writing in writings:
        try:
            writing.tell(error)
        except Exception:
            logger.exception("nobody could be told of a text's end")


def _settle(future: Future[list[Any]], found: list[Any] | RequestError) -> None:
    try:
        if isinstance(found, RequestError):
            future.set_exception(found)
        else:
            future.set_result(found)
    except InvalidStateError:  # its client left, or another of its prompts failed
        return
