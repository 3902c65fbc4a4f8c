"""`Process`: a model's worker in a process of its own: asked over a connection, killed when it hangs, started again."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.workers.nursery import Nursery
from thrifty.serve.workers.wire import Frame, Incoming, Shared, framed, send, send_frame

logger = logging.getLogger("thrifty.serve")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 30.0
_LOAD_SECONDS = 120.0
# of a frame that is sent at once, without a wait for the other side: less than the system holds for it
_AT_ONCE_BYTES = 2**17


class Process:
    """Computes rows of a bundle elsewhere; called by one thread at a time.

    Who has something else to do in the meantime may `post` rows and `read` their answers later.

    Args:
        nursery: to be forked from.
        folder: of the bundle.
        sha256: of its description, so that a folder that was replaced is not taken for it after a restart.
        needs: what it loads: its engine and its kind of data.
        name: of the model, for logs.
        cores: that it may use.
        patience: seconds after which a batch of so many rows counts as hung.
        lost: told of each death, ``died`` or ``hung``.
        writes: limits of an `thrifty.serve.generation.engine.Engine`, where it takes steps of one, by `ask`, in place
            of computing rows.

    Attributes:
        starts: of processes, so far.
    """

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        *,
        sha256: str,
        needs: str,
        name: str,
        cores: Sequence[int],
        patience: Callable[[int], float],
        lost: Callable[[str], None] = lambda how: None,
        writes: Mapping[str, int] | None = None,
    ) -> None:
        self._nursery, self._folder, self._sha256 = nursery, folder, sha256
        self._needs, self._name = needs, name
        self._cores, self._patience, self._lost, self._writes = list(cores), patience, lost, writes
        self._told: dict[str, Any] = {}
        self._told_cores: list[int] = []
        self._connection: socket.socket | None = None
        self._incoming: Incoming | None = None
        self.starts = 0
        self._seconds = 0.0  # that the connection waits
        self._shared: Shared | None = None
        self._posted = False
        self._process = -1
        self._ending = threading.Lock()
        self._pause, self._not_before = 0.0, 0.0
        self._stopped = False
        self._cpu_before, self._cpu_now = 0.0, 0.0

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return self._cpu_before + self._cpu_now

    def use_cores(self, cores: Sequence[int]) -> None:
        """Keep to these cores from the next batch on."""
        self._cores = list(cores)

    def __call__(self, rows: list[Any]) -> Sequence[Any]:
        """Compute rows.

        Raises:
            WorkerLostError: it died or hung, or cannot be started; the next call starts it again.
            RequestError: the model refuses the rows.
            RuntimeError: the model failed.
        """
        return self._answers(self.ask({"rows": rows}, self.patience(len(rows))))

    def patience(self, rows: int) -> float:
        """Return the seconds after which a batch of so many rows counts as hung."""
        return self._patience(rows)

    def post(self, rows: list[Any]) -> bool:
        """Send rows without waiting for anything; `bell` rings once `read` has what to read.

        False, and nothing was sent, where that cannot be done at once: the process does not run yet, has to be told
        something else first, or the rows are too large.

        Raises:
            WorkerLostError: it died.
            RuntimeError: the rows cannot be sent.
        """
        if self._connection is None or self._told_cores != self._cores:
            return False
        try:
            frame = framed({"rows": rows}, self._shared)
        except TypeError as error:
            raise RuntimeError(str(error)) from error
        if sum(len(part) for part in frame) > _AT_ONCE_BYTES:
            return False
        self._posted = True
        try:
            self._exchange(lambda connection, incoming: _send_at_once(connection, frame), self._seconds)
        except BaseException:
            self._posted = False
            raise
        return True

    def bell(self) -> int:
        """Return a new descriptor that can be read when there is what to `read`; whoever asked for it closes it.

        It is one of the process that runs now; ``starts`` counts them.

        Raises:
            WorkerLostError: it was stopped.
        """
        with self._ending:
            if self._connection is None or self._connection.fileno() < 0:
                raise WorkerLostError("is stopped", by_rows=False)
            return os.dup(self._connection.fileno())

    def read(self) -> Sequence[Any] | None:
        """Return the answers to what was posted, or None where they are not there yet; errors as of a call."""
        self._posted = False
        if not self._exchange(lambda connection, incoming: incoming.has_come(), self._seconds):
            self._posted = True
            return None
        return self._answers(self._heard())

    def hung(self) -> WorkerLostError:
        """Kill it, for what was posted was not answered in time; returns the error to tell."""
        self._posted = False
        return self._end("hung", "gave no answer in time and was killed")

    def _answers(self, said: dict[str, Any]) -> Sequence[Any]:
        if "answers" in said:
            answers: list[Any] = said["answers"]
            return answers
        if "refused" in said:
            raise RequestError(said["refused"], status=said["status"], mend=said["mend"])
        logger.error("in the worker of model '%s':\n%s", self._name, said["trace"])
        raise _named_error(said["error"])

    def begin(self) -> dict[str, Any]:
        """Start it if it does not run; returns what it said once it was ready.

        Raises:
            WorkerLostError: it cannot be started.
        """
        if self._connection is None:
            self._begin()
        return self._told

    def ask(self, frame: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a frame and return the answer to it, for which it has so many seconds.

        Raises:
            WorkerLostError: it died or hung, or cannot be started; the next call starts it again.
            RuntimeError: the frame cannot be sent.
        """
        if self._connection is None:
            self._begin()
        try:
            parts = framed(frame, self._shared)
        except TypeError as error:
            raise RuntimeError(str(error)) from error

        def tell(connection: socket.socket, incoming: Incoming) -> None:
            if self._told_cores != self._cores:
                self._told_cores = self._cores
                send(connection, {"cores": self._told_cores})
            send_frame(connection, parts)

        self._exchange(tell, seconds)
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        said: dict[str, Any] = self._exchange(lambda connection, incoming: incoming.receive(), self._seconds)
        self._cpu_now = said["cpu_seconds"]
        self._pause = 0.0
        return said

    def _exchange(self, do: Callable[[socket.socket, Incoming], Any], seconds: float) -> Any:
        """Send or receive; what goes wrong with that is the end of the process."""
        connection, incoming = self._connection, self._incoming
        try:
            if connection is None or incoming is None:
                raise EOFError
            if seconds != self._seconds:
                self._seconds = seconds
                connection.settimeout(seconds)
            return do(connection, incoming)
        except TimeoutError:
            raise self._end("hung", f"gave no answer within {seconds:.3g} s and was killed") from None
        except (EOFError, OSError, ValueError):
            raise self._end("died", "died") from None

    def stop(self) -> None:
        """End the process; it is not started again."""
        self._stopped = True
        self._kill()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _begin(self) -> socket.socket:
        if self._stopped:
            raise WorkerLostError("is stopped", by_rows=False)
        if time.monotonic() < self._not_before:
            raise WorkerLostError("is being started again", by_rows=False)
        try:
            connection, self._process = self._nursery.fork(self._needs)
            self._connection = connection
            self.starts += 1
            self._seconds = _LOAD_SECONDS
            connection.settimeout(_LOAD_SECONDS)
            if self._shared is None:
                self._shared = Shared()
            self._incoming = incoming = Incoming(connection, self._shared)
            socket.send_fds(connection, [b"shared"], [self._shared.descriptor])
            place = {"cores": self._cores, "device": self._nursery.device}
            order = {"folder": str(self._folder), "sha256": self._sha256, **place}
            send(connection, order if self._writes is None else order | {"writes": self._writes})
            self._told_cores = self._cores
            said = incoming.receive()
        except (EOFError, OSError, ValueError) as error:
            raise self._end("died", f"died while it loaded ({error})", by_rows=False) from None
        if "failed" in said:
            raise self._end("died", said["failed"], by_rows=False)
        if self._stopped:
            raise self._end("died", "is stopped", by_rows=False)
        self._cpu_now, self._told = said["cpu_seconds"], said
        return connection

    def _end(self, how: str, what: str, *, by_rows: bool = True) -> WorkerLostError:
        """Make an end of the process, and say so."""
        self._kill()
        if not self._stopped:
            logger.error("the worker of model '%s' %s", self._name, what)
            self._lost(how)
        if not by_rows:  # it does not come up: try again, but ever more seldom
            self._not_before = time.monotonic() + self._pause
            self._pause = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._pause))
        return WorkerLostError(what, by_rows=by_rows)

    def _kill(self) -> None:
        with self._ending:
            if self._process >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
                ended = select.poll()
                ended.register(self._process, select.POLLIN)
                ended.poll(5000)  # ready once it has ended
                os.close(self._process)
                self._process = -1
            if self._connection is not None and self._posted:
                # someone else waits for it to be readable, which it is then, and closes it on reading
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
            elif self._connection is not None:
                self._connection.close()
                self._connection = None
            self._cpu_before, self._cpu_now = self._cpu_before + self._cpu_now, 0.0


def _send_at_once(connection: socket.socket, frame: Frame) -> None:
    """Send a small frame by a single call of the system, which one with a timeout is not."""
    try:
        sent = os.write(connection.fileno(), frame[0])
    except BlockingIOError:
        sent = 0
    if sent < len(frame[0]) or len(frame) > 1:
        send_frame(connection, [frame[0][sent:], *frame[1:]])


def _named_error(name: str) -> Exception:
    """An error of the worker by its name: its type is not to be had here."""
    error: Exception = type(name, (RuntimeError,), {})("in the worker")
    return error
