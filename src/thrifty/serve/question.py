"""`Question`: one request for a model's answers, from its whole body to its reply.

It runs by callbacks on the event loop: for a small model a task, and what it waits by, would take longer than its rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import thrifty.serve.tfserving as tfserving
from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.batcher import OverloadError
from thrifty.serve.http import CLIENT_LEFT, Held, Reply, error_reply
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.model import Ask, Model
from thrifty.serve.spans import TRACE, named, noted

logger = logging.getLogger("thrifty.serve")

SMALL_BYTES = 4096  # of a body that is parsed at once: it costs less than handing it over

Parse = Callable[[bytes], Ask]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        model: that is to answer; held for it.
        parse: makes rows of a body.
        protocol: by which it was asked.
        light: whether a body of so many bytes takes no time to be parsed.
    """

    model: Model
    parse: Parse
    protocol: str
    light: Callable[[int], bool] = lambda size: size <= SMALL_BYTES


@dataclass(frozen=True)
class Desk:
    """What all questions to a server share: its bounds, its counts, bytes of bodies held, and threads that parse."""

    limits: Limits
    metrics: Metrics
    held: Held
    parsers: ThreadPoolExecutor


class Question:
    """Has one request answered; made and called on the event loop alone.

    Whoever makes it calls `check` once the head is there and `ask` with the body, in the context of the request, or
    says that it failed or that the client left. It is told the reply once, unless the client left.

    Args:
        desk: of the server.
        asked: whose model is held, and released once this is over.
        where: method and path, for the log.
        told: is given the reply.
    """

    __slots__ = (
        "_ask", "_asked", "_begun", "_context", "_desk", "_future", "_late", "_loop", "_over", "_thread", "_told",
        "_where",
    )  # fmt: skip

    def __init__(self, desk: Desk, asked: Asked, where: str, told: Callable[[Reply], None]) -> None:
        self._begun = time.perf_counter()
        self._desk, self._asked, self._where, self._told = desk, asked, where, told
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._ask: Ask | None = None
        self._future: Future[list[Any]] | None = None
        self._late: asyncio.TimerHandle | None = None
        self._over = False
        named(asked.model.label, asked.protocol)
        # what is noted of it later is noted there
        self._context = None if TRACE.get() is None else copy_context()

    def check(self) -> bool:
        """Say whether the model has time for it; to be asked before its body is read for nothing."""
        try:
            self._asked.model.check_load()
        except ThriftyError as error:
            self.fail(error)
        return not self._over

    def ask(self, body: bytes) -> None:
        """Parse the body, here where that takes no time, and have the rows computed."""
        try:
            if self._asked.light(len(body)):
                self._submit(self._parsed(body))
            else:
                parse: Callable[[bytes], Ask] = partial(self._inside, self._parsed)
                self._desk.parsers.submit(parse, body).add_done_callback(partial(self._soon, self._take))
        except Exception as error:
            self.fail(error)

    def leave(self) -> None:
        """Its client left: nobody wants the answer any more."""
        if not self._over:
            self._end(CLIENT_LEFT)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if self._over:
            return
        if not isinstance(error, ThriftyError):
            logger.error("%s failed", self._where, exc_info=error)
            error = RequestError("Internal error; the server's log says more", status=500)
        self._reply(reply_to(error, self._asked.protocol))

    def _parsed(self, body: bytes) -> Ask:
        with noted("decoding"):
            return self._asked.parse(body)

    def _take(self, parsing: Future[Ask]) -> None:
        """Go on with what a thread has parsed."""
        if self._over:
            return
        try:
            self._submit(parsing.result())
        except CancelledError:
            self.fail(RequestError("The server is shutting down", status=503))
        except Exception as error:
            self.fail(error)

    def _submit(self, ask: Ask) -> None:
        self._ask = ask
        self._future = self._asked.model.submit(ask.rows)
        self._late = self._loop.call_later(self._desk.limits.deadline_seconds, self._expire)
        self._future.add_done_callback(partial(self._soon, self._answer))

    def _answer(self, done: Future[list[Any]]) -> None:
        if self._over or self._ask is None:
            return
        self._future = None
        try:
            answers = done.result()
            with noted("encoding"):
                reply = self._ask.reply(answers)
        except Exception as error:
            self.fail(error)
            return
        self._reply(reply)

    def _expire(self) -> None:
        seconds = self._desk.limits.deadline_seconds
        self.fail(RequestError(f"Deadline exceeded: no answer within {seconds:g} s", status=504))

    def _soon(self, do: Callable[[Future[Any]], None], done: Future[Any]) -> None:
        """Go on on the event loop: at once where this is its thread."""
        if threading.get_ident() == self._thread:
            self._inside(do, done)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._inside, do, done)

    def _inside(self, do: Callable[[Any], T], given: Any) -> T:
        """Do it in the context of the request."""
        return do(given) if self._context is None else self._context.copy().run(do, given)

    def _reply(self, reply: Reply) -> None:
        self._end(reply.status)
        self._told(reply)

    def _end(self, status: int) -> None:
        self._over = True
        if self._late is not None:
            self._late.cancel()
        if self._future is not None:
            self._future.cancel()
        asked = self._asked
        asked.model.release()
        seconds = time.perf_counter() - self._begun
        self._desk.metrics.request_done(asked.model.label, asked.protocol, status, seconds)


def reply_to(error: ThriftyError, protocol: str) -> Reply:
    """Answer an error as a protocol does; a server that has no room says when it may have."""
    reply = tfserving.error_reply(error) if protocol == "tfserving" else error_reply(error)
    if isinstance(error, OverloadError):
        seconds = str(max(1, math.ceil(error.retry_after_s))).encode()
        reply = replace(reply, headers=(*reply.headers, (b"retry-after", seconds)))
    return reply
