"""A connection whose request heads are bounded in size and time, which uvicorn's is not, and whose writes are few."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from thrifty.serve.asgi import App
from thrifty.serve.direct import Direct, is_direct

HEAD_BYTES = 64 * 2**10
HEAD_SECONDS = 30.0


class Gathered:
    """A transport whose writes of one turn of the event loop go out together: the head of an answer with its body."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def send(self, data: bytes) -> None:
        """Send it now, after what is held."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            self._transport.write(b"".join(self._held))
            self._held = []


class Connection(HttpToolsProtocol):
    """uvicorn's connection, closed when a request's line and headers are too long or too slow to come.

    Between requests uvicorn's own keep-alive timeout holds; before the first one, and from the first byte of a head
    on, this one does. Requests to models are answered by `Direct`, all others by the ASGI application.
    """

    cycle: Any
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_is_open = False
    _answering: Direct | None = None

    def connection_made(self, transport: Any) -> None:
        self._gathered = gathered = Gathered(transport, self.loop)
        super().connection_made(cast(Any, gathered))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        if self._answering is not None:
            self._answering.leave()
        # a request that is not begun is none any more
        self.pipeline.clear()
        if isinstance(self.cycle, Direct):
            self.cycle = None
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_is_open, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._head_is_here()
        method, app = self.parser.get_method(), self.app
        direct = is_direct(method, self.url, self.headers) and not self.parser.should_upgrade()
        if not direct or not isinstance(app, App) or app.traced:
            super().on_headers_complete()
            return
        before, keep = self.cycle, self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.cycle = Direct(
            app, self.url, self.headers, client=self.client[0] if self.client else "", keep_alive=keep,
            waits=self.expect_100_continue, write=self._gathered.send, begun=self._begun, done=self._answered,
        )  # fmt: skip
        if before is None or before.response_complete:
            self.cycle.start()
        else:
            self.flow.pause_reading()
            waiting: Any = (self.cycle, app)
            self.pipeline.appendleft(waiting)

    def on_body(self, body: bytes) -> None:
        if isinstance(self.cycle, Direct):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if isinstance(self.cycle, Direct):
            self.cycle.end()
        else:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_is_open:
            self._expect_head()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.close()
        if self._answering is not None:
            self._answering.expect_body()

    def _begun(self, request: Direct) -> None:
        self._answering = request

    def _answered(self, close: bool) -> None:
        self._answering = None
        if close:
            self.transport.close()
        self.on_response_complete()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_is_here(self) -> None:
        self._head_is_open = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
