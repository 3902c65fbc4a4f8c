"""`OpenAI`: answers the protocol's requests; streams are told while they are written, until their client leaves."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.batcher import OverloadError
from thrifty.serve.generation.order import Piece
from thrifty.serve.http import CLIENT_LEFT, ClientLeftError, Held, Receive, Reply, Send, read_body
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Models
from thrifty.serve.openai.asking import Asked, ask_chat, ask_completion, find, parse_body
from thrifty.serve.openai.fields import FieldError
from thrifty.serve.openai.replies import Replies, error_event, error_reply, list_models
from thrifty.serve.spans import named, noted

logger = logging.getLogger("thrifty.serve")

_ASKS = {"/v1/completions": ask_completion, "/v1/chat/completions": ask_chat}
_MODELS = "/v1/models"
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


def owns(method: str, path: str) -> bool:
    """Say whether a request is this protocol's; paths below ``/v1/models`` are TensorFlow Serving's."""
    return path in _ASKS or (path == _MODELS and method == "GET")


class OpenAI:
    """The protocol over a server's models.

    Args:
        models: of the server.
        limits, metrics, held: of the server.
    """

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, held: Held) -> None:
        self._models, self._limits, self._metrics, self._held = models, limits, metrics, held

    async def answer(self, method: str, path: str, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Answer one request; errors too."""
        begun = time.perf_counter()
        label, status = "", 200
        with ExitStack() as stack:
            try:
                if path == _MODELS:
                    await list_models(self._models).send(send)
                    return
                if method != "POST":
                    raise FieldError(
                        f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)",
                        code="method_not_supported",
                        status=405,
                    )
                asked = await self._read(path, headers, receive, stack)
                label = asked.model.label
                named(label, "openai")
                status = await self._write(asked, receive, send)
            except ClientLeftError:
                status = CLIENT_LEFT
            except ThriftyError as error:
                if isinstance(error, OverloadError):
                    self._metrics.shed.labels(label).inc()
                reply = error_reply(error, *_retry_after(error))
                status = reply.status
                await reply.send(send)
            except Exception:
                logger.exception("%s %s failed", method, path)
                status = 500
                await error_reply(RequestError("Internal error; the server's log says more", status=500)).send(send)
        self._metrics.request_done(label, "openai", status, time.perf_counter() - begun)

    async def _read(self, path: str, headers: dict[bytes, bytes], receive: Receive, stack: ExitStack) -> Asked:
        """Read a request and hold its model until the stack is closed."""
        with noted("reading"):
            body, held = await read_body(headers, receive, self._held, self._limits)
        stack.callback(self._held.release, held)
        given = parse_body(body)
        model, writer = find(given, self._models, path=path)
        while not model.hold():  # it was unloaded since it was found
            model, writer = find(given, self._models, path=path)
        stack.callback(model.release)
        with noted("decoding"):
            return await asyncio.to_thread(_ASKS[path], given, model, writer)

    async def _write(self, asked: Asked, receive: Receive, send: Send) -> int:
        """Have the texts written and tell of them; returns the status for the metrics."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[tuple[int, Piece | RequestError]] = asyncio.Queue()

        def tells(index: int) -> Callable[[Piece | RequestError], None]:
            def tell(piece: Piece | RequestError) -> None:
                loop.call_soon_threadsafe(heard.put_nowait, (index, piece))

            return tell

        orders = [(order, tells(index)) for index, order in enumerate(asked.orders)]
        writings = asked.writer.write(orders, deadline=time.monotonic() + self._limits.text_seconds)
        left = asyncio.ensure_future(_until_client_leaves(receive))
        try:
            if asked.stream:
                return await _stream(asked, heard, left, send)
            reply = await _whole(asked, heard, left)
            await reply.send(send)
            return reply.status
        finally:
            left.cancel()
            asked.writer.drop(writings)


Heard = asyncio.Queue[tuple[int, Piece | RequestError]]


async def _whole(asked: Asked, heard: Heard, left: asyncio.Future[None]) -> Reply:
    """Wait for the last piece of each choice."""
    last: dict[int, Piece] = {}
    while len(last) < len(asked.orders):
        index, piece = await _next(heard, left)
        if isinstance(piece, RequestError):
            raise piece
        last[index] = piece
    with noted("encoding"):
        return Replies(asked).whole([last[index] for index in range(len(asked.orders))])


async def _stream(asked: Asked, heard: Heard, left: asyncio.Future[None], send: Send) -> int:
    """Tell pieces as they come. An error before the first one is an error reply; later it is an event."""
    replies = Replies(asked)
    first = await _next(heard, left)
    if isinstance(first[1], RequestError):
        raise first[1]
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
    waiting, events, status = len(asked.orders), [*replies.begin()], 200
    now: tuple[int, Piece | RequestError] | None = first
    while waiting:
        index, piece = now or await _next(heard, left)
        now = None
        if isinstance(piece, RequestError):
            events.append(error_event(piece))
            status = piece.status
            break
        events.append(replies.piece(index, piece))
        waiting -= bool(piece.end)
        if waiting and not heard.empty():
            continue
        await send({"type": "http.response.body", "body": b"".join(events), "more_body": True})
        events = []
    if status == 200:
        events += replies.end()
    await send({"type": "http.response.body", "body": b"".join(events)})
    return status


async def _next(heard: Heard, left: asyncio.Future[None]) -> tuple[int, Piece | RequestError]:
    """The next thing heard.

    Raises:
        ClientLeftError: the client left before it.
    """
    if not heard.empty():
        return heard.get_nowait()
    coming = asyncio.ensure_future(heard.get())
    try:
        await asyncio.wait((coming, left), return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        raise ClientLeftError
    finally:
        coming.cancel()


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _retry_after(error: ThriftyError) -> list[tuple[bytes, bytes]]:
    if not isinstance(error, OverloadError):
        return []
    return [(b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode())]
