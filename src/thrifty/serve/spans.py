"""What happens to one request, part by part: noted by whoever does the part, where somebody wants to know.

Units: seconds of `time.monotonic`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """One thing that was done for a request, from ``begun`` to ``ended``, with what there is to say of it."""

    name: str
    begun: float
    ended: float
    says: dict[str, int | str] = field(default_factory=dict)


@dataclass
class Trace:
    """A request and its parts; added to by the event loop and by workers.

    Attributes:
        begun: when it came.
        model, protocol: that it is for; empty until that is known.
        status: that it was answered with; 0 before.
        parts: in the order in which they ended.
    """

    begun: float = field(default_factory=time.monotonic)
    model: str = ""
    protocol: str = ""
    status: int = 0
    parts: list[Part] = field(default_factory=list)

    def note(self, name: str, begun: float, ended: float, **says: int | str) -> None:
        """Add a part."""
        self.parts.append(Part(name, begun, ended, says))


# of the request that is being answered; None where nobody wants to know
TRACE: ContextVar[Trace | None] = ContextVar("thrifty_trace", default=None)


def named(model: str, protocol: str) -> None:
    """Say which model the request at hand is for."""
    trace = TRACE.get()
    if trace is not None:
        trace.model, trace.protocol = model, protocol


def noted(name: str) -> AbstractContextManager[None]:
    """Note what is done inside as a part of the request at hand.

    >>> trace = Trace()
    >>> token = TRACE.set(trace)
    >>> with noted("encoding"):
    ...     pass
    >>> TRACE.reset(token)
    >>> [part.name for part in trace.parts]
    ['encoding']
    """
    trace = TRACE.get()
    return _NOTHING if trace is None else _noting(trace, name)


_NOTHING = nullcontext()


@contextmanager
def _noting(trace: Trace, name: str) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        trace.note(name, begun, time.monotonic())
