"""Benchmarks of data: figures come of what runs say, what failed leaves them out, raw sets are what they say."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from benchmarks.race import Finish, Race

from benchmarks import larger, prepare, raw_sets
from thrifty.data.look import look


def finish(name: str, seconds: float, count: float) -> Finish:
    said = ({"event": "ready", "at_s": 2.0}, {"event": "done", "at_s": 2.0 + seconds, "count": count})
    return Finish(name, said=said)


def test_speed_is_counted_from_ready_on_and_compared_round_by_round() -> None:
    found = Race(
        {
            "table_ours": [finish("table_ours", 2.0, 100.0), finish("table_ours", 4.0, 100.0)],
            "table_datasets": [finish("table_datasets", 4.0, 100.0), finish("table_datasets", 2.0, 100.0)],
        }
    )
    figures = prepare.figures(["table"], found)
    assert figures["prepare_table_rows_per_second_ours"] == [50.0, 25.0]
    assert figures["prepare_table_speedup"] == [2.0, 0.5]


def test_a_peer_that_failed_leaves_no_ratio() -> None:
    figures = prepare.figures(["audio"], Race({"audio_ours": [finish("audio_ours", 2.0, 1.0)]}))
    assert figures["prepare_audio_hours_of_audio_per_second_ours"] == [0.5]
    assert figures["prepare_audio_speedup"] == figures["prepare_audio_hours_of_audio_per_second_datasets"] == []


def test_images_in_shards_all_differ_and_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larger, "SIDE", 32)
    monkeypatch.setattr(larger, "SHARD", 20)
    written = larger.write_shards(tmp_path, 50)
    contents = []
    for shard in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(shard) as members:
            contents += [members.extractfile(each).read() for each in members if each.name.endswith(".bmp")]  # type: ignore[union-attr]
    assert len(set(contents)) == len(contents) == 50 and sum(map(len, contents)) == written
    assert look(tmp_path).kind == "image"


def test_a_missing_raw_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_SHARED", str(tmp_path))
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit, match="this benchmark needs"):
        raw_sets.census(True)
