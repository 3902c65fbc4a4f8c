"""The bill of a search in the ledger: a run of its own, kept up to date as trials begin and stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from thrifty.errors import SignalledError, StorageError, ThriftyError
from thrifty.ledger import Ledger, Meter, Stage, add_spent
from thrifty.planner.devices import all_of
from thrifty.spec import Device, Job, Spent

# of the ledger's runs, the newest, among which earlier attempts at the same search are looked for
_LOOKED_AT = 1000


class Bill:
    """What a search takes, earlier attempts at it included.

    Args:
        ledger: that keeps it.
        job: that is tuned.
        key: of the search.
        folder: of the search.
        device: that is metered.
        boards: GPUs of its kind that work beside each other.

    Attributes:
        earlier: what attempts before this one took.
    """

    def __init__(self, ledger: Ledger, job: Job, key: str, folder: Path, device: Device, *, boards: int = 1) -> None:
        self._ledger, self._job, self._key, self._folder, self._device = ledger, job, key, folder, device
        self._boards = boards
        place = str(folder.resolve())
        before = ledger.entries(limit=_LOOKED_AT, worst_first=False)
        self.earlier = add_spent(*(each.total for each in before if each.folder == place and each.key == key))
        self._meter = Meter(all_of(device, boards), boards=boards)
        self._stage: Stage | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Meter the block; what broke it is written down."""
        self._run_id = self._ledger.begin(
            name=f"{self._job.name}-tune",
            key=self._key,
            folder=self._folder,
            job=self._job.model_dump_json(),
            device=self._device,
            code="",
            pid=os.getpid(),
        )
        entry = self._ledger.entry(self._folder)
        assert entry is not None
        self._attempt = entry.attempts
        try:
            with self._meter.stage() as self._stage:
                yield
        except ThriftyError as error:
            status: Literal["stopped", "failed"] = "stopped" if isinstance(error, SignalledError) else "failed"
            self._ledger.finish(self._run_id, status=status, metrics={}, reason=str(error))
            raise
        finally:
            self._ledger.stage(self._run_id, self._attempt, "tune", self._now())

    def rest(self) -> None:
        """Have the bill stand still while the search waits."""
        self._meter.rest()

    def go_on(self) -> None:
        """Go on with it."""
        self._meter.go_on()

    def note(self) -> None:
        """Bring the ledger up to date; a disk that is full for a while must not end the search."""
        with contextlib.suppress(StorageError):
            self._ledger.stage(self._run_id, self._attempt, "tune", self._now())

    def close(self, metrics: Mapping[str, float], reason: str) -> None:
        """The search is done."""
        self._ledger.finish(self._run_id, status="done", metrics=metrics, reason=reason)

    def spent(self) -> Spent:
        """All that the search took until now."""
        return add_spent(self.earlier, self._now())

    def _now(self) -> Spent:
        return self._stage.spent() if self._stage is not None else Spent()
