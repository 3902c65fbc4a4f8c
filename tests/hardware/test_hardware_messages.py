"""What travels between ranks: timed with real processes, kept, and assumed with its reason where it cannot be timed."""

from __future__ import annotations

from pathlib import Path

import pytest

import thrifty.hardware.messages as messages
from thrifty.cost.network import gather_seconds, links_between, reduce_seconds
from thrifty.hardware.messages import LARGE_BYTES, SMALL_BYTES, Messages, assumed, free_cores, messages_here


def test_what_is_not_timed_is_assumed_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    monkeypatch.setenv("THRIFTY_MEASURE_SECONDS", "0")
    found = messages_here("cpu", 2)
    assert not found.timed and found.source == "assumed: nothing was to be timed"
    assert not list(tmp_path.rglob("*messages*"))


def test_nothing_is_timed_while_others_have_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    monkeypatch.setattr(messages, "free_cores", lambda: 0.0)
    assert messages_here("cpu", 2) == assumed("cpu", 2, "other processes had the cores")


def test_free_cores_are_counted_from_what_the_system_says(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 20 30 4000 50 0 0\n")
    assert free_cores(stat, seconds=0.01) == 0
    assert free_cores(tmp_path / "none") == float("inf")


def test_what_was_timed_is_kept_and_gives_its_seconds_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    monkeypatch.setattr(messages, "free_cores", lambda: float("inf"))
    timed = {
        (name, size): seconds
        for name in ("all_reduce", "all_gather", "reduce_scatter")
        for size, seconds in ((SMALL_BYTES, 4e-4), (LARGE_BYTES, 0.03))
    }
    monkeypatch.setattr(messages, "time_messages", lambda kind, ranks: timed)
    found = messages_here("cpu", 4)
    monkeypatch.setattr(messages, "time_messages", lambda kind, ranks: None)
    assert messages_here("cpu", 4) == found
    assert messages_here("cpu", 2).source == "assumed: its ranks did not meet"
    for name, priced in (("all_reduce", reduce_seconds), ("all_gather", gather_seconds)):
        links = links_between(found.links[name], 4)
        assert priced(links, LARGE_BYTES, 4) == pytest.approx(0.03, rel=1e-3)
        assert priced(links, SMALL_BYTES, 4) == pytest.approx(4e-4, rel=0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_of_this_machine_are_timed() -> None:
    timed = messages.time_messages("cpu", 2)
    assert timed is not None and len(timed) == 6
    for name in ("all_reduce", "all_gather", "reduce_scatter"):
        # sixteen mebibytes travel in less than a minute, and longer than a few kibibytes
        assert 0 < timed[name, SMALL_BYTES] < timed[name, LARGE_BYTES] < 60
    assert Messages(ranks=2, links=messages._links(timed, 2, "here")).source.startswith("here, all_reduce: 16 MiB in ")
