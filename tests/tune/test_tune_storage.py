"""The study's database: one worker for a trial, workers that are gone, one that goes away; SQLite and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from thrifty.errors import JobError, MissingExtraError, StorageError
from thrifty.spec.events import Event, Warned
from thrifty.spec.tuning import Choice
from thrifty.tune import storage as storage_module
from thrifty.tune.record import Price, Said
from thrifty.tune.storage import Study, is_shared, read_url

SPACE = {"learning_rate": Choice(low=0.1, high=1.0), "schedule": Choice(values=("cosine", "linear"))}
SETTINGS = {"learning_rate": 0.5, "schedule": "linear"}
SAID = Said(key="k", total=90, per_epoch=10, priced=Price(seconds=2.0))


def study(url: str | Path, told: list[Event] | None = None) -> Study:
    return Study(str(url), "study", rises=True, emit=(told if told is not None else []).append)


def test_a_trial_is_kept_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    mine = study(tmp_path / "study.sqlite")
    record = mine.begin(SETTINGS, SPACE, SAID)
    assert record.status == "running" and record.said.pid == os.getpid()
    record = mine.say(record, record.said.model_copy(update={"step": 20}), {10: 0.5, 20: 0.6})
    mine.leave(record, "paused")
    mine.close()
    (again,) = study(tmp_path / "study.sqlite").records()
    assert again.settings == SETTINGS and again.curve == {10: 0.5, 20: 0.6}
    assert again.status == "paused" and again.said.step == 20 and again.said.priced.seconds == 2.0


def test_a_trial_that_waits_is_taken_by_one_worker_alone(tmp_path: Path) -> None:
    one, other = study(tmp_path / "study.sqlite"), study(tmp_path / "study.sqlite")
    waits = one.leave(one.begin(SETTINGS, SPACE, SAID), "paused")
    taken: list[object] = []
    threads = [
        threading.Thread(target=lambda each=each: taken.append(each.claim(waits, SAID))) for each in (one, other)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each is None for each in taken].count(True) == 1


def test_what_has_ended_stays(tmp_path: Path) -> None:
    mine = study(tmp_path / "study.sqlite")
    for status in ("done", "pruned", "failed", "impossible", "repeated"):
        record = mine.begin(SETTINGS, SPACE, SAID)
        mine.leave(record, status, 0.75)  # type: ignore[arg-type]
        # as after a connection that broke when all was written
        mine.leave(record, status, 0.75)  # type: ignore[arg-type]
    assert [each.status for each in mine.records()] == ["done", "pruned", "failed", "impossible", "repeated"]
    assert mine.reclaim() == []


@pytest.mark.slow
def test_the_trial_of_a_worker_that_was_killed_waits_again(tmp_path: Path) -> None:
    url = tmp_path / "study.sqlite"
    mine = study(url)
    alive = mine.begin(SETTINGS, SPACE, SAID)
    program = (
        "import sys, os, signal\n"
        "from thrifty.tune.storage import Study\nfrom thrifty.tune.record import Said\n"
        "from thrifty.spec.tuning import Choice\n"
        "study = Study(sys.argv[1], 'study', rises=True, emit=print)\n"
        "space = {'learning_rate': Choice(low=0.1, high=1.0), 'schedule': Choice(values=('cosine', 'linear'))}\n"
        "study.begin({'learning_rate': 0.2, 'schedule': 'cosine'}, space, Said(key='l'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(url)], check=False)
    assert killed.returncode == -9
    (lost,) = mine.reclaim()
    assert lost.settings["learning_rate"] == 0.2 and lost.status == "paused"
    assert [each.status for each in mine.records()] == ["running", "paused"]
    assert mine.records()[0].number == alive.number


def test_a_worker_of_another_machine_is_believed_until_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "SILENT_SECONDS", 1)
    mine = study(tmp_path / "study.sqlite")
    far = mine.begin(SETTINGS, SPACE, SAID)
    far = mine.say(far, far.said.model_copy(update={"process": "elsewhere/boot/1"}))
    assert mine.reclaim() == []
    with sqlite3.connect(tmp_path / "study.sqlite") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
    assert [each.number for each in mine.reclaim()] == [far.number]


def test_a_database_that_is_held_by_another_is_asked_again_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "BUSY_SECONDS", 0.05)
    told: list[Event] = []
    mine = study(tmp_path / "study.sqlite", told)
    record = mine.begin(SETTINGS, SPACE, SAID)
    holder = sqlite3.connect(tmp_path / "study.sqlite", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.6, lambda: holder.execute("COMMIT")).start()
    mine.say(record, record.said.model_copy(update={"step": 30}), {30: 0.7})
    holder.close()
    (kept,) = mine.records()
    assert kept.curve == {30: 0.7} and kept.said.step == 30
    said = [event.message for event in told if isinstance(event, Warned)]
    assert len(said) == 2 and "does not answer" in said[0] and "nothing is lost" in said[1]


def test_a_database_that_does_not_come_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "OPENING_SECONDS", 0.2)
    (tmp_path / "study.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match=r"did not answer.*not a database"):
        study(tmp_path / "study.sqlite")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u@h/name", "cannot be kept in 'mysql'"),
        ("sqlite://", "needs a file that lasts"),
        ("sqlite:///:memory:", "needs a file that lasts"),
    ],
)
def test_a_place_that_cannot_be_meant_is_told(url: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        read_url(url)
    assert not is_shared("/tmp/study.sqlite") and is_shared("postgresql://u@h/name")


def test_postgresql_without_its_driver_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"needs the package 'nodriver'.*thrifty\[postgres\]"):
        read_url("postgresql+nodriver://u:secret@h/name")


PROGRAMS = Path("/usr/lib/postgresql")


class Server:
    """A PostgreSQL server of its own, on the loopback address."""

    def __init__(self, folder: Path, programs: Path, user: list[str]) -> None:
        self.folder, self.programs, self.user = folder, programs, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.run("initdb", "-D", str(folder / "data"), "-U", "thrifty", "--auth=trust", "--no-sync")

    def run(self, program: str, *arguments: str) -> None:
        command = [*self.user, str(self.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=60, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        log = str(self.folder / "log")
        command = [*self.user, str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-l", log]
        subprocess.run([*command, "-o", options, "start"], check=True, cwd=self.folder, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    @property
    def url(self) -> str:
        return f"postgresql://thrifty@127.0.0.1:{self.port}/postgres"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    """A server that runs; it refuses to run as root, and is then run as Debian's user for it."""
    found = sorted(PROGRAMS.glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed on this machine (Debian: apt-get install postgresql)")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'thrifty[postgres]'")
    folder, user = Path(tempfile.mkdtemp(prefix="thrifty-postgresql-")), []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    server = Server(folder, found[-1], user)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_postgresql_server_that_goes_away_in_the_middle_loses_nothing(postgresql: Server) -> None:
    told: list[Event] = []
    mine, other = study(postgresql.url, told), study(postgresql.url)
    record = mine.begin(SETTINGS, SPACE, SAID)
    postgresql.stop()
    back = threading.Timer(1.5, postgresql.start)
    back.start()
    began = time.monotonic()
    record = mine.say(record, record.said.model_copy(update={"step": 40}), {40: 0.8})
    back.join()
    waits = mine.leave(record, "paused")
    assert time.monotonic() - began > 1.0
    assert [event.message for event in told if isinstance(event, Warned)]
    (seen,) = other.records()
    assert seen.curve == {40: 0.8} and seen.said.step == 40 and seen.status == "paused"
    taken = other.claim(waits, waits.said)
    assert taken is not None and mine.claim(waits, waits.said) is None
    for each in (mine, other):
        each.close()
