"""The little of HTTP that the server needs on bare ASGI: bounded bodies, JSON answers, clients that left."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
# zlib's window for each encoding, with its own header and checksum (zlib manual)
_WINDOWS = {b"gzip": 31, b"deflate": 15}
CLIENT_LEFT = 499  # nginx's code, and TensorFlow Serving's for CANCELLED; nobody reads it but the metrics


class ClientLeftError(Exception):
    """The client closed its connection before it was answered."""


@dataclass(frozen=True)
class Reply:
    """A whole answer: status, body, whether the connection must close after it, and headers of its protocol."""

    status: int
    body: bytes
    content_type: bytes = JSON
    close: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = [(b"content-type", self.content_type), (b"content-length", str(len(self.body)).encode())]
        headers += self.headers
        if self.close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass(frozen=True)
class Work:
    """What answers a request by waiting: it is given the body, and runs beside the event loop."""

    run: Callable[[bytes], Reply]


def json_reply(value: Any, status: int = 200, *, close: bool = False) -> Reply:
    """Answer with JSON. Numbers must be finite: msgspec would write NaN as ``null``."""
    return Reply(status, msgspec.json.encode(value), close=close)


def error_reply(error: ThriftyError, *, status: int | None = None) -> Reply:
    """Answer ``{"error": ...}``; a text without a mend stands alone, as other servers of the protocol write it."""
    code = status or (error.status if isinstance(error, RequestError) else 400)
    text = str(error) if error.mend else error.what
    return json_reply({"error": text.encode("utf-8", "replace").decode()}, code, close=code in {408, 413})


@dataclass
class Held:
    """Bytes of all bodies that the server holds; counted on the event loop alone."""

    most: int
    now: int = 0

    def take(self, count: int) -> None:
        """Count bytes in, or refuse them with 503."""
        if self.now + count > self.most:
            raise RequestError("The server holds as many requests as it may", status=503)
        self.now += count

    def release(self, count: int) -> None:
        """Count bytes out."""
        self.now -= count


async def read_body(headers: dict[bytes, bytes], receive: Receive, held: Held, limits: Limits) -> tuple[bytes, int]:
    """Read a body within its bounds of size and time; returns it inflated, and the bytes counted as held.

    Raises:
        RequestError: 413 too large, 408 too slow, 415 an encoding that is not known, 400 a damaged one, 503 no room.
        ClientLeftError: the client left while it sent.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > limits.body_bytes:
        raise too_large(limits)
    parts: list[bytes] = []
    size = counted = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large(limits)
                held.take(len(part))
                counted += len(part)
                parts.append(part)
                if not message.get("more_body", False):
                    break
        body = b"".join(parts)
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding != b"identity":
            body = _inflate(body, encoding, limits)
            held.take(len(body))
            counted += len(body)
    except TimeoutError:
        held.release(counted)
        raise RequestError(f"The body did not arrive within {limits.body_seconds:g} s", status=408) from None
    except BaseException:
        held.release(counted)
        raise
    return body, counted


def _inflate(body: bytes, encoding: bytes, limits: Limits) -> bytes:
    if encoding not in _WINDOWS:
        raise RequestError("Content-Encoding is not known", status=415, mend="Send gzip, deflate, or none.")
    stream = zlib.decompressobj(wbits=_WINDOWS[encoding])
    try:
        whole = stream.decompress(body, limits.body_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"The {encoding.decode()} body is damaged: {error}") from None
    if len(whole) > limits.body_bytes:
        raise too_large(limits)
    if not stream.eof:
        raise RequestError(f"The {encoding.decode()} body is cut short")
    return whole


def too_large(limits: Limits) -> RequestError:
    """Say that a body is over its bound."""
    return RequestError(f"The body is over {limits.body_bytes} bytes", status=413, mend="Send fewer instances at once.")
