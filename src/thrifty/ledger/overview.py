"""`Overview`: every run of a ledger as one short line, held in memory and kept fresh, for pages that sort and count."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from thrifty.ledger.entry import TRAIN, Status
from thrifty.ledger.process import still_runs
from thrifty.ledger.store import RUNS, STAGES, Ledger

# for so long nobody asks the ledger again
FRESH_SECONDS = 0.5
_AT_ONCE = 500
_SUMMED = ("wall_s", "joules", "usd")
# what is measured, by the plan's name for it
_MEASURED = {"seconds": "wall_s", "joules": "joules", "usd": "usd"}


class Line(NamedTuple):
    """A run in short; what it means is as in `Entry`.

    Attributes:
        id, name, folder, status, started, finished, device, model, reason: as in `Entry`.
        wall_s, joules, usd, peak_bytes: of all stages and attempts.
        metrics: of the held-out test split.
        predicted_s: seconds of training by the plan; 0 before there is one.
        ratios: of training by quantity, what was measured over what was due; those that are known.
        damaged: it could not be read whole.
    """

    id: int
    name: str
    folder: str
    status: Status
    started: str
    finished: str
    device: str
    model: str
    reason: str
    wall_s: float
    joules: float
    usd: float
    peak_bytes: float
    metrics: dict[str, float]
    predicted_s: float
    ratios: dict[str, float]
    damaged: bool = False

    @property
    def worst(self) -> tuple[str, float]:
        """The quantity that was predicted worst, and measured over due; ``("", 1.0)`` where none is known."""
        return max(self.ratios.items(), key=lambda pair: abs(math.log(pair[1])), default=("", 1.0))

    @property
    def miss(self) -> float:
        """``|ln(measured / due)|`` of the worst; 0 where nothing is known, or the run broke."""
        return abs(math.log(self.worst[1])) if self.status not in ("failed", "running") else 0.0


class Overview:
    """The lines of a ledger. The first look reads all of it, later ones what has changed; threads may share one.

    Args:
        ledger: to look at.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lines: dict[int, Line] = {}
        self._stamps: dict[int, tuple[Any, ...]] = {}
        self._newest: list[Line] = []
        self._looked_at = -math.inf
        self._lock = threading.Lock()

    def lines(self) -> Sequence[Line]:
        """Return all runs, the newest first.

        Raises:
            StorageError: the ledger cannot be read.
        """
        with self._lock:
            if time.monotonic() - self._looked_at > FRESH_SECONDS:
                self._look()
                self._looked_at = time.monotonic()
            return self._newest

    def _look(self) -> None:
        with self._ledger.reading() as database:
            counted = sa.select(STAGES.c.run_id, sa.func.count()).group_by(STAGES.c.run_id)
            counts = {row[0]: row[1] for row in database.execute(counted)}
            asked = sa.select(RUNS.c.id, RUNS.c.status, RUNS.c.finished, RUNS.c.attempts)
            stamps = {row[0]: (*row, counts.get(row[0], 0)) for row in database.execute(asked)}
            # of a run that is under way the stages change in place, and its process may be gone
            changed = [run for run, stamp in stamps.items() if stamp != self._stamps.get(run) or stamp[1] == "running"]
            for at in range(0, len(changed), _AT_ONCE):
                self._read(database, changed[at : at + _AT_ONCE])
        gone = self._lines.keys() - stamps.keys()
        for run in gone:
            del self._lines[run]
        self._stamps = stamps
        if changed or gone:
            self._newest = [self._lines[run] for run in sorted(self._lines, reverse=True)]

    def _read(self, database: sa.Connection, runs: Sequence[int]) -> None:
        stages: dict[int, list[tuple[str, str]]] = {run: [] for run in runs}
        where = STAGES.c.run_id.in_(runs)
        for run, stage, spent in database.execute(
            sa.select(STAGES.c.run_id, STAGES.c.stage, STAGES.c.spent).where(where)
        ):
            stages[run].append((stage, spent))
        names = (
            "id", "name", "folder", "status", "started", "finished", "device", "job", "reason", "metrics", "predicted",
            "pid", "process",
        )  # fmt: skip
        found = sa.select(*(RUNS.c[name] for name in names)).where(RUNS.c.id.in_(runs))
        for row in database.execute(found):
            self._lines[row[0]] = _line(dict(zip(names, row, strict=True)), stages[row[0]])


def _line(run: Mapping[str, Any], stages: Iterable[tuple[str, str]]) -> Line:
    gone = run["status"] == "running" and not still_runs(run["pid"], run["process"])
    same = ("id", "name", "folder", "started", "finished", "device", "reason")
    plain: dict[str, Any] = {name: run[name] for name in same}
    plain["status"] = cast(Status, "interrupted" if gone else run["status"])
    try:
        spents = [(stage, cast(dict[str, Any], json.loads(spent))) for stage, spent in stages]
        job = json.loads(run["job"]) if run["job"] else {}
        predicted = json.loads(run["predicted"]) if run["predicted"] else {}
        sums: dict[str, Any] = {name: math.fsum(float(spent.get(name, 0)) for _, spent in spents) for name in _SUMMED}
        return Line(
            **plain,
            model=str(job.get("model", "")) if isinstance(job, dict) else "",
            **sums,
            peak_bytes=_peak(spent for _, spent in spents),
            metrics={name: float(value) for name, value in json.loads(run["metrics"] or "{}").items()},
            predicted_s=float(predicted["seconds"]["value"]) if predicted else 0.0,
            ratios=_ratios(predicted, [spent for stage, spent in spents if stage == TRAIN]) if predicted else {},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        # one line that somebody's hand spoilt does not take the others' page away
        nothing: dict[str, Any] = dict.fromkeys((*_SUMMED, "peak_bytes", "predicted_s"), 0.0)
        return Line(**plain, model="", **nothing, metrics={}, ratios={}, damaged=True)


def _ratios(predicted: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Measured over due: what was predicted, for the share of the planned work that was done, as `Entry` has it."""
    done, planned = sum(float(spent["flops"]) for spent in training), float(predicted["flops"]["value"])
    share = min(1.0, done / planned) if done > 0 and planned > 0 else 1.0
    measured = {name: math.fsum(float(spent[of]) for spent in training) for name, of in _MEASURED.items()}
    measured["peak_bytes"] = _peak(training)
    ratios = {}
    for name, value in measured.items():
        due = float(predicted[name]["value"]) * (1.0 if name == "peak_bytes" else share)
        if value > 0 and due > 0 and math.isfinite(value / due):
            ratios[name] = value / due
    return ratios


def _peak(spents: Iterable[Mapping[str, Any]]) -> float:
    """Of the accelerator where there is one, else of the process."""
    peaks = [(float(spent.get("device_peak_bytes", 0)), float(spent.get("peak_rss_bytes", 0))) for spent in spents]
    device, process = (max(each) for each in zip(*peaks, strict=True)) if peaks else (0.0, 0.0)
    return device or process
