"""Workers side by side: processes of this machine that share its cores out, each of which carries the search on.

``python -m thrifty.tune.workers TASK`` is one of them; TASK is the file of a `Task`. It ends itself when whoever
started it is gone. Workers speak to each other, and to that process, through the study alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from thrifty.data import Store
from thrifty.errors import SignalledError, ThriftyError, WorkerLostError
from thrifty.hardware import probe
from thrifty.planner.devices import share_of
from thrifty.runs import RunFolder
from thrifty.spec import Device, Quantity, Spent
from thrifty.spec.events import Emit, Event, Tried, WentOn
from thrifty.train import probe_steps
from thrifty.train.signals import asked_to_end
from thrifty.train.steering import Steer
from thrifty.tune.pricing import Pricer
from thrifty.tune.record import Price
from thrifty.tune.search import Worker
from thrifty.tune.storage import Study
from thrifty.tune.task import Aim, Task
from thrifty.tune.told import trial_of

# how often the study is looked at, and how long workers that were asked to end may take to save
LOOK_SECONDS, GRACE_SECONDS = 1.0, 60.0
# a worker's own view of what all took is renewed so often
SPENT_SECONDS = 5.0
# what a worker ends with: its last line says the rest
_SAYS = "thrifty-worker: "


def share_for(device: Device, workers: int, gpus: int = 1) -> Device:
    """What one of so many workers has of this machine: cores, bandwidth and memory, and its part of power and price.

    Workers on one GPU take turns on it; its memory is shared out. Of several GPUs each has one.

    Args:
        device: of the machine; of several GPUs one.
        workers: that work at a time.
        gpus: that they are placed on in turn, no more than there are workers.

    >>> from thrifty.hardware import find_device
    >>> share_for(find_device("h100"), 1) == find_device("h100")
    True
    >>> share_for(find_device("h100"), 8, gpus=8).memory_bytes == find_device("h100").memory_bytes
    True
    """
    if workers == 1:
        return device
    if device.kind == "cpu":
        share, parts = share_of(device, workers), workers
    else:
        cores, parts = max(1, device.host_cores // workers), math.ceil(workers / gpus)
        share = device.model_copy(update={"host_cores": cores, "memory_bytes": device.memory_bytes // parts})
    return share.model_copy(
        update={name: _part(getattr(device, name), parts) for name in ("idle_watts", "busy_watts", "usd_per_hour")}
    )


def gpus_for(device: Device, workers: int) -> tuple[str, ...]:
    """Name the GPUs that workers beside each other are placed on, by uuid; none where all have the one there is.

    Of several kinds those count that ``device`` is one of: it is what everything is priced for.
    """
    if device.kind != "cuda" or workers == 1:
        return ()
    alike = [gpu.uuid for gpu in probe().gpus if gpu.name == device.name]
    return tuple(alike[:workers]) if len(alike) > 1 else ()


def _part(quantity: Quantity, parts: int) -> Quantity:
    return quantity.model_copy(update={"value": quantity.value / parts})


def carry(task: Task, emit: Emit) -> str:
    """Be a worker of a search, until nothing is left to do; returns why.

    Raises:
        ThriftyError: as `Worker.work`.
    """
    store = Store(task.store)
    study = Study(task.url, task.key, rises=task.aim.rises, emit=emit)
    waited: list[float] = []

    def hear(event: Event) -> None:
        if isinstance(event, WentOn):
            waited.append(event.seconds)
        emit(event)

    # where its machine does not see the folder of the search, nothing is asked of it
    steer = RunFolder(task.folder).steering
    spent = spent_by_all(task, study, steer, lambda: math.fsum(waited))
    try:
        with tempfile.TemporaryDirectory(prefix="thrifty-worker-") as scratch:
            pricer = Pricer(
                task.job,
                store,
                task.device,
                probe=lambda draft: probe_steps(draft, store, Path(scratch)),
                targeted=task.aim.goal == "cheapest",
                plans=task.plans,
            )
            return Worker(task, study, store, pricer, spent=spent, emit=hear, steer=steer).work()
    finally:
        study.close()


def spent_by_all(task: Task, study: Study, steer: Steer, waited: Callable[[], float]) -> Callable[[], Spent]:
    """Return what tells the spent of the whole search, as far as a worker knows it: trials have their bills.

    Args:
        task, study: the search.
        steer: says what is asked of it, such as a limit that it did not begin with.
        waited: seconds in which this worker waited as it was asked, and so did all others; they are on no bill.
    """
    known: list[tuple[float, Price]] = []
    limited = task.budget.energy is not None or task.budget.money is not None

    def spent() -> Spent:
        wall_s = task.earlier_s + time.time() - task.began_at - waited()
        # the study is asked for the rest only where something hangs on it
        if not limited and not {"joules", "usd"} & steer().limits.keys():
            return Spent(wall_s=wall_s)
        if not known or time.monotonic() - known[0][0] > SPENT_SECONDS:
            total = Price()
            for each in study.records():
                total = total.plus(each.said.spent)
            known[:] = [(time.monotonic(), total)]
        usd = wall_s * task.device.usd_per_hour.value / 3600 * task.workers
        return Spent(wall_s=wall_s, joules=known[0][1].joules, usd=usd)

    return spent


class Crew(Protocol):
    """Workers that were started, wherever they are."""

    def poll(self) -> bool:
        """Whether any still works."""

    def stop(self, number: signal.Signals) -> None:
        """Ask all to save what they are at, and to end."""

    def finish(self) -> Sequence[Outcome]:
        """What each ended with."""


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: why it stopped; or, where it broke, an error."""

    reason: str = ""
    error: ThriftyError | None = None


def follow(crew: Crew, study: Study, aim: Aim, *, emit: Emit, look: Callable[[], None]) -> str:
    """Tell what becomes of the trials until all workers have ended; returns why they did.

    Args:
        crew: the workers.
        study, aim: what they are at.
        emit: is told of each trial that began or stopped.
        look: is called now and then: for the bill.

    Raises:
        SignalledError: a signal asked for the end; the trials at work are saved.
        ThriftyError: what the workers ended with, where none of them came to an end of its own.
    """
    known = {each.number: each for each in study.records()}
    best = max((good for each in known.values() if not math.isnan(good := aim.goodness(each))), default=-math.inf)

    def tell() -> None:
        nonlocal best
        for each in study.records():
            before, goodness = known.get(each.number), aim.goodness(each)
            if before is None or before.status != each.status or before.said.step != each.said.step:
                emit(Tried(trial_of(each, aim), aim.metric, goodness > best and each.status != "running"))
            best = goodness if goodness > best else best
            known[each.number] = each

    with asked_to_end() as asked:
        asked_at = 0.0
        while crew.poll():
            if asked.signal is not None and not asked_at:
                asked_at = time.monotonic()
                crew.stop(asked.signal)
            if asked_at and time.monotonic() - asked_at > GRACE_SECONDS:
                crew.stop(signal.SIGKILL)
            time.sleep(LOOK_SECONDS)
            tell()
            look()
        outcomes = crew.finish()
        study.reclaim()
        tell()
    if asked.signal is not None:
        raise asked.error("the trials at work and those before them are kept")
    return _reason(outcomes)


def _reason(outcomes: Sequence[Outcome]) -> str:
    reasons = [each.reason for each in outcomes if each.error is None]
    if reasons:
        return reasons[0]
    errors = [each.error for each in outcomes if each.error is not None]
    # one that a user can mend tells more than a worker that is gone
    raise min(errors, key=lambda error: isinstance(error, WorkerLostError))


def environment_of(task: Task, number: int) -> dict[str, str]:
    """What the process of a worker has of its own: threads for its cores, and of several GPUs one that it sees."""
    threads = str(task.device.threads)
    own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return own | ({"CUDA_VISIBLE_DEVICES": task.gpus[number % len(task.gpus)]} if task.gpus else {})


class Processes:
    """Worker processes of this machine.

    Args:
        task: with ``workers``, how many.
        scratch: folder that this user alone may read: the study's URL may have a password.
    """

    def __init__(self, task: Task, scratch: Path) -> None:
        path = scratch / "task.json"
        path.write_text(task.model_dump_json(), encoding="utf-8")
        self._logs = [scratch / f"worker-{number}.log" for number in range(task.workers)]
        self._processes = []
        for number, log in enumerate(self._logs):
            with log.open("wb") as file:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "thrifty.tune.workers", str(path)],
                        stdin=subprocess.PIPE,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=os.environ | environment_of(task, number),
                        # Ctrl-C is for the process that started them, which passes it on
                        start_new_session=True,
                    )
                )

    def poll(self) -> bool:
        """Whether any still works."""
        return any(each.poll() is None for each in self._processes)

    def stop(self, number: signal.Signals) -> None:
        """Ask all to save what they are at, and to end."""
        for each in self._processes:
            if each.poll() is None:
                each.send_signal(number)

    def finish(self) -> Sequence[Outcome]:
        """What each ended with."""
        outcomes = []
        for process, log in zip(self._processes, self._logs, strict=True):
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
            outcomes.append(_outcome(code, log.read_text(encoding="utf-8", errors="replace")))
        return outcomes

    @contextlib.contextmanager
    def ended(self) -> Iterator[Processes]:
        """No worker outlives the block."""
        try:
            yield self
        finally:
            self.stop(signal.SIGKILL)
            self.finish()


def _outcome(code: int, log: str) -> Outcome:
    lines = log.strip().splitlines()
    said = lines[-1] if lines else ""
    if said.startswith(_SAYS):
        kind, _, text = said.removeprefix(_SAYS).partition(" ")
        return Outcome(reason=text) if kind == "ended" else Outcome(error=_ToldError(text, exit_code=code))
    if code < 0:
        return Outcome(
            error=WorkerLostError(
                f"a worker was killed by {signal.Signals(-code).name}",
                mend="What it had saved is kept: give the same command again, with fewer workers if memory ran out.",
            )
        )
    tail = " ".join("\n".join(lines[-3:]).split())[-300:]
    return Outcome(
        error=WorkerLostError(f"a worker broke: {tail or 'it said nothing'}", mend="Mend that, and try again.")
    )


class _ToldError(ThriftyError):
    """What a worker told of its error; the text is whole."""

    def __init__(self, text: str, *, exit_code: int) -> None:
        ValueError.__init__(self, text)
        self.what, self.mend, self.nearest, self.exit_code = text, "", "", exit_code


def _silent(event: Event) -> None:
    """Workers say nothing: the study does."""


def _end_with_parent() -> None:
    """Ask this process to save and end once whoever started it is gone: its end of the pipe closes then."""

    def watch() -> None:
        # not by sys.stdin, whose lock would be held when the interpreter ends
        while os.read(sys.stdin.fileno(), 1):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(path: str) -> int:
    """Be a worker process."""
    task = Task.model_validate_json(Path(path).read_bytes())
    sys.path[:0] = [each for each in task.path if each not in sys.path]
    _end_with_parent()
    try:
        print(f"{_SAYS}ended {carry(task, _silent)}", flush=True)
    except SignalledError as error:
        print(f"{_SAYS}failed {error}", flush=True)
        return error.exit_code
    except ThriftyError as error:
        print(f"{_SAYS}failed {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
