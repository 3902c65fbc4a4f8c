"""`Writer`: one thread that owns one language model and writes many texts at once, a token of each in a step.

Texts join and leave between steps. A long prompt is read in parts between the others' tokens. A text that is alone
begins at once; none waits for company.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thrifty.errors import RequestError
from thrifty.export.forms.prompts import Prompts
from thrifty.models.drawing import choose
from thrifty.models.paged import Part
from thrifty.serve.batcher import FULL, OverloadError
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.order import Order, Piece, Told
from thrifty.serve.generation.writing import READ_TOKENS, Tell, Writing, parts_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from thrifty.serve.limits import Limits
    from thrifty.serve.metrics import Metrics

logger = logging.getLogger("thrifty.serve")

# tokens of several prompts that are read in one step, where one in so many texts still has its prompt to read
_READ_TOGETHER, _MANY = 4 * READ_TOKENS, 4
_SHUTTING_DOWN = "The server is shutting down"


class Writer:
    """Writes texts by one model, in the order they came.

    Args:
        form: of the bundle: the model, its tokenizer, and what is asked by the other protocols.
        label: of the model, for logs and metrics.
        limits: of the server.
        metrics: told of tokens and times.
    """

    def __init__(self, form: Prompts, *, label: str, limits: Limits, metrics: Metrics) -> None:
        self._form, self._label, self._limits, self._metrics = form, label, limits, metrics
        self.engine = Engine(form.model, cache_bytes=limits.cache_bytes, texts=limits.texts)
        self._queue: deque[Writing] = deque()
        self._active: list[Writing] = []
        self._changed = threading.Condition()
        self._closing = self._dead = False
        self._busy_since = 0.0
        self._token_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name=f"thrifty-{label}", daemon=True)
        metrics.texts.watch(label, self.engine.pool)

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
        """Whether the worker lives and is not stuck in a step."""
        busy = self._busy_since
        return not self._dead and not (busy and time.monotonic() - busy > self._limits.deadline_seconds)

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
        now = time.monotonic()
        writings = [
            Writing(order, tell, deadline=deadline, begun=now, length=self.engine.length, end=self._form.end)
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
            with torch.inference_mode():
                while self._gather():
                    self._busy_since = time.monotonic()
                    self._take_step()
                    self._busy_since = 0.0
        except BaseException:
            logger.exception("the worker of model '%s' died", self._label)
        finally:
            self._dead = True
            _tell_all([*self._active, *self._queue], RequestError(self._gone(), status=503))

    def _gather(self) -> bool:
        """Let texts go that nobody wants, let waiting ones in; false once closed and drained."""
        while True:
            with self._changed:
                late = self._forget()
                while self._queue and self._fits(self._queue[0]):
                    self._active.append(self._queue.popleft())
                if not (self._active or late or self._queue or self._closing):
                    self._changed.wait()
                    continue
            _tell_all(late, RequestError("Deadline exceeded before the text was written", status=504))
            if self._active:
                return True
            if self._closing and not self._queue:
                return False

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
        self.engine.pool.give_back(writing.pages, writing.promised)
        writing.pages = []

    def _fits(self, writing: Writing) -> bool:
        """Whether a text may begin: there is room for it, and the others' tokens do not come too slowly by now."""
        if len(self._active) >= self._limits.texts or (
            self._active and self._token_seconds > self._limits.token_seconds
        ):
            return False
        return self.engine.pool.promise(writing.promised)

    def _take_step(self) -> None:
        begin, used = time.monotonic(), time.thread_time()
        self._tidy()
        parts, taken = parts_of(self._next(), self.engine.pool.take)
        self.engine.clear(taken)
        read, logits_BV = self._read(parts)
        ready = [at for at, (writing, part) in enumerate(read) if writing.read(part)]
        if ready:
            self._write([read[at][0] for at in ready], logits_BV if len(ready) == len(read) else logits_BV[ready])
        seconds = time.monotonic() - begin
        if all(len(part.tokens) == 1 for _, part in parts):  # how fast texts grow
            self._token_seconds += 0.1 * (seconds - self._token_seconds)
        self._metrics.batch_rows.labels(self._label).observe(len(parts))
        self._metrics.batch_seconds.labels(self._label).observe(seconds)
        self._metrics.cpu.labels(self._label).inc(time.thread_time() - used)

    def _tidy(self) -> None:
        """Bring pages closer together where many texts have left holes: a step looks at all up to the last."""
        moves = self.engine.pool.closer([page for each in self._active for page in each.pages])
        if moves:
            self.engine.move(moves)
            for each in self._active:
                each.move(moves)

    def _next(self) -> list[Writing]:
        """Texts of the next step: all that wait for a token, and as many prompts as may be read beside them."""
        chosen = [each for each in self._active if each.to_read == 1]
        unread = len(self._active) - len(chosen)
        # while many wait to begin, reading them together gives more tokens in all than the others lose by waiting
        room = _READ_TOGETHER if _MANY * unread >= len(chosen) else READ_TOKENS
        for each in self._active:
            count = min(each.to_read, READ_TOKENS)
            if 1 < count <= room:
                chosen.append(each)
                room -= count
        return chosen

    def _read(self, parts: list[tuple[Writing, Part]]) -> tuple[list[tuple[Writing, Part]], Tensor]:
        """Compute parts together; or one by one when that fails, for one may be at fault. Those that fail leave."""
        try:
            logits_BV = self.engine.step([part for _, part in parts])
        except Exception as error:
            if len(parts) > 1:
                alone = [self._read([each]) for each in parts]
                return [each for read, _ in alone for each in read], torch.cat([logits for _, logits in alone])
            logger.exception("model '%s' failed on a text", self._label)
            self._fail(parts[0][0], RequestError(f"The model failed: {type(error).__name__}", status=500))
            return [], torch.empty(0, self.engine.vocabulary)
        sound = logits_BV.amax(-1).isfinite().tolist()
        if all(sound):
            return parts, logits_BV
        for (writing, _), fine in zip(parts, sound, strict=True):
            if not fine:
                self._fail(writing, RequestError("The model answered with NaN or infinity", status=500))
        kept = [at for at, fine in enumerate(sound) if fine]
        return [parts[at] for at in kept], logits_BV[kept]

    def _write(self, writings: Sequence[Writing], logits_BV: Tensor) -> None:
        """Choose the next token of each text and tell of it."""
        tokens = choose(logits_BV, [each.order.wishes for each in writings], [each.number() for each in writings])
        now = time.monotonic()
        self._metrics.texts.written(self._label, len(writings), len(self._active))
        for row, (writing, token) in enumerate(zip(writings, tokens, strict=True)):
            try:
                told = (
                    None if writing.order.likeliest is None else told_of(logits_BV[row], token, writing.order.likeliest)
                )
                if not writing.first:
                    writing.first = now
                    self._metrics.texts.begun(self._label, len(writing.order.prompt), now - writing.begun)
                if writing.add(token, told, self._form.tokenizer):
                    self._metrics.texts.ended(self._label, len(writing.written), now - writing.first)
                    self._release(writing)
            except Exception as error:
                logger.exception("a text of model '%s' failed", self._label)
                self._fail(writing, RequestError(f"The text failed: {type(error).__name__}", status=500))

    def _fail(self, writing: Writing, error: RequestError) -> None:
        self._release(writing)
        _tell_all([writing], error)


def told_of(logits_V: Tensor, token: int, likeliest: int) -> Told:
    """Tell a token's log probability, and the likeliest tokens with theirs."""
    log_V = logits_V.log_softmax(-1)
    best = log_V.topk(min(likeliest, len(log_V)))
    return Told(token, float(log_V[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))


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
