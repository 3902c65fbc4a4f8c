"""`Curve`: how long a model takes here for a batch of so many rows; how many to take together, and how long to wait.

Units: seconds of one batch against its rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from thrifty.errors import StorageError
from thrifty.files import write_atomic
from thrifty.spec.answering import Answering
from thrifty.spec.folders import cache_folder, kept_curves

# A batch that is larger yet is worth its wait only if it brings this much more rows a second.
KNEE = 0.95
PROBE_SECONDS = 0.4  # of probing in all; what a larger batch would take is then drawn on from the last two
ROUNDS = 3
_SINGLES = 6.0  # a round takes at most so many rows alone, if that is longer
_UNSURE_ROWS = 8
_PACE = 0.2  # weight of the latest batch in how much slower than measured it goes


class Curve:
    """Measured while the server is idle, a few sizes by powers of two, and kept by model and machine.

    Args:
        most: rows of a batch, at most.
        deadline_seconds: a batch may take half of it, so that who comes as one begins is still answered by the next.
        kept: file that it is kept in; None to forget it.
        sha256, cores: of the bundle's description, and which compute it, so that others can tell whose it is.
    """

    def __init__(
        self, most: int, deadline_seconds: float, kept: Path | None = None, *, sha256: str = "", cores: int = 0
    ) -> None:
        self._most, self._deadline, self._kept = most, deadline_seconds, kept
        self._sha256, self._cores = sha256, cores
        self._seconds: dict[int, float] = {}
        self._predicted: dict[int, float] = {}
        self._sizes = [size for size in (2**power for power in range(20)) if size < most] + [most]
        self._step = self._round = 0
        self._spent = 0.0
        self._pace = 1.0
        self._bound = most
        self.done = self._read()

    @property
    def seconds(self) -> Mapping[int, float]:
        """What was measured, by rows."""
        return dict(self._seconds)

    @property
    def bound(self) -> int:
        """Rows to compute at once, at most."""
        return self._bound

    def next_rows(self) -> int | None:
        """Rows of the probe to make next; None once enough is known.

        All sizes are gone through several times, so that a moment when others had the machine spoils none.
        """
        if self.done:
            return None
        if not self._round and self._seconds and self._step < len(self._sizes):
            budget = max(PROBE_SECONDS / ROUNDS, _SINGLES * self.predict(1))
            if self._spent + self.predict(self._sizes[self._step]) > budget:
                del self._sizes[self._step :]
        if self._step == len(self._sizes):
            self._step, self._round = 0, self._round + 1
        if self._round == ROUNDS:
            self._finish()
            return None
        return self._sizes[self._step]

    def probed(self, rows: int, seconds: float) -> None:
        """Take in what a probe took."""
        self._seconds[rows] = min(seconds, self._seconds.get(rows, math.inf))
        self._predicted = {}
        self._spent += seconds
        self._step += 1

    def observe(self, rows: int, seconds: float) -> None:
        """Take in what a batch of requests took: their rows may be longer than the probes', the machine busier."""
        if self._seconds and rows:
            self._pace += _PACE * (seconds / self.predict(rows) - self._pace)

    def predict(self, rows: int) -> float:
        """Seconds of a batch on a quiet machine; 0 before anything is measured."""
        predicted = self._predicted  # another thread may be about to begin a new one
        if rows not in predicted:
            predicted[rows] = self._predict(rows)
        return predicted[rows]

    def _predict(self, rows: int) -> float:
        known = sorted(self._seconds)
        if not known:
            return 0.0
        if rows <= known[0] or len(known) == 1:
            return self._seconds[known[0]] * (1.0 if rows <= known[0] else rows / known[0])
        place = min(max(bisect_left(known, rows), 1), len(known) - 1)
        low, high = known[place - 1], known[place]
        slope = (self._seconds[high] - self._seconds[low]) / (high - low)
        return max(self._seconds[low], self._seconds[low] + slope * (rows - low))

    def wait_seconds(self, rows: int) -> float:
        """Seconds until so many rows are computed, in batches as they are taken now, at the latest batches' pace."""
        whole, rest = divmod(rows, self._bound)
        return self._pace * (whole * self.predict(self._bound) + (self.predict(rest) if rest else 0.0))

    def _finish(self) -> None:
        self.done = True
        self._choose()
        if os.getloadavg()[0] > (os.cpu_count() or 1) + 1:
            # others have the machine: what was measured is neither kept nor a reason to take few rows together
            self._bound = max(self._bound, min(_UNSURE_ROWS, self._most))
        elif self._kept is not None:
            with contextlib.suppress(StorageError):  # it is measured again next time
                found = Answering(seconds=self._seconds, sha256=self._sha256, cores=self._cores)
                write_atomic(self._kept, found.model_dump_json(), purpose="what batches take")

    def _choose(self) -> None:
        """The fewest rows that give nearly the most rows a second, of those whose batch leaves time to wait for it."""
        # beyond what was measured nothing is known to be gained
        sizes = [rows for rows in sorted(self._seconds) if 2 * self.predict(rows) <= self._deadline] or [1]
        rates = {rows: rows / self.predict(rows) for rows in sizes}
        self._bound = next(rows for rows in sizes if rates[rows] >= KNEE * max(rates.values()))

    def _read(self) -> bool:
        if self._kept is None:
            return False
        try:
            found = Answering.model_validate_json(self._kept.read_bytes()).seconds
        except (OSError, ValidationError):
            return False
        if not found or not all(rows > 0 and 0 < seconds < math.inf for rows, seconds in found.items()):
            return False
        self._seconds, self._predicted = found, {}
        self._choose()
        return True


def kept_at(sha256: str, cores: int, most: int) -> Path:
    """Return the cache file of a model's curve on this machine: by its bundle, the processor, and the cores it has."""
    import importlib.metadata

    from thrifty.hardware.probe import probe

    key = f"{sha256} {probe().fingerprint} {cores} {most} {importlib.metadata.version('torch')}"
    return kept_curves(cache_folder()) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def typical(made_up: Any, longest: int) -> Any:
    """Return a row to measure with: of a row whose length varies, one half as long as any that was learned from.

    >>> typical([1, 2], 8)
    [1, 2, 1, 2]
    """
    import numpy as np

    if isinstance(made_up, tuple) and made_up and isinstance(made_up[0], np.ndarray):
        return (typical(made_up[0], longest), *made_up[1:])
    if isinstance(made_up, list) and made_up:
        return list(itertools.islice(itertools.cycle(made_up), max(len(made_up), longest // 2)))
    if isinstance(made_up, np.ndarray) and made_up.dtype == np.float32:
        return np.resize(made_up, (max(len(made_up), longest // 2), *made_up.shape[1:]))
    return made_up


def length_of(row: Any) -> int:
    """Return the length of a row that others are padded to; 0 where all rows are alike.

    >>> length_of([7, 7, 7]), length_of("row")
    (3, 0)
    """
    import numpy as np

    if isinstance(row, tuple) and row and isinstance(row[0], np.ndarray | list):
        row = row[0]
    varies = isinstance(row, list) or (isinstance(row, np.ndarray) and row.dtype == np.float32)
    return len(row) if varies else 0
