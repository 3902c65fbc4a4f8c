"""Where runs lie, and their bills."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from thrifty.errors import DataError
from thrifty.runs import RunFolder, open_run
from thrifty.spec.events import Event

if TYPE_CHECKING:
    from thrifty.ledger import Entry, Ledger

RUNS = Path("runs")


def silent(event: Event) -> None:
    """An ``emit`` that tells nobody."""


def open_ledger(runs: Path = RUNS) -> Ledger:
    """Open the ledger: ``$THRIFTY_LEDGER`` (a file or a database URL), else ``ledger.sqlite`` in the runs folder."""
    from thrifty.ledger import Ledger  # its database takes a third of a second to load, which serving can do without

    return Ledger(os.environ.get("THRIFTY_LEDGER") or runs / "ledger.sqlite")


def entry_of(ledger: Ledger, folder: RunFolder) -> Entry:
    """Return a run's line.

    Raises:
        DataError: there is none.
    """
    entry = ledger.entry(folder.folder)
    if entry is None:
        raise DataError(f"the ledger has no line for run '{folder.folder}'", mend="Was it made with another ledger?")
    return entry


def bill(run: Path, *, runs: Path = RUNS) -> Entry:
    """Return a run's line of the ledger."""
    with closing(open_ledger(runs)) as ledger:
        return entry_of(ledger, open_run(run))


def entries(*, runs: Path = RUNS, limit: int = 50) -> list[Entry]:
    """Return the ledger, the worst prediction first."""
    with closing(open_ledger(runs)) as ledger:
        return ledger.entries(limit=limit)
