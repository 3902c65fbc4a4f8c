"""The ledger keeps what it was told: through many writers, kill -9, bad disks and damaged files."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from thrifty.errors import JobError, MissingExtraError, StorageError
from thrifty.ledger import Entry, Ledger, StageEntry, add_spent
from thrifty.ledger import engine as engine_module
from thrifty.ledger import store as store_module
from thrifty.ledger.process import identity, still_runs
from thrifty.spec import BatchPlan, Cost, Device, Interval, ModelPlan, OptimPlan, Plan, Quantity, Spent, StopPlan

NUMBER = Quantity(value=1.0, source="test")
DEVICE = Device(
    name="a processor", kind="cpu", cores=2, isa=(), cache_bytes={}, memory_bytes=2**30, memory_source="test",
    flops_per_second={"fp32": NUMBER}, bytes_per_second=NUMBER, datasheet_flops_per_second={},
    datasheet_bytes_per_second={}, idle_watts=NUMBER, busy_watts=NUMBER, usd_per_hour=NUMBER, measured_on="2026-11-23",
)  # fmt: skip


def cost(seconds: float, *, flops: float = 1e12) -> Cost:
    def around(value: float) -> Interval:
        return Interval.around(value, 0.2, "test")

    return Cost(
        seconds=around(seconds), peak_bytes=around(1e9), joules=around(seconds * 50), usd=around(seconds * 1e-5),
        flops=around(flops),
    )  # fmt: skip


def plan(cost: Cost) -> Plan:
    return Plan(
        job="digits", key="k", task="classify", model=ModelPlan(name="mlp", family="mlp", arguments={"width": 8}),
        init="he_normal",
        optim=OptimPlan(optimizer="adamw", schedule="cosine", learning_rate=1e-3, momentum=0, betas=(0.9, 0.99),
                        eps=1e-8, weight_decay=0.1, warmup_steps=1, total_steps=9, steps_per_epoch=3, decay=0.1,
                        plateau_patience=2, clip=float("inf")),
        batch=BatchPlan(size=8, micro=8, accumulation=1, evaluation=8),
        stop=StopPlan(steps=9, metric="accuracy", higher_is_better=True, target=float("inf"), patience=0,
                      seconds=float("inf"), joules=float("inf"), usd=float("inf")),
        device="cpu", threads=2, precision="fp32", memory_format="contiguous", evaluate_every=3,
        checkpoint_seconds=30, seed=0, cost=cost, why=(),
    )  # fmt: skip


def spent(seconds: float, **more: float) -> Spent:
    return Spent.model_validate(
        {"wall_s": seconds, "joules": seconds * 50, "usd": seconds * 1e-5, "peak_rss_bytes": 10**9, **more}
    )


def begin(ledger: Ledger, folder: Path, *, key: str = "k", pid: int = 0) -> int:
    return ledger.begin(
        name="digits", key=key, folder=folder, job="{}", device=DEVICE, code="0.1.0", pid=pid or os.getpid()
    )


def run_through(ledger: Ledger, folder: Path, *, measured: float, predicted: float = 100.0) -> int:
    run_id = begin(ledger, folder)
    ledger.planned(run_id, plan(cost(predicted)))
    ledger.stage(run_id, 1, "train", spent(measured))
    ledger.finish(run_id, status="done", metrics={"accuracy": 0.9}, reason="all steps taken")
    return run_id


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "deep" / "ledger.db")


def test_a_run_comes_back_as_it_was_told(ledger: Ledger, tmp_path: Path) -> None:
    run_id = begin(ledger, tmp_path / "run")
    ledger.planned(run_id, plan(cost(100)))
    ledger.stage(run_id, 1, "prepare", spent(3))
    ledger.stage(run_id, 1, "train", spent(10), predicted=cost(7))
    ledger.stage(run_id, 1, "train", spent(90, flops=1e12))
    running = ledger.entry(tmp_path / "run")
    assert running is not None and (running.status, running.finished) == ("running", "")
    ledger.finish(run_id, status="done", metrics={"accuracy": 0.9}, reason="all steps taken")
    ledger.close()

    entry = Ledger(tmp_path / "deep" / "ledger.db").entry(tmp_path / "run")
    assert entry is not None
    assert (entry.status, entry.metrics, entry.reason) == ("done", {"accuracy": 0.9}, "all steps taken")
    assert (entry.device, entry.code, entry.attempts, entry.pid) == ("a processor", "0.1.0", 1, os.getpid())
    assert entry.predicted == cost(100)
    # said twice, kept once, where it first stood; the prediction said once stays
    assert [(s.stage, s.spent.wall_s, s.predicted) for s in entry.stages] == [
        ("prepare", 3.0, None), ("train", 90.0, cost(7)),
    ]  # fmt: skip
    assert entry.total.wall_s == 93
    assert entry.started <= entry.finished
    assert Entry.model_validate_json(entry.model_dump_json()) == entry
    assert Ledger(tmp_path / "deep" / "ledger.db").entry(tmp_path / "no such run") is None


def test_worst_prediction_comes_first(ledger: Ledger, tmp_path: Path) -> None:
    for name, measured in (("good", 101), ("twice", 200), ("third", 33), ("fair", 120)):
        run_through(ledger, tmp_path / name, measured=measured)
    begin(ledger, tmp_path / "unfinished")
    named = [Path(entry.folder).name for entry in ledger.entries()]
    assert named == ["third", "twice", "fair", "good", "unfinished"]
    assert [Path(e.folder).name for e in ledger.entries(limit=2, worst_first=False)] == ["unfinished", "fair"]
    quantity, miss = ledger.entries(limit=1)[0].worst_miss()
    assert quantity == "seconds" and miss == pytest.approx(1.1087, abs=1e-3)


def test_unfinished_runs_go_on_and_done_ones_do_not(ledger: Ledger, tmp_path: Path) -> None:
    first = begin(ledger, tmp_path / "run")
    ledger.stage(first, 1, "train", spent(10))
    assert begin(ledger, tmp_path / "run") == first
    ledger.stage(first, 2, "train", spent(20))
    ledger.finish(first, status="stopped", metrics={}, reason="interrupted from the keyboard")
    assert begin(ledger, tmp_path / "run") == first
    entry = ledger.entry(tmp_path / "run")
    assert entry is not None and entry.attempts == 3
    assert (entry.status, entry.finished, entry.reason) == ("running", "", "")
    assert entry.training().wall_s == entry.total.wall_s == 30
    assert begin(ledger, tmp_path / "run", key="other") != first
    ledger.finish(first, status="done", metrics={}, reason="")
    assert begin(ledger, tmp_path / "run") != first
    assert begin(ledger, tmp_path / "elsewhere") != first


def test_a_dead_process_shows_as_interrupted(ledger: Ledger, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    begin(ledger, tmp_path / "run", pid=child.pid)
    alive = ledger.entry(tmp_path / "run")
    child.kill()
    while identity(child.pid):  # a zombie counts as dead before anyone waits for it
        time.sleep(0.01)
    dead = ledger.entry(tmp_path / "run")
    child.communicate()
    assert alive is not None and alive.status == "running"
    assert dead is not None and dead.status == "interrupted"
    gone = ledger.entry(tmp_path / "run")
    assert gone is not None and gone.status == "interrupted"
    begin(ledger, tmp_path / "run")
    again = ledger.entry(tmp_path / "run")
    assert again is not None and (again.status, again.attempts) == ("running", 2)


def test_a_reused_process_number_is_another_process() -> None:
    mine = identity(os.getpid())
    host, boot, start = mine.split("/")
    assert still_runs(os.getpid(), mine)
    assert not still_runs(os.getpid(), f"{host}/{boot}/{int(start) - 1}")
    assert still_runs(os.getpid(), f"another-host/{boot}/{int(start) - 1}")


WRITER = """
import os, sys
from pathlib import Path
from thrifty.ledger import Ledger
from thrifty.spec import Device, Spent
ledger, name, count = Ledger(sys.argv[1]), sys.argv[2], int(sys.argv[3])
device = Device.model_validate_json(sys.argv[4])
run = ledger.begin(name=name, key="k", folder=Path("/runs") / name, job="{}", device=device, code="", pid=os.getpid())
for number in range(count):
    ledger.stage(run, 1, f"stage {number}", Spent(wall_s=number))
    print(number, flush=True)
ledger.finish(run, status="done", metrics={}, reason="")
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), DEVICE.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_four_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"  # made by whichever comes first
    writers = [writer(path, f"writer-{number}", 40) for number in range(4)]
    for process in writers:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    entries = Ledger(path).entries()
    assert sorted(entry.name for entry in entries) == [f"writer-{number}" for number in range(4)]
    for entry in entries:
        assert entry.status == "done"
        assert [stage.spent.wall_s for stage in entry.stages] == list(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 23])
def test_a_process_killed_while_it_writes_loses_nothing_it_was_told_is_kept(tmp_path: Path, after: int) -> None:
    path = tmp_path / "ledger.db"
    process = writer(path, "killed", 100_000)
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    told = after + len(said.splitlines())
    assert process.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    (entry,) = Ledger(path).entries()
    kept = [stage.spent.wall_s for stage in entry.stages]
    assert kept == list(range(len(kept)))
    assert told <= len(kept) <= told + 2  # the last may have been kept before it could say so
    assert entry.status == "interrupted"


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all\n" * 100)
    with pytest.raises(StorageError, match=r"ledger\.db' is damaged.*THRIFTY_LEDGER"):
        Ledger(path)
    assert path.read_bytes() == b"not a database at all\n" * 100


def test_damage_within_the_file_is_named_too(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(30):
        run_through(ledger, tmp_path / f"run-{number}", measured=10)
    path = tmp_path / "deep" / "ledger.db"
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"ledger\.db' is damaged"):
        Ledger(path).entries()
    assert path.read_bytes() == content


def test_a_line_that_cannot_be_read_is_said(ledger: Ledger, tmp_path: Path) -> None:
    run_through(ledger, tmp_path / "run", measured=10)
    with sqlite3.connect(tmp_path / "deep" / "ledger.db") as database:
        database.execute("UPDATE stages SET spent = '{\"parsecs\": 3}'")
    database.close()
    with pytest.raises(StorageError, match=r"cannot be read: .*parsecs"):
        ledger.entries()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "history.db") as database:
        database.execute("CREATE TABLE visits (url TEXT)")
    database.close()
    with pytest.raises(StorageError, match=r"history\.db' is a SQLite file of something else.*visits"):
        Ledger(tmp_path / "history.db")


def test_a_ledger_of_a_newer_thrifty_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "deep" / "ledger.db") as database:
        database.execute("UPDATE thrifty_schema SET version = 7")
    database.close()
    with pytest.raises(StorageError, match=r"newer thrifty \(layout 7, this one reads 1\).*Upgrade"):
        Ledger(tmp_path / "deep" / "ledger.db")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"the ledger.*THRIFTY_LEDGER"):
        Ledger(tmp_path / "file" / "ledger.db")
    with pytest.raises(StorageError, match=r"cannot be opened.*THRIFTY_LEDGER"):
        Ledger(tmp_path)


def test_a_read_only_ledger_is_said(ledger: Ledger, tmp_path: Path) -> None:
    # the permission bits do not bind root, whom tests often run as; SQLite's own switch refuses alike
    sa.event.listen(ledger._engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
    with pytest.raises(StorageError, match=r"read-only for this user.*THRIFTY_LEDGER"):
        begin(ledger, tmp_path / "run")
    assert ledger.entries() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_file_without_write_permission_is_said(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "deep" / "ledger.db").chmod(0o444)
    with pytest.raises(StorageError, match=r"read-only for this user.*THRIFTY_LEDGER"):
        begin(Ledger(tmp_path / "deep" / "ledger.db"), tmp_path / "run")


def test_a_full_disk_is_said_and_the_old_lines_stay(ledger: Ledger, tmp_path: Path) -> None:
    run_id = begin(ledger, tmp_path / "run")
    sa.event.listen(ledger._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    with pytest.raises(StorageError, match=r"the disk is full.*THRIFTY_LEDGER"):
        ledger.stage(run_id, 1, "train", spent(1, wall_s=1.0).model_copy(update={"usd_method": "x" * 9999}))
    assert [entry.id for entry in ledger.entries()] == [run_id]


def test_a_disk_that_refuses_is_said(ledger: Ledger, tmp_path: Path) -> None:
    run_id = begin(ledger, tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"disk .*THRIFTY_LEDGER"):
            ledger.stage(run_id, 1, "train", Spent(usd_method="x" * 99_999))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    ledger.stage(run_id, 1, "train", spent(1))


def test_a_busy_ledger_is_said(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.05)
    impatient = Ledger(tmp_path / "deep" / "ledger.db")
    holder = sqlite3.connect(tmp_path / "deep" / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="held by another process"):
        begin(impatient, tmp_path / "run")
    assert impatient.entries() == []  # a writer keeps no reader out
    holder.close()


def test_a_stage_of_a_run_that_was_never_begun_is_the_callers_mistake(ledger: Ledger) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        ledger.stage(99, 1, "train", spent(1))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/name", "cannot be kept in 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("://", "is not a URL"),
    ],
)
def test_urls_that_cannot_be_meant(url: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Ledger(url)


def test_a_sqlite_url_is_a_path(tmp_path: Path) -> None:
    run_through(Ledger(f"sqlite:///{tmp_path}/a.db"), tmp_path / "run", measured=1)
    assert len(Ledger(str(tmp_path / "a.db")).entries()) == 1


def test_postgresql_without_its_driver_names_the_extra() -> None:
    # a driver that is never there: `psycopg` may be installed beside the tests
    url = _NoDriver("postgresql+psycopg", "u", "secret", "host", None, "name", sa.util.EMPTY_DICT)
    with pytest.raises(MissingExtraError, match=r"needs the package 'nodriver'.*thrifty\[postgres\]") as caught:
        engine_module.open_engine(url)
    assert "secret" not in str(caught.value)


class _NoDriver(sa.URL):
    def get_driver_name(self) -> str:
        return "nodriver"


def test_the_tables_can_be_made_in_postgresql() -> None:
    made = [
        str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))
        for table in store_module._TABLES.sorted_tables
    ]
    assert any("id SERIAL NOT NULL" in statement and "CREATE TABLE runs" in statement for statement in made)


def test_an_early_stop_owes_the_share_of_the_work_it_did() -> None:
    entry = Entry(
        id=1, name="a", key="", folder="", status="done", started="", finished="", attempts=1, pid=1,
        predicted=cost(100),
        stages=(StageEntry(stage="train", attempt=1, spent=spent(44, flops=4e11)),), total=Spent(), metrics={},
        reason="", code="", device="",
    )  # fmt: skip
    assert entry.work_done() == pytest.approx(0.4)
    by_name = {each.quantity: each for each in entry.comparisons()}
    assert by_name["seconds"].difference == pytest.approx(0.1)
    assert by_name["seconds"].inside
    assert by_name["peak_bytes"].difference == pytest.approx(0.0)
    assert by_name["flops"].difference == pytest.approx(0.0) and by_name["flops"].predicted.value == 1e12
    quantity, miss = entry.worst_miss()
    assert quantity in {"seconds", "joules", "usd"} and miss == pytest.approx(0.0953, abs=1e-3)
    unknown = entry.model_copy(update={"stages": ()})
    assert unknown.worst_miss() == ("", 0.0)
    assert entry.model_copy(update={"predicted": None}).comparisons() == ()


seconds = st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1e3)
spents = st.builds(
    Spent,
    wall_s=seconds,
    cpu_s=seconds,
    peak_rss_bytes=st.integers(0, 2**40),
    flops=st.sampled_from([0.0, 1e9]),
    peak_share=st.sampled_from([0.0, 0.25, 1.0]),
    joules=seconds,
    joules_method=st.sampled_from(["", "RAPL", "declared"]),
    usd=seconds,
)


@given(st.lists(spents, max_size=5))
def test_adding_up(parts: list[Spent]) -> None:
    total = add_spent(*parts)
    assert total.wall_s == pytest.approx(sum(part.wall_s for part in parts))
    assert total.peak_rss_bytes == max((part.peak_rss_bytes for part in parts), default=0)
    counted = [part.peak_share for part in parts if part.flops]
    assert min(counted, default=0) * 0.999 <= total.peak_share <= max(counted, default=0) * 1.001 + 1e-12 or not any(
        part.wall_s for part in parts if part.flops
    )
    said = [method for method in total.joules_method.split("; ") if method]
    assert set(said) == {part.joules_method for part in parts} - {""} and len(said) == len(set(said))
