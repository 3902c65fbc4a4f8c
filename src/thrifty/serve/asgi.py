"""The server as one bare ASGI application: its protocols, health and metrics over a few models."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import thrifty.serve.oip as oip
import thrifty.serve.openai as openai
import thrifty.serve.page as page
import thrifty.serve.tfserving as tfserving
from thrifty.errors import RequestError, ThriftyError
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
    json_reply,
    read_body,
)
from thrifty.serve.keys import Keys
from thrifty.serve.labels import Labels
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Models
from thrifty.serve.oip.repository import Repository
from thrifty.serve.openapi import document
from thrifty.serve.question import SMALL_BYTES, Asked, Desk, Question, reply_to
from thrifty.serve.spans import Trace, noted
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

T = TypeVar("T")


class App:
    """An ASGI application that answers for a few bundles.

    The workers start with the server's lifespan, or with the first request where there is none.

    Attributes:
        models: what it serves.
        metrics: what it counts.
        gate: that requests pass.
        held: bytes of the requests that it holds.
        desk: what questions to its models share.
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
        self.gate = gate or Gate()
        self._telemetry = telemetry
        self.held = Held(limits.held_bytes)
        self._openai = openai.OpenAI(self.models, limits, self.metrics, self.held)
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="thrifty-parse")
        self.desk = Desk(limits, self.metrics, self.held, self._parsers)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            self.start()
            with self.following(scope["method"], scope["path"], scope["headers"]) as trace:
                if trace is not None:
                    send = _noting_status(trace, send)
                await self.gate.let_through(scope, receive, send, self._answer)
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
        return self.gate.keys

    @property
    def traced(self) -> bool:
        """Whether somebody is told what happens to requests, part by part."""
        return self._telemetry is not None

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
        path = scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else quote(scope["path"])
        method, headers = scope["method"], dict(scope["headers"])
        if openai.owns(method, path):
            await self._openai.answer(method, path, headers, receive, send)
            return
        start = time.perf_counter()
        protocol = _protocol_of(path)
        try:
            found = self._find(method, path, headers)
            if isinstance(found, Work):
                found = await self._work(found, headers, receive)
        except ClientLeftError:
            self.metrics.request_done("", protocol, CLIENT_LEFT, time.perf_counter() - start)
            return
        except Exception as error:
            found = self._refused(error, method, path, time.perf_counter() - start)
        reply = await self._infer(found, f"{method} {path}", headers, receive) if isinstance(found, Asked) else found
        if reply is not None:
            await reply.send(send)

    def find(self, method: str, path: str, headers: dict[bytes, bytes]) -> Reply | Asked:
        """Find whom a POST to a model is for, held for it; or the answer, where there is none."""
        start = time.perf_counter()
        try:
            found = self._find(method, path, headers)
            if isinstance(found, Work):
                raise RequestError("Not Found", status=404)
        except Exception as error:
            return self._refused(error, method, path, time.perf_counter() - start)
        return found

    def _refused(self, error: Exception, method: str, path: str, seconds: float) -> Reply:
        """Answer, and count, what goes wrong before a model is found."""
        protocol = _protocol_of(path)
        if not isinstance(error, ThriftyError):
            logger.error("%s %s failed", method, path, exc_info=error)
            error = RequestError("Internal error; the server's log says more", status=500)
        reply = reply_to(error, protocol)
        self.metrics.request_done("", protocol, reply.status, seconds)
        return reply

    def _find(self, method: str, path: str, headers: dict[bytes, bytes]) -> Reply | Work | Asked:
        found = self._route(method, path, headers)
        # one that was unloaded between being found and being held is looked for again
        while isinstance(found, Asked) and not found.model.hold():
            found = self._route(method, path, headers)
        return found

    def _route(self, method: str, path: str, headers: dict[bytes, bytes]) -> Reply | Work | Asked:
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
            asked = tfserving.ask_for(method, path, self.models)
            return Asked(*asked, "tfserving") if asked else tfserving.look_up(method, path, headers, self.models)
        if oip.owns(path):
            asked = oip.ask_for(method, path, headers, self.models)
            if asked:
                model, length = asked[0], headers.get(oip.HEAD_LENGTH)
                return Asked(*asked, "oip", lambda size: size <= SMALL_BYTES or oip.is_light(model, length, size))
            return oip.work_for(method, path, self.repository) or oip.look_up(
                method, path, self.models, self.metrics, ready=self.ready, repository=self.repository is not None
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

    async def _infer(self, asked: Asked, where: str, headers: dict[bytes, bytes], receive: Receive) -> Reply | None:
        """Wait for the reply, or for the client to leave, whichever is first."""
        loop = asyncio.get_running_loop()
        first: asyncio.Future[Reply | None] = loop.create_future()

        def tell(reply: Reply | None) -> None:
            if not first.done():
                first.set_result(reply)

        question = Question(self.desk, asked, where, tell)
        held, left, watching = 0, None, None

        def watch() -> None:
            nonlocal left
            left = loop.create_task(_until_client_leaves(receive))
            left.add_done_callback(lambda _: tell(None))

        try:
            if question.check():
                with noted("reading"):
                    body, held = await read_body(headers, receive, self.held, self.limits)
                question.ask(body)
                del body
                watching = loop.call_later(_UNWATCHED_SECONDS, watch)
            return await first
        except ClientLeftError:
            return None
        except Exception as error:
            question.fail(error)
            return await first
        finally:
            question.leave()
            if watching is not None:
                watching.cancel()
            if left is not None:
                left.cancel()
            self.held.release(held)


def _protocol_of(path: str) -> str:
    return "tfserving" if tfserving.owns(path) else "oip" if oip.owns(path) else ""


def _noting_status(trace: Trace, send: Send) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            trace.status = message["status"]
        await send(message)

    return noting


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
