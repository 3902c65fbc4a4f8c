"""The server as one bare ASGI application: its protocols, health and metrics over a few models."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import thrifty.serve.oip as oip
import thrifty.serve.openai as openai
import thrifty.serve.page as page
import thrifty.serve.tfserving as tfserving
from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.batcher import OverloadError
from thrifty.serve.gate import Gate
from thrifty.serve.http import (
    CLIENT_LEFT,
    TEXT,
    ClientLeftError,
    Held,
    Message,
    Receive,
    Reply,
    Send,
    Work,
    error_reply,
    json_reply,
    read_body,
)
from thrifty.serve.keys import Keys
from thrifty.serve.labels import Labels
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Ask, Model, Models
from thrifty.serve.oip.repository import Repository
from thrifty.serve.openapi import document
from thrifty.serve.spans import Trace, named, noted
from thrifty.serve.watch import Watch

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle
    from thrifty.serve.telemetry import Telemetry
    from thrifty.serve.workers.nursery import Nursery

logger = logging.getLogger("thrifty.serve")

_METRICS = ("/metrics", "/monitoring/prometheus/metrics")
_PARSERS = 2  # threads that decode JSON and images, so that a large body does not hold up the others

_NOBODY = nullcontext()
_UNWATCHED_SECONDS = 0.01  # most answers come sooner than it pays to look whether the client still waits
_SMALL_BYTES = 4096  # of a body that is parsed at once: it costs less than handing it over

T = TypeVar("T")
Parse = Callable[[bytes], Ask]


class App:
    """An ASGI application that answers for a few bundles.

    The workers start with the server's lifespan, or with the first request where there is none.

    Attributes:
        models: what it serves.
        metrics: what it counts.
        held: bytes of the requests that it holds.
        repository: from which models are loaded and unloaded on request; None when that is off.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle | str | Path],
        limits: Limits,
        *,
        labels: Labels | None = None,
        repository: str | Path | None = None,
        nursery: Nursery | None = None,
        watch: str | Path | None = None,
        gate: Gate | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.models = Models(bundles, limits, self.metrics, nursery=nursery, empty=watch is not None)
        self.models.name_versions(labels or {})
        self.repository = None if repository is None else Repository(repository, self.models)
        self._watch = None if watch is None else Watch(watch, self.models)
        self._gate = gate or Gate()
        self._telemetry = telemetry
        self.held = Held(limits.held_bytes)
        self._openai = openai.OpenAI(self.models, limits, self.metrics, self.held)
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="thrifty-parse")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            self.start()
            with self.following(scope["method"], scope["path"], scope["headers"]) as trace:
                if trace is not None:
                    send = _noting_status(trace, send)
                await self._gate.let_through(scope, receive, send, self._answer)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def start(self) -> None:
        """Start the workers; they warm up by answering a made-up row."""
        for model in self.models:
            model.start()
        if self._watch is not None:
            self._watch.start()

    def following(
        self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> AbstractContextManager[Trace | None]:
        """Follow a request while it is answered, where someone is to be told of it."""
        return _NOBODY if self._telemetry is None else self._telemetry.following(method, path, dict(headers))

    @property
    def keys(self) -> Keys | None:
        """Those that are let in; None for all."""
        return self._gate.keys

    @property
    def ready(self) -> bool:
        """Whether what is to be served at first is served, and every model answers."""
        return (self._watch is None or self._watch.looked) and all(model.ready for model in self.models)

    def close(self) -> None:
        """Answer what waits, then stop the workers."""
        if self._watch is not None:
            self._watch.stop()
        self.models.close()
        self._parsers.shutdown(wait=False, cancel_futures=True)
        if self._telemetry is not None:
            self._telemetry.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.to_thread(self.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        path = scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else quote(scope["path"])
        method, headers = scope["method"], dict(scope["headers"])
        if openai.owns(method, path):
            await self._openai.answer(method, path, headers, receive, send)
            return
        protocol = "tfserving" if tfserving.owns(path) else "oip" if oip.owns(path) else ""
        model: Model | None = None
        try:
            found = self._route(method, path, headers)
            # one that was unloaded between being found and being held is looked for again
            while not isinstance(found, Reply | Work) and not found[0].hold():
                found = self._route(method, path, headers)
            if isinstance(found, Work):
                found = await self._work(found, headers, receive)
            if isinstance(found, Reply):
                await found.send(send)
                return
            model, parse = found
            named(model.label, protocol)
            reply = await self._infer(model, parse, headers, receive)
        except ClientLeftError:
            self.metrics.request_done(model.label if model else "", protocol, CLIENT_LEFT, time.perf_counter() - start)
            return
        except ThriftyError as error:
            reply = tfserving.error_reply(error) if protocol == "tfserving" else error_reply(error)
            if isinstance(error, OverloadError):
                seconds = str(max(1, math.ceil(error.retry_after_s))).encode()
                reply = replace(reply, headers=(*reply.headers, (b"retry-after", seconds)))
        except Exception:
            logger.exception("%s %s failed", method, path)
            reply = error_reply(RequestError("Internal error; the server's log says more", status=500))
        finally:
            if model is not None:
                model.release()
        self.metrics.request_done(model.label if model else "", protocol, reply.status, time.perf_counter() - start)
        await reply.send(send)

    def _route(self, method: str, path: str, headers: dict[bytes, bytes]) -> Reply | Work | tuple[Model, Parse]:
        if page.owns(path, headers):
            return page.look_up(method, path, self.models, self.metrics)
        if path in _METRICS:
            if method != "GET":
                raise RequestError("Method Not Allowed", status=405)
            return Reply(200, self.metrics.page(), TEXT)
        if path == "/openapi.json":
            if method != "GET":
                raise RequestError("Method Not Allowed", status=405)
            return json_reply(document(self.models, repository=self.repository is not None))
        if tfserving.owns(path):
            return tfserving.ask_for(method, path, self.models) or tfserving.look_up(method, path, headers, self.models)
        if oip.owns(path):
            return (
                oip.ask_for(method, path, headers, self.models)
                or oip.work_for(method, path, self.repository)
                or oip.look_up(
                    method, path, self.models, self.metrics, ready=self.ready, repository=self.repository is not None
                )
            )
        raise RequestError("Not Found", status=404)

    async def beside(self, run: Callable[[], T]) -> T:
        """Run what computes a little, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._parsers, run)

    async def _work(self, work: Work, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        body, held = await read_body(headers, receive, self.held, self.limits)
        try:
            return await asyncio.to_thread(work.run, body)
        finally:
            self.held.release(held)

    async def _infer(self, model: Model, parse: Parse, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        model.check_load()  # said before the body is read and decoded for nothing
        with noted("reading"):
            body, held = await read_body(headers, receive, self.held, self.limits)
        try:
            with noted("decoding"):
                if len(body) <= _SMALL_BYTES:
                    ask = parse(body)
                else:
                    ask = await asyncio.get_running_loop().run_in_executor(self._parsers, parse, body)
            del body
            answers = await self._wait(model.submit(ask.rows), receive)
            with noted("encoding"):
                return ask.reply(answers)
        finally:
            self.held.release(held)

    async def _wait(self, future: Future[list[Any]], receive: Receive) -> list[Any]:
        """Wait for the answers, for the client to leave, or for the deadline, whichever is first."""
        loop = asyncio.get_running_loop()
        first = loop.create_future()

        def wake(_: object = None) -> None:
            if not first.done():
                first.set_result(None)

        thread = threading.get_ident()

        def answered(_: object) -> None:
            if threading.get_ident() == thread:
                wake()
                return
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        future.add_done_callback(answered)
        left: asyncio.Task[None] | None = None

        def watch() -> None:
            nonlocal left
            left = loop.create_task(_until_client_leaves(receive))
            left.add_done_callback(wake)

        watching = loop.call_later(_UNWATCHED_SECONDS, watch)
        deadline = loop.call_later(self.limits.deadline_seconds, wake)
        try:
            await first
            if future.done():
                return future.result()
            if left is not None and left.done():
                raise ClientLeftError
            raise RequestError(f"Deadline exceeded: no answer within {self.limits.deadline_seconds:g} s", status=504)
        finally:
            deadline.cancel()
            watching.cancel()
            if left is not None:
                left.cancel()
            future.cancel()


def _noting_status(trace: Trace, send: Send) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            trace.status = message["status"]
        await send(message)

    return noting


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
