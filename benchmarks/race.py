"""Runs rivals in rounds, each in a fresh process, and keeps what they said and what they took.

In every other round the order is turned round (ours, peer; peer, ours; …), so that a machine whose speed drifts favours
nobody. Figures of a benchmark are computed from what `race` returns by `benchmarks.figures`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kept import Kept
from benchmarks.peers.task import Task

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers" / "bin" / "python"
MOST_SECONDS = 7200.0
# other processes took more than this share of the cores: the report says so
DISTURBED = 0.1


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Entrant:
    """Somebody who does the work, as a command in an environment of its own.

    Attributes:
        name: in figures and tables; letters, digits, ``_``.
        command: what to start; its last argument is JSON.
        most_s: seconds after which it is ended, and counts as failed.
    """

    name: str
    command: tuple[str, ...]
    most_s: float = MOST_SECONDS


def peer(name: str, script: str, task: Task, *, python: Path = PEERS, most_s: float = MOST_SECONDS) -> Entrant:
    """A script of `benchmarks.peers` in the environment of the peers."""
    work = replace(task, threads=cores()).json
    return Entrant(name, (str(python), "-W", "ignore", "-m", f"benchmarks.peers.{script}", work), most_s)


def ours(
    name: str,
    job: dict[str, Any],
    *,
    stop_after: int = 0,
    script: str = "ours",
    most_s: float = MOST_SECONDS,
    **more: Any,
) -> Entrant:
    """A job run by ``thrifty.api.run`` as a user would; ended after some steps where ``stop_after`` says so."""
    course = json.dumps({"job": job, "stop_after": stop_after, **more}, sort_keys=True)
    return Entrant(name, (sys.executable, "-W", "ignore", "-m", f"benchmarks.{script}", course), most_s)


def peak(device: str = "cpu") -> Entrant:
    """The measurement of the peak of this machine, as a runner of the same round."""
    return Entrant("peak", (sys.executable, "-W", "ignore", "-m", "benchmarks.peak", device), 300.0)


@dataclass(frozen=True)
class Step:
    """A step that ended ``at_s`` after the process was started; ``paused``: something else was done before it."""

    at_s: float
    samples: int
    tokens: int
    paused: bool


@dataclass(frozen=True)
class Finish:
    """How an entrant did.

    Attributes:
        entrant: its name.
        steps: that it took.
        said: all else that it said, with ``at_s``.
        wall_s: from start to end of the process.
        cpu_s: of the processors, by it and the processes that it waited for.
        peak_bytes: most resident memory of the process, as the kernel counts it.
        others: share of the machine's cores that other processes took meanwhile.
        failed: the end of what it wrote to stderr, where it failed; empty otherwise.
    """

    entrant: str
    steps: tuple[Step, ...] = ()
    said: tuple[dict[str, Any], ...] = ()
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    others: float = 0.0
    failed: str = ""

    def first(self, event: str) -> dict[str, Any]:
        """The first thing said under a name, empty when it was not."""
        return next((each for each in self.said if each["event"] == event), {})


def run(entrant: Entrant) -> Finish:
    """Run an entrant to its end in a fresh process, on all cores, and read what it says."""
    threads = str(cores())
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "KERAS_BACKEND": "torch",
        "THRIFTY_LEDGER": "",
    }
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        busy, began = _busy_seconds(), time.monotonic()
        process = subprocess.Popen(
            entrant.command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        )
        watch = threading.Timer(entrant.most_s, _end, (process.pid,))
        watch.start()
        try:
            assert process.stdout is not None
            with process.stdout as said_lines:
                lines += said_lines
            # wait4 rather than wait: it counts the processor's time of this process and its own children alone
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _end(process.pid)
            raise
        finally:
            watch.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s, cpu_s = time.monotonic() - began, usage.ru_utime + usage.ru_stime
        others = max(_busy_seconds() - busy - cpu_s, 0.0) / (wall_s * (os.cpu_count() or 1))
        complaints.seek(0)
        said = complaints.read()[-1500:].strip()
    late = f"ended after {entrant.most_s:.0f} s; " if wall_s >= entrant.most_s else ""
    failed = "" if process.returncode == 0 else f"{late}exit {process.returncode}: {said or 'said nothing'}"
    steps, events = read(lines, began)
    if not failed and not any(event["event"] == "done" for event in events):
        failed = f"did not say that it was done: {said or 'said nothing'}"
    peak = max((int(event.get("peak_bytes", 0)) for event in events), default=0)
    return Finish(entrant.name, steps, events, wall_s, cpu_s, peak, others, failed)


def _end(pid: int) -> None:
    """End a process and all that it started: it leads a group of its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read(lines: Sequence[str], began: float) -> tuple[tuple[Step, ...], tuple[dict[str, Any], ...]]:
    """Read what a process said; what else its tools wrote to stdout is left out.

    Args:
        lines: of its stdout.
        began: when it was started, by the machine's steady clock.
    """
    steps: list[Step] = []
    events: list[dict[str, Any]] = []
    for line in lines:
        if not line.startswith('{"event"'):
            continue
        event = json.loads(line)
        if event["event"] == "steps":
            rows = zip(event["at"], event["samples"], event["tokens"], strict=True)
            steps += [
                Step(at - began, samples, tokens, paused=not number)
                for number, (at, samples, tokens) in enumerate(rows)
            ]
        else:
            at_s = event.pop("at") - began
            events.append({**event, "at_s": at_s})
    return tuple(steps), tuple(events)


def _busy_seconds() -> float:
    """Seconds that the processors were busy since the machine started, all processes together; 0 where it is unknown.

    proc(5): the first line of /proc/stat, in ticks: user, nice, system, idle, iowait, irq, softirq, steal, …
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    ticks = [int(each) for each in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


@dataclass
class Race:
    """What came of all rounds, by entrant; a failed run is told, counted and left out of the figures."""

    finishes: dict[str, list[Finish]] = field(default_factory=dict)
    failed: list[Finish] = field(default_factory=list)

    def of(self, name: str) -> list[Finish]:
        """The runs of an entrant that came to their end, in the order of the rounds."""
        return self.finishes.get(name, [])


class _FailedError(Exception):
    """Carries a failed run past what keeps results: it is tried again by ``--resume``."""

    def __init__(self, finish: Finish) -> None:
        super().__init__(finish.failed)
        self.finish = finish


def race(entrants: Callable[[int], Sequence[Entrant]], rounds: int, kept: Kept, into: Race | None = None) -> Race:
    """Run all entrants once in each round, forwards in the even ones and backwards in the odd ones.

    Args:
        entrants: who runs in a round, by its number, which may be a seed.
        rounds: how many.
        kept: runs that were done before a cut-off are not done again.
        into: an earlier race whose results these join.
    """
    found = into or Race()
    for number in range(rounds):
        order = list(entrants(number))
        for entrant in order if number % 2 == 0 else reversed(order):
            try:
                finish = kept(f"{entrant.name}-{number}", Finish, partial(_run_whole, entrant))
            except _FailedError as failure:
                found.failed.append(failure.finish)
                told(f"round {number}: {entrant.name} FAILED: {failure.finish.failed}")
                continue
            found.finishes.setdefault(entrant.name, []).append(finish)
            told(f"round {number}: {describe(finish)}")
    return found


def _run_whole(entrant: Entrant) -> Finish:
    finish = run(entrant)
    if finish.failed:
        raise _FailedError(finish)
    return finish


def describe(finish: Finish) -> str:
    """Say in one line what an entrant took."""
    noise = f", others took {finish.others:.0%} of the cores" if finish.others > DISTURBED else ""
    return (
        f"{finish.entrant}: {len(finish.steps)} steps, {finish.wall_s:.1f} s wall, {finish.cpu_s:.1f} s of the "
        f"processors, {finish.peak_bytes >> 20} MiB{noise}"
    )


def told(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


def asked_of(
    doc: str | None,
    *,
    rounds: int = 3,
    seeds: int | None = 0,
    names: Sequence[str] = (),
    parts: Sequence[str] = (),
    **switches: str,
) -> argparse.Namespace:
    """Read the options that all these benchmarks share.

    Args:
        doc: of the benchmark.
        rounds: measures speed; one with ``--quick``.
        seeds: measures the way to a target, likewise; 0 where there is none, None where it hangs on the name.
        names: of which one must be given, as ``name``.
        parts: of which some can be given, as ``only``; all where none are.
        switches: of this benchmark alone, each with its help.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if names:
        parser.add_argument("name", choices=names)
    if parts:
        parser.add_argument(
            "--only", nargs="+", choices=parts, default=list(parts), metavar="PART", help=", ".join(parts)
        )
    parser.add_argument("--quick", action="store_true", help="in under five minutes; the report says what is left out")
    parser.add_argument("--resume", action="store_true", help="go on with what this code measured earlier today")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"of the measurement of speed ({rounds})")
    if seeds != 0:
        usual = "as many as its bar is of" if seeds is None else seeds
        parser.add_argument("--seeds", type=int, default=seeds, help=f"of the way to the target ({usual})")
    for name, says in switches.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=says)
    asked = parser.parse_args()
    # what runs is ended too, then: it would disturb whatever is measured next
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if asked.quick:
        asked.rounds = asked.seeds = 1
    return asked


def need_peers() -> None:
    """End with what to do where the environment of the peers is missing."""
    if not PEERS.exists():
        sys.exit(f"there is no environment of the peers ({PEERS.relative_to(ROOT)}); make it: make peers")
