"""A call over gRPC, whatever its protocol: what a protocol brings, and how an inference is asked and waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.models import Model
from thrifty.serve.spans import named, noted

if TYPE_CHECKING:
    from thrifty.serve.asgi import App
    from thrifty.serve.protos import Protos

# of a request: fills an empty response
Answer = Callable[[Any, Any], Awaitable[None]]
# of a request, an empty response to it, and what is wrong: tells it there
Tell = Callable[[Any, Any, str], None]


@dataclass(frozen=True)
class Spoken:
    """What a protocol brings to the server.

    Attributes:
        protos: its services and messages.
        answers: what answers each method, by its name; each request of one that streams.
        open: methods that are told without a key, as their paths are.
        tells: of each method that streams, how it tells that one of its requests failed.
    """

    protos: Protos
    answers: Mapping[str, Answer]
    open: frozenset[str] = frozenset()
    tells: Mapping[str, Tell] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A parsed request: the rows to compute, and what fills the response with their answers."""

    rows: list[Any]
    fill: Callable[[list[Any]], None]


async def infer(
    app: App, protocol: str, request: Any, find: Callable[[], Model], parse: Callable[[Model], Call]
) -> None:
    """Compute a request within the server's limits, and count it.

    Args:
        app: whose models answer.
        protocol: under which it is counted.
        request: the message, whose size is held against `Limits.held_bytes`.
        find: the model that is asked.
        parse: the request for it; runs beside the event loop.

    Raises:
        ThriftyError: what is wrong with the request, or with the server.
    """
    model = find()
    while not model.hold():  # one that was unloaded between being found and being held is looked for again
        model = find()
    named(model.label, protocol)
    start, status, held = time.perf_counter(), 499, 0
    try:
        size = request.ByteSize()
        app.held.take(size)
        held = size
        with noted("decoding"):
            call = await app.beside(lambda: parse(model))
        limit = app.limits.deadline_seconds
        try:
            # a call that its client gives up is cancelled here, and its rows with it
            answers = await asyncio.wait_for(asyncio.wrap_future(model.submit(call.rows)), limit)
        except TimeoutError:
            raise RequestError(f"Deadline exceeded: no answer within {limit:g} s", status=504) from None
        with noted("encoding"):
            call.fill(answers)
        status = 200
    except ThriftyError as error:
        status = error.status if isinstance(error, RequestError) else 400
        raise
    except Exception:
        status = 500
        raise
    finally:
        app.held.release(held)
        model.release()
        app.metrics.request_done(model.label, protocol, status, time.perf_counter() - start)
