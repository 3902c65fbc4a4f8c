"""What stands before the replicas in each of Ray's proxies: asks again what a lost replica did not answer.

Whoever asks a model changes nothing, so a request can be asked twice. Of what a replica that died was computing Ray's
proxy sends nothing; here another replica gets it, as long as nothing of an answer was sent and the body was kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.http import Message, Receive, Reply, Send, error_reply

# on every answer of a replica, with its name; what lacks it is of Ray's proxy
MARK = b"x-replica"
KEPT_BYTES = 4 * 2**20  # of a body, to be sent again
HELD_BYTES = 256 * 2**20  # of all of them
TRIES = 2  # a request that two replicas were lost over is not handed to a third
_PAUSE_SECONDS = 0.1

Asgi = Callable[[Message, Receive, Send], Awaitable[Any]]


class Door:
    """ASGI middleware: a request that no replica answered is asked again, then refused in our words.

    Args:
        app: Ray's proxy.
    """

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self)
        try:
            for turn in range(TRIES):
                answer = _Answer(send)
                body.rewind()
                await self._app({**scope, "headers": list(scope["headers"])}, body.receive, answer.send)
                if answer.begun or body.left:
                    return
                if not body.whole:
                    break
                await asyncio.sleep(_PAUSE_SECONDS * turn)
            await _refusal(500).send(send)
        finally:
            self._held -= body.counted

    def take(self, count: int) -> bool:
        """Count bytes as kept; False where there is no room for them."""
        if self._held + count > HELD_BYTES:
            return False
        self._held += count
        return True


class _Body:
    """The messages of a request, kept while they pass so that they can pass again."""

    def __init__(self, receive: Receive, door: Door) -> None:
        self._receive, self._door = receive, door
        self._kept: list[Message] = []
        self._next = 0
        self.counted = 0
        self.whole = True
        self.left = False

    def rewind(self) -> None:
        self._next = 0

    async def receive(self) -> Message:
        if self._next < len(self._kept):
            self._next += 1
            return self._kept[self._next - 1]
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.left = True
            return message
        size = len(message.get("body", b""))
        if self.whole and self.counted + size <= KEPT_BYTES and self._door.take(size):
            self.counted += size
            self._kept.append(message)
            self._next += 1
        else:
            self.whole = False
            self._kept.clear()
        return message


class _Answer:
    """Passes an answer of a replica on; a refusal of the proxy itself is said in our words, a failure not at all."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._swallowed = False
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers, status = message["headers"], message["status"]
            self._swallowed = status >= 400 and not any(name.lower() == MARK for name, _ in headers)
            if not self._swallowed:
                message = {**message, "headers": _once(headers)}
            elif status != 500:
                self.begun = True
                await _refusal(status).send(self._send)
        if not self._swallowed:
            self.begun = True
            await self._send(message)


def _refusal(status: int) -> Reply:
    """Say what Ray's proxy refused: it timed out (408), or there is no replica, no room, or none lived to answer."""
    if status == 408:
        return error_reply(RequestError("Deadline exceeded: no replica answered in time", status=504))
    reply = error_reply(RequestError("No replica has room for the request", status=503))
    return Reply(reply.status, reply.body, reply.content_type, headers=((b"retry-after", b"1"),))


def _once(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Keep the first id of the request: the replica's, which Ray's proxy says once more."""
    named = False
    kept = []
    for name, value in headers:
        if name.lower() == b"x-request-id":
            if named:
                continue
            named = True
        kept.append((name, value))
    return kept


def middlewares() -> list[Any]:
    """What Ray's proxies call for their middleware; they name this function in their environment."""
    from starlette.middleware import Middleware

    return [Middleware(Door)]
