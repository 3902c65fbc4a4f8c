"""`Site`: what the pages look at, and what they remember between two looks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from thrifty.api import open_ledger
from thrifty.errors import RequestError
from thrifty.ledger import Entry, Ledger, Line, Overview
from thrifty.runs import RunFolder
from thrifty.web.course import Course

# runs whose events are kept read
_MOST_FOLLOWED = 8


@dataclass
class Site:
    """The runs and their ledger.

    Attributes:
        runs: folder of all runs.
        folder: under which job files may be planned.
        token: that actions need.
        planning: held while something is planned: one thing at a time.
    """

    runs: Path
    folder: Path
    token: str
    planning: threading.Lock = field(default_factory=threading.Lock)
    _ledger: Ledger | None = None
    _overview: Overview | None = None
    _followed: OrderedDict[str, Course] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened when it is first asked for.

        Raises:
            StorageError: it cannot be opened, or is a newer thrifty's.
        """
        with self._lock:
            if self._ledger is None:
                self._ledger = open_ledger(self.runs)
            return self._ledger

    def lines(self) -> list[Line]:
        """Return all runs, the newest first.

        Raises:
            StorageError: the ledger cannot be read.
        """
        with self._lock:
            if self._overview is None:
                self._overview = Overview(self.ledger)
        return list(self._overview.lines())

    def entry(self, number: int) -> Entry:
        """Return a run by its number.

        Raises:
            RequestError: 404, there is none.
        """
        found = self.ledger.find(number) if number < 2**63 else None
        if found is None:
            raise RequestError(f"the ledger knows no run {number}", status=404, mend="It may be another ledger's.")
        return found

    def course(self, folder: RunFolder) -> Course:
        """Return what a run said until now; what was read before is not read again."""
        with self._lock:
            key = str(folder.folder)
            found = self._followed.pop(key, None) or Course(folder.following())
            self._followed[key] = found
            while len(self._followed) > _MOST_FOLLOWED:
                self._followed.popitem(last=False)
        found.read()
        return found

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()
