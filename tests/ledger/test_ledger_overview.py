"""The ledger in short: as its entries say, kept fresh, and whole where a line is spoilt."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from test_ledger_store import begin, cost, plan, run_through, spent

from thrifty.errors import StorageError
from thrifty.ledger import Ledger, Overview, overview
from thrifty.ledger.overview import Line


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "FRESH_SECONDS", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def test_lines_are_what_entries_say(ledger: Ledger, tmp_path: Path) -> None:
    for name, measured in (("good", 101), ("twice", 200), ("third", 33)):
        run_through(ledger, tmp_path / name, measured=measured)
    short = begin(ledger, tmp_path / "short")
    ledger.planned(short, plan(cost(100, flops=4e12)))
    ledger.stage(short, 1, "prepare", spent(7))
    ledger.stage(short, 1, "train", spent(20, flops=1e12, device_peak_bytes=3 * 10**9))
    ledger.stage(short, 2, "train", spent(12, flops=1e12))
    ledger.finish(short, status="stopped", metrics={}, reason="stopped by SIGTERM")
    begin(ledger, tmp_path / "unplanned")
    lines = Overview(ledger).lines()
    entries = ledger.entries(worst_first=False)
    assert [line.id for line in lines] == [entry.id for entry in entries]
    for line, entry in zip(lines, entries, strict=True):
        for name in ("name", "folder", "status", "started", "finished", "device", "model", "reason", "metrics"):
            assert getattr(line, name) == getattr(entry, name)
        assert line.wall_s == pytest.approx(entry.total.wall_s)
        assert line.joules == pytest.approx(entry.total.joules) and line.usd == pytest.approx(entry.total.usd)
        assert line.peak_bytes == (entry.total.device_peak_bytes or entry.total.peak_rss_bytes)
        compared = {each.quantity: each.difference + 1 for each in entry.comparisons() if each.quantity != "flops"}
        assert line.ratios == pytest.approx({name: ratio for name, ratio in compared.items() if not math.isnan(ratio)})
        assert line.worst[0] == entry.worst_miss()[0] or line.worst[1] == pytest.approx(1.0)
        if line.status != "running":
            assert line.miss == pytest.approx(entry.worst_miss()[1])
    stopped = next(line for line in lines if line.id == short)
    assert stopped.ratios["seconds"] == pytest.approx(32 / 50), "half of the work was owed"


def test_what_changed_is_read_again_and_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    done = run_through(ledger, tmp_path / "done", measured=50)
    running = begin(ledger, tmp_path / "running")
    with subprocess.Popen(["sleep", "600"]) as process:
        gone = begin(ledger, tmp_path / "gone", pid=process.pid)
        process.kill()
    seen = Overview(ledger)

    def lines() -> dict[int, Line]:
        return {line.id: line for line in seen.lines()}

    first = lines()
    assert [first[each].status for each in (done, running, gone)] == ["done", "running", "interrupted"]
    ledger.stage(running, 1, "train", spent(3))
    ledger.stage(done, 1, "compress", spent(9))
    second = lines()
    assert (second[running].wall_s, second[done].wall_s) == (3, 59)
    ledger.stage(running, 1, "train", spent(4))
    ledger.finish(running, status="done", metrics={"accuracy": 0.5}, reason="all steps done")
    third = lines()
    assert (third[running].status, third[running].wall_s) == ("done", 4)
    assert third[done] is second[done], "what did not change was not read"
    new = run_through(ledger, tmp_path / "new", measured=50)
    assert seen.lines()[0].id == new


def test_lines_are_fresh_for_a_while(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "FRESH_SECONDS", 60.0)
    seen = Overview(ledger)
    assert list(seen.lines()) == []
    run_through(ledger, tmp_path / "run", measured=50)
    assert list(seen.lines()) == [], "it is not asked again so soon"


SPOILT = st.text(max_size=20) | st.sampled_from(["null", "[]", "7", '{"wall_s": "x"}', '{"seconds": 1}', "{}", '"a"'])


@given(job=SPOILT, predicted=SPOILT, metrics=SPOILT, spent_text=SPOILT)
def test_a_line_can_be_spoilt_in_any_way(job: str, predicted: str, metrics: str, spent_text: str) -> None:
    plain = dict.fromkeys(("name", "folder", "started", "finished", "device", "reason", "process"), "x")
    run = {**plain, "id": 1, "pid": 1, "status": "done", "job": job, "predicted": predicted, "metrics": metrics}
    line = overview._line(run, [("train", spent_text)])
    assert (line.id, line.status) == (1, "done") and math.isfinite(line.miss)


def test_a_spoilt_line_leaves_the_others(ledger: Ledger, tmp_path: Path) -> None:
    runs = [run_through(ledger, tmp_path / name, measured=50) for name in ("one", "other")]
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database, database:
        database.execute("UPDATE stages SET spent = '{' WHERE run_id = ?", (runs[0],))
    other, spoilt = Overview(ledger).lines()
    assert other.ratios["seconds"] == pytest.approx(0.5) and not other.damaged
    assert (spoilt.id, spoilt.status, spoilt.damaged, spoilt.wall_s) == (runs[0], "done", True, 0.0)


def test_a_ledger_that_is_gone_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    (tmp_path / "ledger.db").write_bytes(b"not a database any more, " * 400)
    with pytest.raises(StorageError, match="damaged or not a ledger"):
        Overview(ledger).lines()
