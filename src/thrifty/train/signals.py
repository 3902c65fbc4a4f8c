"""Signals that ask a run to end: the step at work is finished and saved first; a second Ctrl-C ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from signal import Signals
from types import FrameType
from typing import TypeVar

from thrifty.errors import SignalledError
from thrifty.train.ranks import ALONE, World

Item = TypeVar("Item")

# Ctrl-C; what `kill`, SLURM at its time limit and a spot machine's notice send; what SLURM's --signal is told to send
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# what Python handles them by, when nobody else does
_OWN = (signal.SIG_DFL, signal.default_int_handler)


class LeftOff(Exception):  # noqa: N818 - a signal, not an error
    """Work that a signal cut short; it can be done again from the start."""


@dataclass
class Asked:
    """Which signal asked for the end; None while none did.

    Attributes:
        signal: what asked; of several ranks, what all of them know of.
        heard: what this process was told, which the others may not know of yet.
        world: the ranks.
    """

    signal: Signals | None = None
    heard: Signals | None = None
    world: World = ALONE

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal.

        Raises:
            KeyboardInterrupt: it is Ctrl-C, and not the first signal.
        """
        if self.heard is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.heard = self.heard or signal.Signals(number)
        if self.world.size == 1:
            self.signal = self.heard

    def agree(self) -> None:
        """Have all ranks know what one of them was told; they ask at the same place of their work."""
        if self.world.size > 1 and self.signal is None:
            told = int(max(self.world.gather(self.heard or 0))[0])
            self.signal = signal.Signals(told) if told else None

    def through(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on while nothing asks for the end.

        Raises:
            LeftOff: a signal did.
        """
        for item in items:
            self.agree()
            if self.signal is not None:
                raise LeftOff
            yield item

    def error(self, saved: str) -> SignalledError:
        """The error to leave with; ``saved`` says what was."""
        assert self.signal is not None
        return SignalledError(saved, signal=self.signal.name, number=self.signal)


@contextlib.contextmanager
def asked_to_end(world: World = ALONE) -> Iterator[Asked]:
    """Listen for the signals that ask a run to end, while in the block; what handled them before does so again after.

    Outside the main thread, which alone hears signals, nothing is listened for. A signal that is ignored (as ``nohup``
    has it) or that the caller handles is left alone.

    >>> import os
    >>> with asked_to_end() as asked:
    ...     os.kill(os.getpid(), signal.SIGUSR1)
    >>> asked.signal.name
    'SIGUSR1'
    """
    asked = Asked(world=world)
    heard = ASKING if threading.current_thread() is threading.main_thread() else ()
    before = {number: handler for number in heard if (handler := signal.getsignal(number)) in _OWN}
    for number in before:
        signal.signal(number, asked.hear)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
