"""The line between a rank and the process that started it: what happened goes up, what is asked and spent down."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path

import torch

from thrifty.errors import ThriftyError
from thrifty.spec import Spent
from thrifty.spec.events import Event
from thrifty.spec.steering import Steering

# how often a rank says what it uses
USE_SECONDS = 1.0


@dataclass(frozen=True)
class Use:
    """What a rank used until now.

    Attributes:
        cpu_s: processor seconds.
        peak_rss_bytes: largest resident memory.
        written_bytes: to storage.
        device_peak_bytes: largest memory allocated on its accelerator.
    """

    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    written_bytes: int = 0
    device_peak_bytes: int = 0


@dataclass(frozen=True)
class Hello:
    """A rank is there, as this process."""

    rank: int
    pid: int


@dataclass(frozen=True)
class Told:
    """The first rank's loop said this."""

    event: Event


@dataclass(frozen=True)
class Ended:
    """A rank ends by itself: what it returns, the error a user can mend, or the text of any other."""

    result: object = None
    error: ThriftyError | None = None
    broke: str = ""


Message = Hello | Told | Use | Ended


class Line:
    """A rank's end of the line. Where the other end is gone, so is this process, at once.

    Args:
        address: the socket that the launcher listens at.
        rank: this process's number.
    """

    def __init__(self, address: Path, rank: int) -> None:
        self._connection: Connection = Client(str(address), "AF_UNIX")
        self._lock = threading.Lock()
        self.spent, self.steering = Spent(), Steering()
        self.say(Hello(rank, os.getpid()))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what the launcher says and tell it what is used, while in the block."""
        done = threading.Event()
        threading.Thread(target=self._hear, args=(done,), name="line", daemon=True).start()
        counting = threading.Thread(target=self._count, args=(done,), name="use")
        counting.start()
        try:
            yield
        finally:
            done.set()
            counting.join()

    def say(self, message: Message) -> None:
        """Send a message up."""
        with self._lock:
            self._connection.send(message)

    def _hear(self, done: threading.Event) -> None:
        try:
            while True:
                heard = self._connection.recv()
                if isinstance(heard, Steering):
                    self.steering = heard
                else:
                    self.spent = heard
        except (EOFError, OSError):
            # nobody reads the ledger any more, and another run may have the folder by now
            if not done.is_set():
                os._exit(1)

    def _count(self, done: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not done.wait(USE_SECONDS):
                self.say(use())
            self.say(use())


def use() -> Use:
    """Say what this process used until now."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    # kibibytes but on macOS; blocks of 512 bytes; see getrusage(2)
    unit = 1 if sys.platform == "darwin" else 1024
    on_device = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    return Use(own.ru_utime + own.ru_stime, own.ru_maxrss * unit, own.ru_oublock * 512, on_device)
