"""How a gRPC call's message is waited for: gRPC hands it over once it is whole, and holds what came of it meanwhile.

A message that comes at once costs what it weighs. Of those that take longer only so many are waited for as fit into
what the server may hold, were each as long as a message may be; one more is refused, and one that does not come ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.limits import Limits

# what is here by then costs no room: it came with the call
AT_ONCE_SECONDS = 0.25


class Receiving:
    """Messages that are under way; on the event loop alone.

    Attributes:
        room: how many more may take their time.
    """

    def __init__(self, limits: Limits) -> None:
        self._body_seconds = limits.body_seconds
        self.room = limits.held_bytes // limits.body_bytes

    async def whole(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for a message.

        Args:
            read: gives it once it is whole; asked once.

        Raises:
            RequestError: 503, as many are waited for as may be; 408, it did not come.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        refused: RequestError | None = None
        timer: asyncio.TimerHandle
        slow = False

        def end(status: int, text: str) -> None:
            nonlocal refused
            refused = RequestError(text, status=status)
            task.cancel()

        def not_at_once() -> None:
            nonlocal slow, timer
            if not self.room:
                end(503, "The server holds as many requests as it may")
                return
            slow = True
            self.room -= 1
            late = f"The request did not arrive within {self._body_seconds:g} s"
            timer = loop.call_later(max(0.0, self._body_seconds - AT_ONCE_SECONDS), end, 408, late)

        timer = loop.call_later(min(AT_ONCE_SECONDS, self._body_seconds), not_at_once)
        try:
            return await read()
        except asyncio.CancelledError:
            # somebody else may have ended the call, too
            if refused is None or task.uncancel():
                raise
            raise refused from None
        finally:
            timer.cancel()
            if slow:
                self.room += 1
