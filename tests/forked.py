"""Processes that are copies of one which has imported torch and the package: they begin where others have imported.

On Linux; elsewhere each is a process of its own from the start. What is told of memory begins with what was imported,
and hashes are seeded alike: where a test holds either, it starts an interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, cast

MOST_BYTES = 1 << 17


class Copy:
    """A copy at work, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], cwd: Path | None) -> None:
        (out, out_end), (errors, errors_end), (self._status, status_end) = (os.pipe() for _ in range(3))
        asked = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd()), "environment": dict(os.environ)}
        ends = [out_end, errors_end, status_end]
        socket.send_fds(copier(), [json.dumps(asked).encode()], ends)
        for end in ends:
            os.close(end)
        self.args = arguments
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(errors, encoding="utf-8")
        self.returncode: int | None = None
        self.pid = self._told()

    def _told(self) -> int:
        return int.from_bytes(os.read(self._status, 4), "little", signed=True)

    def poll(self) -> int | None:
        """Its exit code as `subprocess` has it, or None while it works."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = self._told()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; its exit code."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal while it works."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it says on stdout and on stderr until it ends."""
        heard = ["", ""]

        def hear(at: int, file: IO[str]) -> None:
            heard[at] = file.read()

        listeners = [threading.Thread(target=hear, args=each) for each in enumerate((self.stdout, self.stderr))]
        for each in listeners:
            each.start()
        try:
            self.wait(timeout)
        finally:
            self.kill()
            for each in listeners:
                each.join()
        return heard[0], heard[1]

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # as Popen does, but what a test left unread does not keep it
        self.stdout.close()
        self.stderr.close()
        if kind is not None:
            self.kill()
        self.wait()
        os.close(self._status)


def start(arguments: Sequence[str], cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start what `python ARGUMENTS` would: a script or ``-m`` and a module, and what it is told."""
    if sys.platform == "linux":
        return cast("subprocess.Popen[str]", Copy(arguments, cwd))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], cwd=cwd, text=True, **pipes)  # type: ignore[call-overload]


def run(arguments: Sequence[str], cwd: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Start it and wait for its end."""
    with start(arguments, cwd) as process:
        said, errors = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, said, errors)


@functools.cache
def copier() -> socket.socket:
    """The process that copies itself; it ends when this one does."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        command = [sys.executable, __file__, str(there.fileno())]
        process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def serve(server: socket.socket) -> list[str]:
    """Make a copy for each that is asked for; returns in the copies, with the arguments to go on with."""
    with selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.data is not None:
                    ready.unregister(key.fd)
                    _end(key.fd, *key.data)
                    continue
                message, ends, *_ = socket.recv_fds(server, MOST_BYTES, 3)
                if not message:
                    sys.exit()
                out, errors, status = ends
                child = os.fork()
                if not child:
                    server.close()
                    os.dup2(out, 1)
                    os.dup2(errors, 2)
                    for end in ends:
                        os.close(end)
                    return _begin(**json.loads(message))
                os.close(out)
                os.close(errors)
                os.write(status, child.to_bytes(4, "little", signed=True))
                ready.register(os.pidfd_open(child), selectors.EVENT_READ, (child, status))


def _end(watched: int, child: int, status: int) -> None:
    """Tell how a copy ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # who asked may have been killed meanwhile
    with contextlib.suppress(BrokenPipeError):
        os.write(status, code.to_bytes(4, "little", signed=True))
    os.close(status)
    os.close(watched)


def _begin(arguments: list[str], cwd: str, environment: dict[str, str]) -> list[str]:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # as in a terminal: what a shell starts aside is deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return arguments


def main() -> None:
    """Import, then serve; a copy becomes what was asked for."""
    # what is imported stays: there is no garbage to look for
    gc.disable()
    import torch._dynamo  # noqa: F401, I001
    import thrifty.api
    import thrifty.cli
    import thrifty.pipeline
    import thrifty.planner.here
    import thrifty.report
    import thrifty.train  # noqa: F401

    gc.freeze()
    gc.enable()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        go_on(arguments)
    except KeyboardInterrupt:
        # as an interpreter does that ends by Ctrl-C
        traceback.print_exc()
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def go_on(arguments: list[str]) -> None:
    """Be what was asked for."""
    if arguments[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(arguments[0]).parent)
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
