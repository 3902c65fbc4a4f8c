"""`Direct`: a request to a model that a connection answers by itself, without ASGI's scope, task and messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.gate import REQUEST_ID, Gate
from thrifty.serve.http import CLIENT_LEFT, Reply, too_large
from thrifty.serve.logs import id_of
from thrifty.serve.question import Asked, Desk, Question

Headers = list[tuple[bytes, bytes]]

_ENDS = (b":predict", b"/infer", b":classify", b":regress")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answers(Protocol):
    """What answers for models, as `thrifty.serve.asgi.App` does."""

    desk: Desk
    gate: Gate

    def find(self, method: str, path: str, headers: dict[bytes, bytes]) -> Reply | Asked:
        """Find whom a POST to a model is for, held for it; or the answer, where there is none."""


def is_direct(method: bytes, url: bytes, headers: Headers) -> bool:
    """Say whether a request is one that needs no more than its path, its headers and its body as it comes.

    >>> is_direct(b"POST", b"/v1/models/cats:predict", [(b"content-length", b"2")])
    True
    >>> is_direct(b"POST", b"/v1/models/cats:predict", [(b"content-encoding", b"gzip")])
    False
    """
    plain = method == b"POST" and url.endswith(_ENDS) and url[:1] == b"/" and b"%" not in url and b"?" not in url
    return plain and not any(name == b"content-encoding" for name, _ in headers)


class Direct:
    """Stands where uvicorn has the cycle of a request and its response; all of it on the event loop.

    Args:
        app: that answers.
        url, headers: of the request.
        client: address that it came from.
        keep_alive: whether the connection goes on after it.
        waits: whether the client waits to be told to send its body.
        write: sends bytes to the client.
        begun: is told when it is this one's turn.
        done: is told once all was sent, and whether the connection is to close.

    Attributes:
        response_complete, keep_alive: as uvicorn's cycle has them.
    """

    def __init__(
        self,
        app: Answers,
        url: bytes,
        headers: Headers,
        *,
        client: str,
        keep_alive: bool,
        waits: bool,
        write: Callable[[bytes], None],
        begun: Callable[[Direct], None],
        done: Callable[[bool], None],
    ) -> None:
        self._app, self._path, self._headers = app, url.decode("ascii", "replace"), dict(headers)
        self._client, self._waits, self._write, self._tell, self._done = client, waits, write, begun, done
        self.keep_alive, self.response_complete, self.disconnected = keep_alive, False, False
        self._parts: list[bytes] = []
        self._size = 0
        self._is_whole = False
        self._question: Question | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._begun = 0.0
        self._request_id = ""

    def start(self) -> None:
        """Find who is to answer, or refuse, before the body is read for nothing."""
        self._tell(self)
        self._begun = time.perf_counter()
        self._request_id = id_of(self._headers.get(REQUEST_ID))
        refusal = self._app.gate.refusal("POST", self._path, self._headers)
        found = refusal or self._app.find("POST", self._path, self._headers)
        if isinstance(found, Reply):
            self._send(found)
            return
        self._question = question = Question(self._app.desk, found, f"POST {self._path}", self._send)
        announced = self._headers.get(b"content-length", b"0")
        if not question.check():
            return
        if announced.isdigit() and int(announced[:20]) > self._app.desk.limits.body_bytes:
            question.fail(too_large(self._app.desk.limits))
            return
        if self._waits:
            self._write(_CONTINUE)
        parts, self._parts = self._parts, []
        for part in parts:
            self.take(part)
        if self._is_whole:
            self.end()

    async def run_asgi(self, app: object) -> None:
        """Start, where uvicorn does so with what waited for earlier requests of its connection."""
        self.start()

    def take(self, part: bytes) -> None:
        """Take a part of the body."""
        if self.response_complete:
            return
        if self._question is None:
            self._parts.append(part)
        else:
            self._hold(part)

    def end(self) -> None:
        """The body is whole."""
        self._is_whole = True
        if self._slow is not None:
            self._slow.cancel()
        if self._question is not None and not self.response_complete:
            parts, self._parts = self._parts, []
            self._question.ask(parts[0] if len(parts) == 1 else b"".join(parts))

    def expect_body(self) -> None:
        """Bound the time for what is missing of the body; to be called when all that came was taken."""
        if self._slow is None and not self._is_whole and not self.response_complete and self._question is not None:
            loop = asyncio.get_running_loop()
            self._slow = loop.call_later(self._app.desk.limits.body_seconds, self._too_slow)

    def leave(self) -> None:
        """Its client left."""
        if self.response_complete or self.disconnected:
            return
        self.disconnected = True
        if self._question is not None:
            self._question.leave()
        self._finish(CLIENT_LEFT)

    def _hold(self, part: bytes) -> None:
        assert self._question is not None
        limits, held = self._app.desk.limits, self._app.desk.held
        try:
            if self._size + len(part) > limits.body_bytes:
                raise too_large(limits)
            held.take(len(part))
        except ThriftyError as error:
            self._question.fail(error)
            return
        self._size += len(part)
        self._parts.append(part)

    def _too_slow(self) -> None:
        if self._question is not None:
            seconds = self._app.desk.limits.body_seconds
            self._question.fail(RequestError(f"The body did not arrive within {seconds:g} s", status=408))

    def _send(self, reply: Reply) -> None:
        self.response_complete = True
        close = reply.close or not self.keep_alive
        head = [
            STATUS_LINE[reply.status],
            b"content-type: %b\r\ncontent-length: %d\r\n" % (reply.content_type, len(reply.body)),
            *(b"%b: %b\r\n" % header for header in reply.headers),
            b"connection: close\r\n" if close else b"",
            b"x-request-id: %b\r\n\r\n" % self._request_id.encode(),
            reply.body,
        ]
        self._write(b"".join(head))
        self._finish(reply.status)
        self._done(close)

    def _finish(self, status: int) -> None:
        if self._slow is not None:
            self._slow.cancel()
        self._app.desk.held.release(self._size)
        self._size, self._parts, self._question = 0, [], None
        seconds = time.perf_counter() - self._begun
        self._app.gate.log(self._request_id, "POST", self._path, status, seconds, self._client)
