"""`Ledger`: every run, predicted beside measured, in a SQLite file or a PostgreSQL database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from thrifty.errors import StorageError
from thrifty.files import writing
from thrifty.ledger.engine import ELSEWHERE, open_engine, read_url, storage_error, use_write_ahead_log
from thrifty.ledger.entry import Entry, StageEntry, add_spent
from thrifty.ledger.process import identity, still_runs
from thrifty.spec.cost import Cost, Spent
from thrifty.spec.device import Device
from thrifty.spec.plan import Plan

# Raised when a table, `Cost` or `Spent` changes: an older thrifty must not misread what a newer one wrote.
SCHEMA_VERSION = 1

_TABLES = sa.MetaData()
SCHEMA = sa.Table("thrifty_schema", _TABLES, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
RUNS = sa.Table(
    "runs",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "key", "folder", "status", "started", "finished")),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("process", sa.Text, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("job", "code", "device", "hardware")),
    *(sa.Column(name, sa.Text, nullable=False, default="") for name in ("plan", "predicted", "metrics", "reason")),
    sa.Column("miss", sa.Float, nullable=False, default=0.0),
    sa.Index("runs_by_folder", "folder", "key"),
    sa.Index("runs_by_miss", "miss"),
)
STAGES = sa.Table(
    "stages",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("spent", sa.Text, nullable=False),
    sa.Column("predicted", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "attempt", "stage"),
)


class Ledger:
    """Keep every run, and read them back worst prediction first.

    Many processes may hold one ledger; each call is one transaction, flushed to disk before it returns, so a
    process or a machine that dies loses nothing that was said before. SQLite needs a local disk (its
    write-ahead log does not work over a network file system); machines that share a ledger use PostgreSQL.

    Args:
        url: a path of a SQLite file, made when it is not there; or ``sqlite:///…`` or ``postgresql://…``.

    Raises:
        StorageError: the file or database cannot be opened, is damaged (it is left as it is), is not a
            ledger, or was written by a newer thrifty; here and from every method, also for a full or
            read-only disk.
        MissingExtraError: a PostgreSQL URL without its driver.
        JobError: a URL of another kind.
    """

    def __init__(self, url: str | Path) -> None:
        self._url = read_url(url)
        self._is_file = self._url.get_backend_name() == "sqlite"
        self._name = str(self._url.database) if self._is_file else self._url.render_as_string(hide_password=True)
        self._engine = open_engine(self._url)
        with self._explained():
            self._open()

    def begin(self, *, name: str, key: str, folder: str | Path, job: str, device: Device, code: str, pid: int) -> int:
        """Enter a run, or the next attempt of the last one with this folder and key that is not done.

        Returns:
            The run's number, for the other methods.
        """
        place = str(Path(folder).resolve())
        now = {
            "status": "running", "finished": "", "reason": "", "pid": pid, "process": identity(pid),
            "job": job, "code": code, "device": device.name, "hardware": device.model_dump_json(exclude={"kernels"}),
        }  # fmt: skip
        last = (
            sa.select(RUNS.c.id, RUNS.c.attempts)
            .where(RUNS.c.folder == place, RUNS.c.key == key, RUNS.c.status != "done")
            .order_by(RUNS.c.id.desc())
            .limit(1)
            .with_for_update()
        )
        with self._writing() as database:
            found = database.execute(last).first()
            if found:
                again = sa.update(RUNS).where(RUNS.c.id == found.id)
                database.execute(again.values(attempts=found.attempts + 1, **now))
                return int(found.id)
            new = sa.insert(RUNS).values(name=name, key=key, folder=place, started=_now(), attempts=1, **now)
            return int(database.execute(new.returning(RUNS.c.id)).scalar_one())

    def planned(self, run_id: int, plan: Plan) -> None:
        """Keep the plan of a run; its cost is what the run will be held against."""
        values = {"plan": plan.model_dump_json(), "predicted": plan.cost.model_dump_json()}
        with self._writing() as database:
            database.execute(sa.update(RUNS).where(RUNS.c.id == run_id).values(**values))

    def stage(self, run_id: int, attempt: int, stage: str, spent: Spent, predicted: Cost | None = None) -> None:
        """Record what a stage took so far; said again, it replaces what was said of that stage and attempt."""
        insert = sqlite.insert(STAGES) if self._is_file else postgresql.insert(STAGES)
        said = {"spent": spent.model_dump_json()}
        if predicted is not None:
            said["predicted"] = predicted.model_dump_json()
        place = {"run_id": run_id, "attempt": attempt, "stage": stage}
        statement = insert.values({"predicted": "", **place, **said}).on_conflict_do_update(
            index_elements=list(place), set_=said
        )
        with self._writing() as database:
            database.execute(statement)

    def finish(
        self, run_id: int, *, status: Literal["done", "stopped", "failed"], metrics: Mapping[str, float], reason: str
    ) -> None:
        """Close a run with its result; a stopped or failed one can be begun again."""
        ended = {"status": status, "metrics": json.dumps(dict(metrics)), "reason": reason, "finished": _now()}
        where = RUNS.c.id == run_id
        with self._writing() as database:
            database.execute(sa.update(RUNS).where(where).values(**ended))
            for entry in self._read(database, sa.select(RUNS).where(where)):
                # a run that broke says little of its prediction
                miss = entry.worst_miss()[1] if status != "failed" else 0.0
                database.execute(sa.update(RUNS).where(where).values(miss=miss))

    def entries(self, *, limit: int = 50, worst_first: bool = True) -> list[Entry]:
        """List runs: those that ended worst predicted first, then the newest; or all newest first."""
        order = [RUNS.c.miss.desc(), RUNS.c.id.desc()] if worst_first else [RUNS.c.id.desc()]
        with self.reading() as database:
            return self._read(database, sa.select(RUNS).order_by(*order).limit(limit))

    def entry(self, folder: str | Path) -> Entry | None:
        """Find the last run of a folder; None when there is none."""
        place = str(Path(folder).resolve())
        query = sa.select(RUNS).where(RUNS.c.folder == place).order_by(RUNS.c.id.desc()).limit(1)
        with self.reading() as database:
            return next(iter(self._read(database, query)), None)

    def find(self, run_id: int) -> Entry | None:
        """Find a run by its number; None when there is none."""
        with self.reading() as database:
            return next(iter(self._read(database, sa.select(RUNS).where(RUNS.c.id == run_id))), None)

    def asked(self, run_id: int) -> tuple[str, str]:
        """Return the job and the plan of a run as JSON; empty where there is none."""
        with self.reading() as database:
            found = database.execute(sa.select(RUNS.c.job, RUNS.c.plan).where(RUNS.c.id == run_id)).first()
        return (str(found.job), str(found.plan)) if found else ("", "")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _read(self, database: sa.Connection, query: sa.Select[Any]) -> list[Entry]:
        runs = database.execute(query).mappings().all()
        stages: dict[int, list[StageEntry]] = {run["id"]: [] for run in runs}
        rows = sa.select(STAGES).where(STAGES.c.run_id.in_(stages)).order_by(STAGES.c.id)
        try:
            for row in database.execute(rows).mappings():
                stages[row["run_id"]].append(_stage_entry(row))
            return [_entry(run, tuple(stages[run["id"]])) for run in runs]
        except (ValidationError, json.JSONDecodeError) as error:
            raise StorageError(
                f"ledger '{self._name}' holds a line that cannot be read: {' '.join(str(error).split())[:200]}",
                mend=f"It is left as it is. {ELSEWHERE}, or mend the line.",
            ) from error

    def _open(self) -> None:
        if self._is_file:
            self._make_file()
        with self.reading() as database:
            tables, version = self._look(database)
        if version == 0 and self._is_file and tables:
            raise StorageError(
                f"'{self._name}' is a SQLite file of something else (its tables: {', '.join(sorted(tables)[:5])})",
                mend=f"{ELSEWHERE}.",
            )
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"ledger '{self._name}' was written by a newer thrifty (layout {version}, this one reads "
                f"{SCHEMA_VERSION})",
                mend="Upgrade thrifty, or set THRIFTY_LEDGER to another file.",
            )
        if version == 0:
            with self._writing() as database:
                # another process may have made the tables since
                if self._look(database)[1] == 0:
                    _TABLES.create_all(database)
                    database.execute(sa.insert(SCHEMA).values(version=SCHEMA_VERSION))

    @staticmethod
    def _look(database: sa.Connection) -> tuple[set[str], int]:
        tables = set(sa.inspect(database).get_table_names())
        if SCHEMA.name not in tables:
            return tables, 0
        return tables, int(database.execute(sa.select(sa.func.max(SCHEMA.c.version))).scalar() or 0)

    def _make_file(self) -> None:
        path = Path(str(self._url.database))
        with writing(path, "the ledger", mend=f"{ELSEWHERE}."):
            path.parent.mkdir(parents=True, exist_ok=True)
        use_write_ahead_log(self._engine)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._explained(), self._engine.begin() as database:
            if self._is_file:
                # takes the write lock at once: a reader that turns writer can be refused without waiting
                database.exec_driver_sql("BEGIN IMMEDIATE")
            yield database

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read in one transaction; the database's refusals are told as everywhere here."""
        with self._explained(), self._engine.begin() as database:
            if self._is_file:
                database.exec_driver_sql("BEGIN")
            yield database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a run that was never begun: the caller's mistake, not the disk's
        except DBAPIError as error:
            raise storage_error(error, self._name) from error


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _stage_entry(row: Mapping[Any, Any]) -> StageEntry:
    predicted = Cost.model_validate_json(row["predicted"]) if row["predicted"] else None
    spent = Spent.model_validate_json(row["spent"])
    return StageEntry(stage=row["stage"], attempt=row["attempt"], spent=spent, predicted=predicted)


def _entry(run: Mapping[Any, Any], stages: tuple[StageEntry, ...]) -> Entry:
    gone = run["status"] == "running" and not still_runs(run["pid"], run["process"])
    same = ("id", "name", "key", "folder", "started", "finished", "attempts", "pid", "reason", "code", "device")
    return Entry(
        **{field: run[field] for field in same},
        status="interrupted" if gone else run["status"],
        model=_model(run["job"]),
        stages=stages,
        predicted=Cost.model_validate_json(run["predicted"]) if run["predicted"] else None,
        total=add_spent(*(each.spent for each in stages)),
        metrics=json.loads(run["metrics"]) if run["metrics"] else {},
    )


def _model(job: str) -> str:
    """The model that a job names; empty for a job that is not written as one."""
    try:
        said = json.loads(job)
    except json.JSONDecodeError:
        return ""
    return str(said.get("model", "")) if isinstance(said, dict) else ""
