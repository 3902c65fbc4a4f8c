"""Ask a device about operator calls: another process makes each a few times on noise, and says what it took.

The caller's heap, threads and context of the GPU stay as they are, and a call that breaks its process takes nothing
else down.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Literal, Self

from thrifty.hardware.bench import flush_bytes
from thrifty.hardware.capture import Call, Key
from thrifty.spec.device import KernelPoint

# how long the other process may say nothing, and take to end
_SILENCE_S, _END_S = 60.0, 5.0
# processes that calls may break before the rest is left out
_BREAKS = 4


class Asker:
    """Asks about each kind of call once. Whoever makes one closes it: the other process holds memory.

    Closed, it may be asked again, and starts another process for that.

    Args:
        device: whose operators run; of GPUs the current one.
        threads: of the CPU.
        last_cache_bytes: more than this is written between calls.
        most_bytes: that the tensors of calls may take together; larger calls are not asked about.

    Attributes:
        device: as it was given.
        known: what was found of each kind of call.
    """

    def __init__(
        self,
        device: Literal["cpu", "cuda"] = "cpu",
        *,
        threads: int = 1,
        last_cache_bytes: int = 0,
        most_bytes: int = 1 << 40,
    ) -> None:
        self.device = device
        self.known: dict[Key, KernelPoint] = {}
        self._tried: set[Key] = set()
        self._arguments = f"{device!r}, {threads}, {flush_bytes(last_cache_bytes)}, {most_bytes}"
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection
        self._start()

    def ask(self, calls: Mapping[Key, Call], seconds: float = float("inf")) -> dict[Key, KernelPoint]:
        """Return what is known of calls once those that were not tried yet were asked about, in their order.

        What does not run there, or breaks the other process, or is too late, is left out.

        Args:
            calls: of a trace, with blanks for tensors.
            seconds: after which nothing more is begun.
        """
        ends = time.monotonic() + seconds
        for _ in range(_BREAKS):
            new, left_s = list(self._packed(calls)), ends - time.monotonic()
            if not new or left_s <= 0 or self._asked(new, left_s):
                break
        return {key: self.known[key] for key in calls if key in self.known}

    def close(self) -> None:
        """End the other process."""
        if self._process is None:
            return
        self._line.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _packed(self, calls: Mapping[Key, Call]) -> Iterator[bytes]:
        """Pack the calls that were not tried; those whose arguments cannot go to another process are left out."""
        for key, call in calls.items():
            if key not in self.known and key not in self._tried:
                with contextlib.suppress(TypeError, AttributeError, RuntimeError, pickle.PicklingError):
                    yield pickle.dumps((key, call.func.name(), call.with_func(None)))

    def _start(self) -> None:
        self._line, other = Pipe()
        program = f"from thrifty.hardware.answering import main; main({other.fileno()}, {self._arguments})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=(other.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        other.close()

    def _asked(self, new: list[bytes], seconds: float) -> bool:
        """Ask once; False where the other process broke on a call, which is not tried again."""
        if self._process is None:
            self._start()
        begun: list[Key] = []
        try:
            self._line.send((new, seconds))
            while self._line.poll(_SILENCE_S):
                said = self._line.recv()
                if said is None:
                    self._tried.update(begun)
                    return True
                if isinstance(said, Key):
                    begun.append(said)
                else:
                    self.known[Key(said.name, said.dtype, said.shapes, said.layouts)] = said
        except (EOFError, OSError):
            pass
        self.close()
        self._tried.update(begun[-1:])
        # one that breaks before its first call would break on the rest, too
        return not begun
