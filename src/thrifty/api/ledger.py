"""Where runs lie, and their bills."""

from __future__ import annotations

import io
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from thrifty.errors import DataError, unknown_name
from thrifty.files import write_atomic
from thrifty.runs import RunFolder, open_run
from thrifty.spec.events import Event

if TYPE_CHECKING:
    from thrifty.ledger import Entry, Ledger

RUNS = Path("runs")
# more runs than any ledger holds
ALL = 2**31
TABLES = ("csv", "parquet")


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


def export_ledger(*, to: str, out: Path | None = None, runs: Path = RUNS) -> tuple[Path, int]:
    """Write the whole ledger as a table, the oldest run first; returns its path, and how many runs are in it.

    Args:
        to: ``csv`` or ``parquet``.
        out: the file; ``ledger.csv`` or ``ledger.parquet`` in the runs folder when left out.
        runs: folder of all runs.

    Raises:
        JobError: no such format.
        StorageError: the file cannot be written.
    """
    from thrifty.ledger.frame import frame_of

    if to not in TABLES:
        raise unknown_name("format of tables", to, TABLES)
    with closing(open_ledger(runs)) as ledger:
        found = ledger.entries(limit=ALL, worst_first=False)[::-1]
    frame, file, path = frame_of(found), io.BytesIO(), out or runs / f"ledger.{to}"
    if to == "csv":
        frame.write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        frame.write_parquet(file)
    write_atomic(path, file.getvalue(), purpose="the ledger's table")
    return path, len(found)
