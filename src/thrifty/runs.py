"""The run folder: one folder a run, found again by the content of its job; what lies where, read and written whole.

runs/<name>/
  job.yaml  job.json  plan.json  device.json  dataset.json  what was asked, decided, and found
  events.jsonl                                      losses, validations, checkpoints, as they happened
  rejects.jsonl                                     every input file that was not used, and why
  traced.json  mistakes.json                        where a step's memory and time go; the worst answers
  beside.json                                       another trainer's curves, where some were brought in
  reported/                                         what TensorBoard, MLflow and Weights & Biases were told
  checkpoints/                                      to go on from after a crash
  control.json                                      what the run is asked for while it trains
  result.json                                       written last: the run is done
  bundle/  report.html                              what the run was for

A search for settings has `search.json` in its own folder, what it may spend; its events and what it is asked for are
beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from thrifty.errors import BundleError, DataError, DiskFullError, nearest
from thrifty.files import append, write_atomic, writing
from thrifty.spec import Budget, Dataset, Device, Job, Plan
from thrifty.spec.answering import Answering
from thrifty.spec.events import (
    CheckpointDamaged,
    Checkpointed,
    CheckpointFailed,
    CheckpointsRemoved,
    Compiled,
    Evaluated,
    Event,
    Initialised,
    Lowered,
    Narrowed,
    Paused,
    RateLowered,
    Resumed,
    RolledBack,
    Skipped,
    StepDone,
    Stopped,
    Warned,
    WentOn,
)
from thrifty.spec.folders import cache_folder, kept_curves
from thrifty.spec.plain import Plain
from thrifty.spec.steering import Steering

_KINDS = (
    Initialised, StepDone, Evaluated, Checkpointed, CheckpointFailed, CheckpointDamaged, CheckpointsRemoved, Skipped,
    RateLowered, RolledBack, Narrowed, Resumed, Paused, WentOn, Lowered, Compiled, Stopped, Warned,
)  # fmt: skip
# at most; a process that is killed takes those of its last steps with it that no checkpoint has
STEPS_HELD_S = 0.1
KEPT_EVENTS = {kind.__name__: kind for kind in _KINDS}
Noun = TypeVar("Noun", bound=Plain)


class Result(Plain):
    """How a run ended.

    Attributes:
        key: content key of the job, data and code that it answers.
        reason: why training ended.
        steps: optimizer steps taken.
        best_step: the step whose weights are in the bundle.
        validation, test: figures of those weights on the two held-out splits.
        confusion: test samples by true label (row) and answer (column); empty for language.
        by_label: of several labels of a sample, how often each was said rightly, said, and wanted in the test split.
        completion: what a language model wrote for `prompt`; empty for images.
        wasted_s: of the training time, in steps that were skipped or rolled back.
        loading_share: of the time of the last attempt's steps, in which they waited for their batches.
        rank_bytes: peak memory of each rank that trained, the largest first; empty where one process did.
    """

    key: str
    reason: str
    steps: int
    best_step: int
    validation: dict[str, float]
    test: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    prompt: str
    completion: str
    by_label: tuple[tuple[int, ...], ...] = ()
    wasted_s: float = 0.0
    loading_share: float = 0.0
    rank_bytes: tuple[int, ...] = ()


class RunFolder:
    """Names and contents of one run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def reported(self) -> Path:
        return self.folder / "reported"

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects.jsonl"

    @property
    def key(self) -> str:
        """Content key the folder was made for; empty for a folder without one."""
        path = self.folder / "key"
        return path.read_text().strip() if path.is_file() else ""

    @property
    def course(self) -> str:
        """Content key of what is learned in the folder; empty for a folder without one."""
        path = self.folder / "course"
        return path.read_text().strip() if path.is_file() else ""

    def claim(self, key: str, job: Job, job_text: str, *, course: str) -> None:
        """Make the folder this run's own and write what was asked; what another course left in it goes."""
        if self.key not in {"", key} and self.course != course:
            left = ("events.jsonl", "rejects.jsonl", "dataset.json", "traced.json", "mistakes.json", "control.json")
            for name in left:
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.reported, ignore_errors=True)
        write_atomic(self.folder / "course", course + "\n", purpose="the run's course")
        write_atomic(self.folder / "key", key + "\n", purpose="the run's key")
        write_atomic(self.folder / "job.yaml", job_text, purpose="the job")
        self.keep("job", job)

    @property
    def searches(self) -> bool:
        """Whether a search for settings works in the folder, and no run."""
        return not self.key and any((self.folder / name).is_file() for name in ("search.json", "study.sqlite"))

    @property
    def is_done(self) -> bool:
        """Whether the run in it ended with a result."""
        return (self.folder / "result.json").is_file()

    def keep(self, name: str, noun: Plain) -> None:
        """Write one noun as ``<name>.json``."""
        write_atomic(self.folder / f"{name}.json", noun.model_dump_json(indent=1), purpose=f"{name}.json")

    def find(self, name: str, kind: type[Noun]) -> Noun | None:
        """Read one noun, or None when it was not written yet.

        Raises:
            BundleError: the file is there and cannot be read as one.
        """
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise BundleError(
                f"'{path}' is damaged: {str(error).splitlines()[0]}", mend=f"Remove '{self.folder}' and run again."
            ) from error

    def job(self) -> Job:
        return self._need("job", Job)

    def plan(self) -> Plan:
        return self._need("plan", Plan)

    def dataset(self) -> Dataset:
        return self._need("dataset", Dataset)

    def device(self) -> Device:
        return self._need("device", Device)

    def result(self) -> Result:
        return self._need("result", Result)

    def _need(self, name: str, kind: type[Noun]) -> Noun:
        noun = self.find(name, kind)
        if noun is None:
            raise BundleError(f"run '{self.folder}' has no {name}.json yet", mend="Finish it: thrifty run its job.")
        return noun

    def writer(self) -> Writer:
        """Return an ``emit`` that appends the lasting events to ``events.jsonl``, after its last whole line."""
        path = self.folder / "events.jsonl"
        with writing(path, "the run's events"), path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        return Writer(path)

    def events(self) -> list[Event]:
        """Read the events back; where a crash made training repeat steps, the repetition alone is kept."""
        following = self.following()
        following.read()
        return following.events

    def following(self) -> Following:
        """Return what reads the events on while they are written."""
        return Following(self.folder / "events.jsonl")

    def steering(self) -> Steering:
        """What the run is asked for now; nothing where that cannot be read."""
        try:
            return Steering.model_validate_json((self.folder / "control.json").read_bytes())
        except (OSError, ValueError):
            return Steering()

    def steer(self, asked: Steering) -> None:
        """Ask for something while the run trains, in the place of what was asked for before."""
        self.keep("control", asked)

    def begin_search(self, budget: Budget) -> None:
        """Have a search work in the folder, and write what it may spend; what an earlier one was asked for goes."""
        for name in ("control.json", "events.jsonl"):
            (self.folder / name).unlink(missing_ok=True)
        self.keep("search", budget)

    def end_search(self) -> None:
        """Take back all that the search was asked for: it is over."""
        (self.folder / "control.json").unlink(missing_ok=True)

    def let_go(self) -> None:
        """Take back that the run should wait or stop; what it may spend stays lowered."""
        asked = self.steering()
        if asked.ask != "go":
            self.steer(asked.model_copy(update={"ask": "go"}))

    def rejected(self) -> list[dict[str, Any]]:
        """Read the rejected inputs, a mapping with ``path`` and ``reason`` each."""
        return list(self._lines(self.rejects))

    def answerings(self) -> list[Answering]:
        """Read what servers on this machine measured of the run's bundle, fewest cores first."""
        description = self.bundle / "bundle.json"
        if not description.is_file():
            return []
        sha256, found = hashlib.sha256(description.read_bytes()).hexdigest(), []
        for path in sorted(kept_curves(cache_folder()).glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                kept = Answering.model_validate_json(path.read_bytes())
                if kept.sha256 == sha256 and kept.seconds:
                    found.append(kept)
        return sorted(found, key=lambda kept: kept.cores)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                # a kill can leave half a last line; a resume says it again
                if line.endswith("\n"):
                    with contextlib.suppress(ValueError):
                        found = json.loads(line)
                        if isinstance(found, dict):
                            yield found


class Following:
    """The events of a run, read on as they are written; where training repeats steps, the repetition alone is kept.

    Attributes:
        events: in their order.
        unread: lines that are no event that is known here: of a newer thrifty, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.unread = 0
        self._path, self._at, self._file = path, 0, 0

    def read(self) -> bool:
        """Read what was written since; say whether there was anything."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file or found.st_size < self._at:
                    # another course was begun in the folder
                    self._file, self._at, self.unread, self.events = found.st_ino, 0, 0, []
                file.seek(self._at)
                # a kill can leave half a last line; a resume says it again
                whole, mark, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False
        self._at += len(whole) + len(mark)
        for line in whole.splitlines():
            self._take(line)
        return bool(whole)

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            event: Event = KEPT_EVENTS[said.pop("event")](**said)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unread += 1
            return
        if isinstance(event, Resumed):
            self.events = [each for each in self.events if getattr(each, "step", 0) <= event.step]
        self.events.append(event)


class Writer:
    """An ``emit`` that appends lasting events to a file, a line each.

    Steps that are taken fast are written together, a moment later; whatever else happens is written at once, with the
    steps before it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Event] = []
        self._written_at = -math.inf

    def __call__(self, event: Event) -> None:
        if isinstance(event, _KINDS):
            self._waiting.append(event)
            if not isinstance(event, StepDone) or time.monotonic() - self._written_at > STEPS_HELD_S:
                self.flush()

    def flush(self) -> None:
        """Write what waits; where the disk is full, it waits on: a run goes on meanwhile."""
        lines = "".join(json.dumps({"event": type(each).__name__, **vars(each)}) + "\n" for each in self._waiting)
        with contextlib.suppress(DiskFullError):
            append(self._path, lines.encode(), purpose="an event")
            self._waiting.clear()
        self._written_at = time.monotonic()


def folder_for(runs: Path, name: str, key: str, *, course: str) -> RunFolder:
    """Return the folder made for this key, else the next free one of ``<name>``, ``<name>-2``, ``<name>-3``.

    Where there is none for the key, but an unfinished one of the same course, that is gone on with, computed otherwise.

    A folder that holds something else, a user's own files too, is never taken; one of a run that failed before there
    was a plan, say for its data, is.
    """
    numbers = itertools.count(2)
    path = runs / name
    begun: RunFolder | None = None
    while True:
        folder = RunFolder(path)
        if folder.key == key:
            return folder
        if _is_free(path):
            return begun or folder
        if begun is None and folder.course == course and not folder.is_done:
            begun = folder
        path = runs / f"{name}-{next(numbers)}"


def _is_free(path: Path) -> bool:
    if not path.exists():
        return True
    names = {p.name for p in path.iterdir()} if path.is_dir() else {"a file"}
    return names <= {"lock", "course"} or ("key" in names and not names & {"plan.json", "checkpoints", "result.json"})


def open_run(path: Path) -> RunFolder:
    """Return a run folder that exists.

    Raises:
        DataError: there is none at ``path``; the nearest name beside it is given.
    """
    if not (path / "key").is_file():
        beside = [p.name for p in path.parent.iterdir() if (p / "key").is_file()] if path.parent.is_dir() else []
        known = f"Runs there: {', '.join(sorted(beside)[:10])}." if beside else "Make one: thrifty run JOB."
        raise DataError(f"there is no run in '{path}'", nearest=nearest(path.name, beside), mend=known)
    return RunFolder(path)
