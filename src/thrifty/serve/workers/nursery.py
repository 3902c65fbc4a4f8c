"""`Nursery`: the process that workers are forked from, so that a new one costs no second import of torch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PROGRAM = "import sys; from thrifty.serve.workers.child import main; main(int(sys.argv[1]), sys.argv[2])"
_TRANSFER_BYTES = 2**20  # of a connection's buffer: an image goes over in one piece


class Nursery:
    """Forks workers; made at once, usable at once, and only as quick as its import of torch at first.

    A program that only forks has no threads and holds no locks, so its children begin clean; a server could not be
    forked itself. It is in a session of its own: a Ctrl-C in a terminal ends the server alone, which then drains.

    Args:
        needs: of the workers to come, as of `needs`.
        device: that they compute on, one of `thrifty.export.bundle.DEVICES`.
    """

    def __init__(self, needs: str = "torch", *, device: str = "cpu") -> None:
        self._needs, self.device = needs, device
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def fork(self, needs: str) -> tuple[socket.socket, int]:
        """Make a process with what it needs; returns the connection to it, and a descriptor of it to kill it by.

        Raises:
            OSError: the system makes no more processes.
        """
        with self._lock:
            try:
                return self._fork(needs)
            except (OSError, ValueError):
                self._stop()  # it was killed: another takes its place
                self._start()
                return self._fork(needs)

    def close(self) -> None:
        """End it; its children end as their connections are closed."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), self._needs],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            )

    def _stop(self) -> None:
        """End it; its children end when their connections are closed, or are killed by those who ask them."""
        self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _fork(self, needs: str) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                for each in (ours, theirs):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _TRANSFER_BYTES)
                socket.send_fds(self._control, [needs.encode()], [theirs.fileno()])
            pid = int(self._control.recv(32))
            # it waits for its first order, so the number is still its own
            return ours, os.pidfd_open(pid)
        except BaseException:
            ours.close()
            raise


def needs(folders: Sequence[Path]) -> str:
    """Say what workers of these bundles will load, engines and kinds of data, without looking at them closely yet."""
    names: dict[str, None] = {}
    for folder in folders:
        try:
            told = json.loads((folder / "bundle.json").read_bytes())
            names |= {str(told.get("engine", "torch")): None, str(told["data"]["kind"]): None}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # it is refused when it is read
    return " ".join(names)
