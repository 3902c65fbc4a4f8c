"""The database under a ledger: which one a URL means, how SQLite is opened, and what its refusals mean."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from thrifty.errors import JobError, MissingExtraError, StorageError

# what a database that is away, or breaks off, is told by
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError,)
BUSY_SECONDS = 30.0
ELSEWHERE = "Set THRIFTY_LEDGER to a file you can write"

# primary result codes of SQLite: https://www.sqlite.org/rescode.html
_BUSY_CODES = {5, 6}
_READ_ONLY = ("cannot be written: it is read-only for this user", f"{ELSEWHERE}.")
_DAMAGED = ("is damaged or not a ledger; it is left as it is", f"{ELSEWHERE}, and restore this one from a copy.")
_BUSY = ("has been held by another process for too long", "Let it end, or set THRIFTY_LEDGER to another file.")
_REFUSALS = {
    3: _READ_ONLY, 8: _READ_ONLY, 23: _READ_ONLY,
    5: _BUSY, 6: _BUSY,
    10: ("cannot be read or written: the disk refuses", "Free some space, or set THRIFTY_LEDGER to another disk."),
    11: _DAMAGED, 26: _DAMAGED,
    13: ("cannot be written: the disk is full", "Free some space, or set THRIFTY_LEDGER to another disk."),
    14: ("cannot be opened: not a file, or not for this user", f"{ELSEWHERE}."),
}  # fmt: skip


def read_url(url: str | Path) -> sa.URL:
    """Read a path of a SQLite file, ``sqlite:///…`` or ``postgresql://…``.

    Raises:
        JobError: it is neither.
    """
    if isinstance(url, Path) or "://" not in url:
        return sa.URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        read = sa.make_url(url)
    except ArgumentError:
        raise JobError("THRIFTY_LEDGER is not a URL", mend="Write a path, or postgresql://user@host/name.") from None
    if read.get_backend_name() not in {"sqlite", "postgresql"}:
        raise JobError(f"a ledger cannot be kept in '{read.drivername}'", mend="Known: a path, postgresql://… .")
    if read.get_backend_name() == "sqlite":
        if read.database in {None, "", ":memory:"}:
            raise JobError(f"a ledger needs a file, got '{url}'", mend="Write a path, or sqlite:///path.")
        return sa.URL.create("sqlite", database=str(Path(str(read.database)).absolute()))
    return read.set(drivername="postgresql+psycopg") if read.drivername == "postgresql" else read


def open_engine(url: sa.URL) -> sa.Engine:
    """Make the engine of a URL; nothing is opened yet.

    Raises:
        MissingExtraError: the driver of PostgreSQL is not installed.
    """
    if url.get_backend_name() != "sqlite":
        driver = url.get_driver_name()
        if find_spec(driver) is None:
            raise MissingExtraError("a ledger in PostgreSQL", package=driver, extra="postgres")
        return sa.create_engine(url, pool_pre_ping=True)
    # no pool: an idle ledger holds no file open, and a forked worker inherits no connection.
    # isolation_level None: transactions begin where the ledger says so, not where the driver guesses
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        # with the write-ahead log NORMAL is enough against kill -9; FULL also keeps the last line through a
        # power cut, for one flush to disk a call, and calls are seconds apart
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def write_at_once(engine: sa.Engine) -> None:
    """Have each transaction of a SQLite engine take the write lock as it begins: what it read is so until it ends."""
    sa.event.listen(engine, "connect", _without_transactions)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    # connections that were made before have not heard of it
    engine.dispose()


def _without_transactions(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def use_write_ahead_log(engine: sa.Engine) -> None:
    """Turn a SQLite file's write-ahead log on, once and for all: readers then never wait for a writer."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with engine.connect() as database:
                database.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except DBAPIError as error:
            # SQLite does not wait for its busy timeout when it changes the journal
            if _code(error) not in _BUSY_CODES or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def storage_error(error: DBAPIError, name: str) -> StorageError:
    """Say what a database's refusal means for the user of the ledger with this name."""
    said = " ".join(str(error.orig).split())
    what, mend = _REFUSALS.get(_code(error), (f"refuses ({said})", "Check it, or set THRIFTY_LEDGER to another."))
    return StorageError(f"ledger '{name}' {what}", mend=mend)


def _code(error: DBAPIError) -> int:
    # the low byte is the primary code, the rest says more of it; other databases have none
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
