"""The trials of a study in Optuna's database: SQLite in the search's folder, or PostgreSQL that several machines share.

A trial that waits to go on is Optuna's WAITING, and becomes RUNNING for one worker alone: the database sees to that.
A worker that is gone leaves a trial RUNNING: its process is looked for on the same machine, and elsewhere its
heartbeat; then the trial waits again. A database that goes away is asked again for some minutes: what a worker learned
meanwhile it knows, and says when it is back.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState

from thrifty.errors import JobError, MissingExtraError, StorageError
from thrifty.files import writing
from thrifty.ledger.engine import DATABASE_ERRORS, write_at_once
from thrifty.ledger.process import identity, still_runs
from thrifty.spec.events import Emit, Warned
from thrifty.spec.tuning import Settings, Space, Status
from thrifty.spec.units import format_seconds
from thrifty.tune.proposals import distributions
from thrifty.tune.record import Price, Record, Said

Got = TypeVar("Got")

# for which a database that does not answer is asked again, from the first wait on, each twice as long up to the last
PATIENCE_SECONDS, FIRST_WAIT, LONGEST_WAIT = 600.0, 0.5, 15.0
# one that was never there is given less: its address may be wrong
OPENING_SECONDS = 10.0
# a worker says that it is alive, and is given up after so many seconds of silence
BEAT_SECONDS, SILENT_SECONDS = 30, 600
# SQLite waits so long for another process's transaction
BUSY_SECONDS = 30
# PostgreSQL's host may not answer at all
CONNECT_SECONDS = 10
_SAID = "thrifty"
_LOST: tuple[type[Exception], ...] = (optuna.exceptions.StorageInternalError, *DATABASE_ERRORS)
_STATES: dict[Status, TrialState] = {
    "running": TrialState.RUNNING,
    "paused": TrialState.WAITING,
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "impossible": TrialState.FAIL,
    "repeated": TrialState.FAIL,
}


class Study:
    """One study in a database; every method asks again while the database is away.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``.
        name: of the study; made where it is not there.
        rises: whether more of the figure is better.
        emit: is told when the database goes away and comes back.

    Raises:
        StorageError: the database cannot be opened, or does not come back; here and from every method.
        MissingExtraError: the driver of PostgreSQL is not installed.
        JobError: a URL of another kind.
    """

    def __init__(self, url: str, name: str, *, rises: bool, emit: Emit) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._url, self._name, self._emit = read_url(url), name, emit
        self._shown = _without_password(url)
        self._lock = threading.Lock()
        self._patience_s = OPENING_SECONDS
        self._storage = self._patiently(self._open)
        direction = optuna.study.StudyDirection.MAXIMIZE if rises else optuna.study.StudyDirection.MINIMIZE
        self._id = self._patiently(lambda: self._find(direction))
        self._patience_s = PATIENCE_SECONDS

    def records(self) -> list[Record]:
        """Every trial, in the order they were begun."""
        return self._patiently(self._read)

    def _read(self) -> list[Record]:
        return [_record(trial) for trial in self._storage.get_all_trials(self._id, deepcopy=False)]

    def begin(self, settings: Settings, space: Space, said: Said) -> Record:
        """Enter a trial that this process is at work on."""
        mine = _mine(said)
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(settings),
            distributions=distributions(space),
            user_attrs={_SAID: mine.model_dump(mode="json")},
        )
        tries = 0

        def enter() -> int:
            nonlocal tries
            tries += 1
            # where a connection broke after all was written, the trial is there already
            there = [each.id for each in self._read() if each.said == mine] if tries > 1 else []
            return there[0] if there else self._storage.create_new_trial(self._id, trial)

        number = self._patiently(enter)
        record = _record(self._patiently(lambda: self._storage.get_trial(number)))
        self._beat(record.id)
        return record

    def claim(self, record: Record, said: Said) -> Record | None:
        """Take a trial that waits; None where another worker was first."""
        if not self._patiently(lambda: self._storage.set_trial_state_values(record.id, TrialState.RUNNING)):
            return None
        self._beat(record.id)
        return self.say(record.model_copy(update={"status": "running"}), _mine(said))

    def say(self, record: Record, said: Said, curve: dict[int, float] | None = None) -> Record:
        """Write what is known of a trial; what was written before of it stays."""
        figures = curve or {}

        def write() -> None:
            for step, value in figures.items():
                if record.curve.get(step) != value:
                    self._storage.set_trial_intermediate_value(record.id, step, value)
            self._storage.set_trial_user_attr(record.id, _SAID, said.model_dump(mode="json"))

        self._patiently(write)
        return record.model_copy(update={"said": said, "curve": {**record.curve, **figures}})

    def note(self, record: Record, step: int, value: float) -> None:
        """Write a validation figure at once, if the database is there; `say` writes it in any case."""
        with contextlib.suppress(*_LOST), self._lock:
            self._storage.set_trial_intermediate_value(record.id, step, value)

    def leave(self, record: Record, status: Status, value: float | None = None) -> Record:
        """Let go of a trial: it waits, or has ended; ``value`` is its figure where it is done."""
        values = [value] if value is not None and status == "done" else None
        said = record.said.model_copy(update={"status": status, "under_way": Price(), "pid": 0, "process": ""})

        def write() -> None:
            # said again after a connection broke: what was written then is not refused
            if not self._storage.get_trial(record.id).state.is_finished():
                self._storage.set_trial_user_attr(record.id, _SAID, said.model_dump(mode="json"))
                self._storage.set_trial_state_values(record.id, _STATES[status], values)

        self._patiently(write)
        return record.model_copy(update={"status": status, "said": said})

    def reclaim(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Have the trials of workers that are gone wait again; returns them.

        Args:
            records: of the study, as just read; read anew when left out.
        """
        running = [each for each in (self.records() if records is None else records) if each.status == "running"]
        here = identity(os.getpid()).partition("/")[0]
        silent: set[int] = set()
        if any(each.said.process.partition("/")[0] != here for each in running):
            silent = set(self._patiently(lambda: self._storage._get_stale_trial_ids(self._id)))
        lost = []
        for each in running:
            gone = not still_runs(each.said.pid, each.said.process)
            if gone or (each.id in silent and each.said.process.partition("/")[0] != here):
                lost.append(self.leave(each, "paused"))
        return lost

    @contextlib.contextmanager
    def beating(self, record: Record) -> Iterator[None]:
        """Let others know, while in the block, that its worker is alive."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                self._beat(record.id)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _beat(self, trial: int) -> None:
        # one that is missed is made up for by the next
        with contextlib.suppress(*_LOST), self._lock:
            self._storage.record_heartbeat(trial)

    def _open(self) -> optuna.storages.RDBStorage:
        file = self._url.startswith("sqlite")
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}}
        if not file:
            options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_SECONDS}}
        if file:
            path = Path(self._url.removeprefix("sqlite:///"))
            with writing(path, "the study"):
                path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # heartbeats are called experimental
            warnings.simplefilter("ignore")
            try:
                storage = optuna.storages.RDBStorage(
                    self._url, engine_kwargs=options, heartbeat_interval=BEAT_SECONDS, grace_period=SILENT_SECONDS
                )
            except RuntimeError as error:
                # its tables are of another version of Optuna
                raise StorageError(
                    f"the study's database {self._shown} cannot be used: {_reason(error)}",
                    mend="It is left as it is: name another one, or use the version that made it.",
                ) from error
        if file:
            # SQLite locks no rows: two workers would read that a trial waits, and both take it
            write_at_once(storage.engine)
        return storage

    def _find(self, direction: optuna.study.StudyDirection) -> int:
        try:
            return self._storage.create_new_study([direction], self._name)
        except optuna.exceptions.DuplicatedStudyError:
            return self._storage.get_study_id_from_name(self._name)

    def _patiently(self, call: Callable[[], Got]) -> Got:
        """Ask the database, and again while it does not answer."""
        began, wait_s, told = time.monotonic(), FIRST_WAIT, False
        while True:
            try:
                with self._lock:
                    got = call()
                if told:
                    away = format_seconds(time.monotonic() - began)
                    self._emit(Warned(f"the study's database is back after {away}; nothing is lost"))
                return got
            except _LOST as error:
                if time.monotonic() - began > self._patience_s:
                    raise StorageError(
                        f"the study's database {self._shown} did not answer for {format_seconds(self._patience_s)}: "
                        f"{_reason(error)}",
                        mend="Check it; what trials learned is in their checkpoints: give the same command again then.",
                    ) from error
                if not told:
                    told = True
                    self._emit(Warned(f"the study's database does not answer ({_reason(error)}); asking again"))
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT)


def read_url(url: str) -> str:
    """Return a URL as the database's library takes it.

    >>> read_url("sqlite:////tmp/study.sqlite"), read_url("/tmp/study.sqlite")
    ('sqlite:////tmp/study.sqlite', 'sqlite:////tmp/study.sqlite')

    Raises:
        JobError: it is neither a path nor of SQLite or PostgreSQL.
        MissingExtraError: the driver of PostgreSQL is not installed.
    """
    if "://" not in url:
        return f"sqlite:///{Path(url).expanduser().absolute()}"
    kind = url.partition("://")[0]
    if kind == "sqlite":
        place = url.removeprefix("sqlite:///")
        if not url.startswith("sqlite:///") or place in {"", ":memory:"}:
            raise JobError(f"a study needs a file that lasts, got '{url}'", mend="Write a path, or sqlite:///path.")
        return f"sqlite:///{Path(place).absolute()}"
    if kind.partition("+")[0] not in {"postgresql", "postgres"}:
        raise JobError(
            f"a study cannot be kept in '{kind}'", mend="Known: a path, sqlite:///path, postgresql://user@host/name."
        )
    driver = kind.partition("+")[2] or "psycopg"
    if importlib.util.find_spec(driver) is None:
        raise MissingExtraError("a study in PostgreSQL", package=driver, extra="postgres")
    return f"postgresql+{driver}://{url.partition('://')[2]}"


def is_shared(url: str) -> bool:
    """Whether machines can share a study at this URL."""
    return "://" in url and not url.startswith("sqlite")


def _without_password(url: str) -> str:
    """A URL as it may be shown.

    >>> _without_password("postgresql://me:secret@host/name")
    "'postgresql://me@host/name'"
    """
    scheme, _, rest = url.rpartition("://")
    user, at, place = rest.rpartition("@")
    return f"'{scheme}{'://' if scheme else ''}{user.partition(':')[0]}{at}{place}'"


def _reason(error: BaseException) -> str:
    """What a database's library said, in a line and without the statement."""
    cause = error.__cause__ or error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())[:160] or type(cause).__name__


def _mine(said: Said) -> Said:
    pid = os.getpid()
    return said.model_copy(update={"pid": pid, "process": identity(pid), "status": "running"})


def _record(trial: optuna.trial.FrozenTrial) -> Record:
    said = Said.model_validate(trial.user_attrs.get(_SAID, {"key": ""}))
    if trial.state == TrialState.FAIL:
        status: Status = said.status if said.status in {"failed", "impossible", "repeated"} else "failed"
    else:
        status = next(name for name, state in _STATES.items() if state == trial.state)
    return Record(
        number=trial.number,
        id=trial._trial_id,
        settings=trial.params,
        status=status,
        curve=dict(sorted(trial.intermediate_values.items())),
        said=said,
    )
