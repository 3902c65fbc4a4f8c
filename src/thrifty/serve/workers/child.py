"""The processes of workers: one that only forks, with torch loaded, and its children, each with a bundle to compute.

None of them ends by a signal to end: the server drains first, and they end when it closes their connections.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.cores import threads
from thrifty.serve.workers.wire import Incoming, Shared, send

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle

# What a worker loads, by its engine and its kind of data, so that each fork has it already. Nothing here may start a
# thread, for it would not live on in a fork: polars, of tables, does, and so do OpenVINO and ONNX Runtime.
PRELOADED = {
    "torch": "thrifty.export.weights",
    "aoti": "thrifty.export.weights",
    "image": "thrifty.data.images.image",
    "text": "thrifty.data.texts.word_pieces",
}
MAX_NEEDS_BYTES = 256
# more threads that make a batch no faster than this are not worth the time that they wait, turning round and round
LITTLE_FASTER = 1.25
# a row that takes longer is worth all threads; else both are tried, by batches of so many
LONG_ROW_S, TRIED_ROWS, TRIES = 1.5e-3, 8, 3

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def main(descriptor: int, needs: str) -> None:
    """Fork a worker for each connection that comes over this one, with what it needs; once it is closed, end all."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    importlib.import_module("thrifty.export.bundle")
    _preload(needs)
    gc.collect()
    gc.freeze()
    children: set[int] = set()

    def bury(number: int, frame: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                children.discard(pid)

    signal.signal(signal.SIGCHLD, bury)
    with socket.socket(fileno=descriptor) as control:
        while True:
            wanted, descriptors, _, _ = socket.recv_fds(control, MAX_NEEDS_BYTES, 1)
            if not wanted:
                break
            _preload(wanted.decode())
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                _end_after(descriptors[0])
            children.add(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            os.close(descriptors[0])
            control.send(str(pid).encode())
    for pid in list(children):
        os.kill(pid, signal.SIGKILL)


def _preload(needs: str) -> None:
    """Import what workers need; nothing is computed here, for a pool of threads would not survive a fork."""
    for name in needs.split():
        if name in PRELOADED:
            with contextlib.suppress(ImportError):  # the bundle says which package it lacks
                importlib.import_module(PRELOADED[name])


def _end_after(descriptor: int) -> None:
    """Work, then end without running what the forking process would run at its end."""
    code = 1
    try:
        with socket.socket(fileno=descriptor) as connection:
            work(connection)
        code = 0
    except (EOFError, ConnectionError):
        code = 0  # the server closed the connection
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def work(connection: socket.socket) -> None:
    """Load the bundle that the first frame names, then answer frames until the connection is closed.

    Frames are rows; or, where the first one says what it ``writes``, steps of a language model.

    Raises:
        EOFError: it was closed.
    """
    _, descriptors, _, _ = socket.recv_fds(connection, MAX_NEEDS_BYTES, 1)
    if not descriptors:
        raise EOFError
    incoming = Incoming(connection, Shared(descriptors[0]))
    order = incoming.receive()
    use_cores(order["cores"])
    few = False
    try:
        bundle = _load(order, threads(order["cores"]))
        use_cores(order["cores"])
        if "writes" in order:
            answer, told = _steps(bundle, order["writes"])
        else:
            alone = _on_one_thread(bundle, order)
            few, bundle = alone is not None, alone or bundle
            answer, told = _rows(bundle)
    except ThriftyError as error:
        send(connection, {"failed": str(error)})
        return
    # of a model that writes all that is needed is in its engine by now
    del bundle
    send(connection, {"ready": True, "cpu_seconds": cpu_seconds()} | told)
    while True:
        asked = incoming.receive()
        if "cores" in asked:
            use_cores(asked["cores"], few=few)
            continue
        send(connection, answer(asked) | {"cpu_seconds": cpu_seconds()})


def use_cores(cores: list[int], *, few: bool = False) -> None:
    """Keep this process to these cores, all its threads, with a thread of torch for each that it has the time of.

    With ``few`` torch has one thread, whatever the cores. Another engine keeps the number that it was loaded with.
    """
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended, or cores that were taken from the machine
            os.sched_setaffinity(int(thread.name), cores)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1 if few else threads(cores))


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _load(order: dict[str, Any], count: int) -> Bundle:
    from thrifty.errors import BundleError
    from thrifty.export.bundle import load_bundle
    from thrifty.export.check import INFO, sha256

    folder = Path(order["folder"])
    bundle = load_bundle(folder, threads=count, device=order["device"])
    if sha256(folder / INFO) != order["sha256"]:
        raise BundleError(f"the bundle in '{folder}' is another one by now", mend="Load it again.")
    return bundle


def _on_one_thread(bundle: Bundle, order: dict[str, Any]) -> Bundle | None:
    """The bundle computed by one thread, where more of them gain little; None where they are worth it.

    Threads that wait for their next share of a row take cores from whoever feeds them: OpenVINO's took 0.9 ms of a
    second core for each row of 0.5 ms that was mostly prepared by one.
    """
    count, row = threads(order["cores"]), bundle.form.made_up()
    if count == 1 or bundle.form.alone or all(_seconds(bundle, [row]) > LONG_ROW_S for _ in range(2)):
        return None
    together = min(_seconds(bundle, TRIED_ROWS * [row]) for _ in range(TRIES))
    use_cores(order["cores"], few=True)
    alone = _load(order, 1)
    if min(_seconds(alone, TRIED_ROWS * [row]) for _ in range(TRIES)) < LITTLE_FASTER * together:
        return alone
    use_cores(order["cores"])
    return None


def _seconds(bundle: Bundle, rows: list[Any]) -> float:
    bundle.form.answers(rows)
    begun = time.perf_counter()
    bundle.form.answers(rows)
    return time.perf_counter() - begun


def _rows(bundle: Bundle) -> tuple[Answer, dict[str, Any]]:
    """What computes rows; what is slow only at first is done before it is asked."""
    bundle.form.answers([bundle.form.made_up()])
    return lambda asked: _answer(bundle, asked["rows"]), {}


def _steps(bundle: Bundle, limits: dict[str, int]) -> tuple[Answer, dict[str, Any]]:
    """What takes steps of a language model, and the room that it has."""
    import msgspec

    from thrifty.export.bundle import torch_model
    from thrifty.export.writing import writing_model
    from thrifty.models.paged import Part
    from thrifty.serve.generation.engine import Engine
    from thrifty.serve.generation.turn import Turn

    info = bundle.info
    engine = Engine(writing_model(torch_model(bundle), info.model, info.data.shape[0]), **limits)
    engine.take([Turn(Part([0], 0, [0]))], fresh=[0])

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        step = asked["step"]
        turns = msgspec.convert(step["turns"], list[Turn])
        return {"outcomes": engine.take(turns, fresh=step["fresh"], moves=step["moves"])}

    return answer, {"room": engine.room}


def _answer(bundle: Bundle, rows: list[Any]) -> dict[str, Any]:
    try:
        return {"answers": bundle.form.answers(rows)}
    except RequestError as error:
        return {"refused": error.what, "mend": error.mend, "status": error.status}
    except Exception as error:
        if _ends_a_gpu(error):
            raise
        import traceback

        return {"error": type(error).__name__, "trace": traceback.format_exc()}


def _ends_a_gpu(error: Exception) -> bool:
    """Whether a GPU computes nothing any more for this process, after a kernel of its own failed: another is needed."""
    return "torch" in sys.modules and isinstance(error, sys.modules["torch"].AcceleratorError)
