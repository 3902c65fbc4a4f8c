"""Recordings recognised at first sight, with what was chosen and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sounds import encoded, tone, write_books, write_folders, write_named, write_strings, write_voices

from thrifty.data import look
from thrifty.errors import DataError


def test_class_folders_are_recognised(tmp_path: Path) -> None:
    found = look(write_folders(tmp_path / "tones"))
    assert found.kind == "audio"
    assert found.says == (
        "tones/: 20 recordings, 2 labels (high 50 %, low 50 %), 0.1 to 0.3 s, 0.2 s in the middle, "
        "8,000 samples a second"
    )
    assert found.job == {
        "name": "tones", "data": {"kind": "audio", "path": str(tmp_path / "tones")}, "model": "speech-tiny",
    }  # fmt: skip


def test_names_are_guessed_and_the_guess_is_said(tmp_path: Path) -> None:
    found = look(write_named(tmp_path / "tones"))
    assert found.job["data"]["names"] == "{label}_{group}_{index}"
    assert found.why["data.names"] == (
        "names such as 'high_ann_0', the label their first part that many share: label 2 values, group 3 values, "
        "index 6 values"
    )


def test_a_split_in_the_names_is_no_label(tmp_path: Path) -> None:
    folder = tmp_path / "tones"
    folder.mkdir()
    for split in ("train", "test"):
        for label in ("high", "low"):
            for take in range(6):
                samples = tone(label, take + 10 * len(split))
                (folder / f"{split}-{label}-{take}.wav").write_bytes(encoded(samples))
    assert look(folder).job["data"]["names"] == "{split}-{label}-{index}"


def test_transcripts_of_a_table_are_learned(tmp_path: Path) -> None:
    found = look(write_strings(tmp_path / "said"))
    assert found.job["data"]["transcript"] == "transcript"
    assert found.job["model"] == "speech-mini"
    assert "56 recordings" in found.says
    assert "3 different, train 40, validation 8, test 8, as 'said.csv' says" in found.says


def test_a_table_of_labels_is_read(tmp_path: Path) -> None:
    folder = write_named(tmp_path / "tones")
    rows = [f"{path.name}\t{path.name.split('_')[1]}" for path in sorted(folder.iterdir())]
    (folder / "who.tsv").write_text("file\tlabel\n" + "\n".join(rows) + "\n")
    found = look(folder)
    assert "3 labels (ann 33 %, bob 33 %, eve 33 %), as 'who.tsv' says" in found.says
    assert "names" not in found.job["data"]


def test_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tones"
    folder.mkdir()
    for number in range(8):
        (folder / f"take{number}.wav").write_bytes(encoded(tone("low", number)))
    with pytest.raises(DataError, match="8 recordings and nothing says what they are"):
        look(folder)


def test_tables_named_after_splits_are_read_together(tmp_path: Path) -> None:
    found = look(write_voices(tmp_path / "voices"))
    assert found.job["data"]["transcript"] == "sentence"
    assert "56 recordings" in found.says
    assert "train 40, validation 8, test 8, as 'dev.tsv', 'test.tsv' and 'train.tsv' say" in found.says
    assert found.why["data.transcript"].startswith(
        "'dev.tsv', 'test.tsv' and 'train.tsv' name the recordings: recording 'path', label 'sentence', split by their "
        "own names; left out: 'clip_durations.tsv', 'invalidated.tsv', 'other.tsv' and 'validated.tsv'; what is said"
    )


def test_text_files_of_transcripts_are_read(tmp_path: Path) -> None:
    found = look(write_books(tmp_path / "books"))
    assert found.job["data"]["transcript"] == "transcript"
    assert "32 recordings" in found.says
    assert (
        "3 different, train 20, validation 6, test 6, as 'dev-clean/109/9/109-9.trans.txt' and 5 more say" in found.says
    )
    assert found.why["data.transcript"].startswith(
        "6 files such as 'dev-clean/109/9/109-9.trans.txt' say what is said, split by their folders; what is said"
    )
