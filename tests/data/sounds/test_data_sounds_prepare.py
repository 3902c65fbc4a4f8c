"""Folders of recordings into a store: how labels are told, what is kept, what is put aside, and what users are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sounds import encoded, tone, write_books, write_folders, write_named, write_strings, write_voices

from thrifty.data import Store, prepare
from thrifty.data.sounds.sound import Limits, read_sound
from thrifty.data.sounds.spectrum import log_mel
from thrifty.errors import DataError, JobError
from thrifty.spec import SPLITS, AudioData, parse_job
from thrifty.spec.events import Event

NAMES = "{label}_{speaker}_{take}"


def run(folder: Path, *, seed: int = 0, **values: Any) -> Store:
    data = AudioData.model_validate({"kind": "audio", "path": folder, **values})
    seen: list[Event] = []
    return prepare(data, seed=seed, cache=folder.parent / "cache", emit=seen.append)


def rejects(store: Store) -> dict[str, str]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return {line["path"]: line["reason"] for line in map(json.loads, lines)}


def test_the_store_holds_the_frames_of_each_recording(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    store = run(folder)
    dataset = store.dataset
    assert (dataset.kind, dataset.task, dataset.labels) == ("audio", "classify", ("high", "low"))
    assert dataset.counts == {"train": 16, "validation": 2, "test": 2}
    assert dataset.sound is not None
    assert (dataset.sound.rate, dataset.sound.bands) == (8000, 40)
    assert dataset.shape == (32, 40)
    for split in SPLITS:
        starts, frames, y = (store.array(split, name) for name in ("starts", "frames", "y"))
        assert len(starts) == dataset.counts[split] + 1 == len(y) + 1
        assert sum(dataset.lengths[split]) == dataset.counts[split]
        assert dataset.tokens[split] == len(frames) == starts[-1]
        for at, name in enumerate(store.names(split)):
            samples, _ = read_sound((folder / name).read_bytes(), Limits(0, 9))
            wanted = log_mel(samples, dataset.sound)
            assert np.abs(frames[starts[at] : starts[at + 1]] - wanted).max() < 0.01
            assert dataset.labels[int(y[at])] == name.split("/")[0]
    train = store.array("train", "frames").astype(np.float64)
    assert np.allclose(dataset.mean, train.mean(0), atol=1e-6)
    assert np.allclose(dataset.std, train.std(0), atol=1e-6)


@pytest.mark.slow
def test_preparing_again_reads_the_store_and_another_seed_makes_another(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    assert run(folder).folder == run(folder).folder != run(folder, seed=1).folder
    assert run(folder, bands=20).dataset.shape == (32, 20)
    assert run(folder, features="mfcc").dataset.shape == (32, 13)


def test_names_tell_labels_and_rules_hold_recordings_out(tmp_path: Path) -> None:
    folder = write_named(tmp_path / "tones")
    store = run(folder, names=NAMES, test={"take": "0-1"}, validation={"speaker": ["eve"]})
    where = {name: split for split in SPLITS for name in store.names(split)}
    assert len(where) == 36
    for name, split in where.items():
        _, speaker, take = name.removesuffix(".wav").split("_")
        assert split == ("test" if take in {"0", "1"} else "validation" if speaker == "eve" else "train")


@pytest.mark.slow
def test_a_group_stands_in_one_split(tmp_path: Path) -> None:
    store = run(write_named(tmp_path / "tones"), names=NAMES, split={"group": "speaker"})
    speakers = [{name.split("_")[1] for name in store.names(split)} for split in SPLITS]
    assert sorted(map(len, speakers)) == [1, 1, 1]
    assert set.union(*speakers) == {"ann", "bob", "eve"}


def test_a_table_tells_transcripts(tmp_path: Path) -> None:
    store = run(write_strings(tmp_path / "said"), transcript="transcript")
    dataset = store.dataset
    assert (dataset.task, dataset.labels, dataset.vocabulary) == ("transcribe", ("high", "low", "mid"), 4)
    assert dataset.counts == {"train": 40, "validation": 8, "test": 8}
    said = {line.split(",")[0]: line.split(",")[1] for line in (tmp_path / "said/said.csv").read_text().splitlines()}
    y, ends = store.array("test", "y"), store.array("test", "y_starts")
    for at, name in enumerate(store.names("test")):
        tokens = y[ends[at] : ends[at + 1]]
        assert " ".join(dataset.labels[token - 1] for token in tokens) == said[name].lower()
    assert sum(dataset.label_counts.values()) == len(store.array("train", "y"))
    characters = run(tmp_path / "said", transcript="transcript", tokens="characters").dataset
    assert "".join(characters.labels) == " dghilmow"


def test_tables_named_after_splits_tell_transcripts(tmp_path: Path) -> None:
    folder = write_voices(tmp_path / "voices")
    # a clip of two tables stays where it is held out further, and one of none is none's
    train = (folder / "train.tsv").read_text().splitlines()
    held_out = (folder / "test.tsv").read_text().splitlines()[1]
    gone = train[1].replace(".flac", ".mp3").replace("_00000", "_99999")
    (folder / "train.tsv").write_text("\n".join([*train, held_out, gone]) + "\n")
    store = run(folder, transcript="sentence")
    assert store.dataset.counts == {"train": 40, "validation": 8, "test": 8}
    for split, table in (("train", "train"), ("validation", "dev"), ("test", "test")):
        named = {line.split("\t")[1] for line in (folder / f"{table}.tsv").read_text().splitlines()[1:]}
        assert {Path(name).name for name in store.names(split)} <= named
    twice = f"clips/{held_out.split(chr(9))[1]}"
    found = rejects(store)
    assert found["train.tsv:42"] == f"named twice: {twice}, in test.tsv too"
    assert found["train.tsv:43"].startswith("names no recording: 'common_voice_xx_9")
    for table in ("validated", "invalidated", "other", "clip_durations"):
        assert found[f"{table}.tsv"] == "not named after a split"
    assert sum(reason == "named by no usable row" for reason in found.values()) == 5
    assert any("left out: 'clip_durations.tsv'" in note for note in store.dataset.cleaning.notes)


@pytest.mark.slow
def test_text_files_beside_recordings_tell_transcripts(tmp_path: Path) -> None:
    folder = write_books(tmp_path / "books")
    text = folder / "dev-clean/109/9/109-9.trans.txt"
    text.write_text(text.read_text() + "109-9-7777 LOW\n109-9-0000 LOW\n109-9-0001\n")
    store = run(folder, transcript="transcript")
    assert store.dataset.counts == {"train": 20, "validation": 6, "test": 6}
    assert store.dataset.labels == ("high", "low", "mid")
    for split, part in (("train", "train-clean-100"), ("validation", "dev-clean"), ("test", "test-clean")):
        assert {name.split("/")[0] for name in store.names(split)} == {part}
    assert rejects(store) == {
        "README.TXT": "not a sound file",
        "dev-clean/109/9/109-9.trans.txt:4": "names no recording: '109-9-7777'",
        "dev-clean/109/9/109-9.trans.txt:5": "named twice: dev-clean/109/9/109-9-0000.flac",
        "dev-clean/109/9/109-9.trans.txt:6": "empty label: of '109-9-0001'",
    }


@pytest.mark.slow
def test_text_files_without_splits_are_dealt_by_speaker_where_asked(tmp_path: Path) -> None:
    folder = write_books(tmp_path / "books", {"a": 8, "bbb": 8, "ccccc": 8})
    asked = {"transcript": "transcript", "split": {"group": "speaker"}}
    with pytest.raises(DataError, match="tells transcripts alone"):
        run(folder, **asked)
    store = run(folder, **asked, names="{speaker}-{chapter}-{index}")
    speakers = [{Path(name).name.split("-")[0] for name in store.names(split)} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 6


@pytest.mark.slow
def test_copies_leave_and_the_held_out_one_stays(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    raw = (folder / "low/003.wav").read_bytes()
    (folder / "low/again.wav").write_bytes(raw)
    (folder / "low/0000.wav").write_bytes(encoded(tone("low", 50)))
    (folder / "high/0000.wav").write_bytes(encoded(tone("low", 50)))
    store = run(folder)
    found = rejects(store)
    assert store.dataset.cleaning.kept == 20
    assert found["low/0000.wav"] == found["high/0000.wav"] == "same recording under labels high and low"
    assert sum(reason.startswith("duplicate") for reason in found.values()) == 1


@pytest.mark.slow
def test_recordings_of_other_rates_are_brought_to_the_commonest(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    (folder / "low/other.flac").write_bytes(encoded(tone("low", 77, rate=44_100), 44_100, "FLAC"))
    dataset = run(folder).dataset
    assert dataset.sound is not None
    assert dataset.sound.rate == 8000
    assert "1 recordings of other rates were brought to 8,000 samples a second" in dataset.cleaning.notes


PUT_ASIDE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "empty"),
    "text.wav": (lambda: b"no sound at all", "not a sound: "),
    "cut.wav": (lambda: encoded(tone("low", 1))[:-999], "truncated: "),
    "zero.wav": (lambda: encoded(np.zeros(0)), "no samples: "),
    "short.wav": (lambda: encoded(tone("low", 1, 0.01)), "too short: "),
    "long.flac": (lambda: encoded(np.sin(np.arange(8000 * 40)), form="FLAC"), "too long: 40.0 s is over 30 s"),
    "silent.wav": (lambda: encoded(np.zeros(4000)), "silent: "),
    "slow.wav": (lambda: encoded(tone("low", 1, rate=2000), 2000), "odd rate: "),
    "notes.txt": (lambda: b"read me", "not a sound file"),
    "large.wav": (lambda: encoded(tone("low", 1, 20.0)), "too large: "),
}


def test_what_cannot_be_learned_from_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    for name, (make, _) in PUT_ASIDE.items():
        (folder / "low" / name).write_bytes(make())
    (folder / "loose.wav").write_bytes(encoded(tone("low", 1)))
    (folder / "low/outside.wav").symlink_to("/etc/hostname")
    store = run(folder, max_file_bytes="280kB")
    found = rejects(store)
    for name, (_, says) in PUT_ASIDE.items():
        assert found.pop(f"low/{name}").startswith(says), name
    assert found == {"loose.wav": "not in a class folder", "low/outside.wav": "link that leaves the folder"}
    assert store.dataset.cleaning.kept == 20


@pytest.mark.slow
def test_transcripts_that_cannot_be_said_are_put_aside(tmp_path: Path) -> None:
    folder = write_strings(tmp_path / "said")
    table = (folder / "said.csv").read_text()
    wanted = {
        "odd.flac": ("lower", "word not in the training split: 'lower'"),
        "fast.flac": ("low " * 30, "too short for its transcript: 30 words in 0.20 s"),
    }
    for number, (name, (said, _)) in enumerate(wanted.items()):
        (folder / name).write_bytes(encoded(tone("low", 900 + number), form="FLAC"))
        table += f"{name},{said},test\n"
    table += "gone.flac,low,test\ntest0.flac,,test\ntest1.flac,low,tomorrow\n"
    (folder / "said.csv").write_text(table)
    (folder / "unnamed.flac").write_bytes(encoded(tone("low", 950), form="FLAC"))
    found = rejects(run(folder, transcript="transcript"))
    for name, (_, says) in wanted.items():
        assert found[name] == says
    assert found["said.csv:60"].startswith("names no recording: 'gone.flac'")
    assert found["said.csv:61"].startswith("empty label")
    assert found["said.csv:62"] == "names no split: 'tomorrow'"
    assert found["unnamed.flac"] == "named by no usable row"


REFUSED: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no folder": (lambda at: at / "none", {}, "there is no data folder"),
    "no sound": (lambda at: _with(at, "a.txt"), {}, "holds no recordings (1 other files in it)"),
    "loose files": (lambda at: _with(at, "a.wav"), {}, "has no class folders (1 recordings lie directly in it"),
    "one class": (lambda at: write_folders(at / "x", labels=["low"]), {}, "has one class only, 'low'"),
    "few of a class": (lambda at: write_folders(at / "x", 2), {}, "has 2 usable recordings, and needs 3"),
    "other names": (lambda at: write_named(at / "x"), {"names": "{label}-{n}"}, "is named like '{label}-{n}'"),
    "no table": (lambda at: write_named(at / "x"), {"transcript": "said"}, "no table in"),
    "no column": (lambda at: write_strings(at / "x"), {"transcript": "trancript"}, "Did you mean 'transcript'?"),
    "no group": (
        lambda at: write_named(at / "x"), {"names": NAMES, "split": {"group": "speakers"}}, "Did you mean 'speaker'?",
    ),
    "no test left": (
        lambda at: write_named(at / "x"), {"names": NAMES, "validation": {"speaker": ["ann", "bob", "eve"]}},
        "there is nothing to tell apart",
    ),
    "many coefficients": (
        lambda at: write_folders(at / "x"), {"features": "mfcc", "coefficients": 60}, "60 coefficients are asked for",
    ),
    "none readable": (lambda at: _unreadable(at / "x"), {}, "can be read (2 not a sound"),
}  # fmt: skip


def _with(at: Path, name: str) -> Path:
    (at / "x").mkdir()
    (at / "x" / name).write_bytes(b"some")
    return at / "x"


def _unreadable(folder: Path) -> Path:
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        (folder / label / "1.wav").write_bytes(b"noise")
    return folder


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_the_value(name: str, tmp_path: Path) -> None:
    make, values, says = REFUSED[name]
    with pytest.raises(DataError) as caught:
        run(make(tmp_path), **values)
    assert says in str(caught.value)


SECTIONS = {
    "no braces": ({"names": "label"}, "a pattern names fields in braces"),
    "nothing between": ({"names": "{label}{speaker}"}, "two fields need something between them"),
    "twice": ({"names": "{label}_{label}"}, "field 'label' comes twice"),
    "open brace": ({"names": "{label}_{speaker"}, "a brace is left open"),
    "no name": ({"names": "{label}_{a b}"}, "a field is named by letters"),
    "no label": ({"names": "{speaker}_{take}"}, "names has no field {label}"),
    "no such field": ({"names": NAMES, "test": {"index": 1}}, "'index' is none: label, speaker, take"),
    "rule without names": ({"test": {"take": "0-4"}}, "names is left out"),
    "two answers": ({"label": "a", "transcript": "b"}, "label and transcript are two things"),
    "tokens of labels": ({"tokens": "words"}, "tokens are of transcripts"),
    "lengths": ({"min_seconds": 5, "max_seconds": 2}, "min_seconds 5.0 is not under max_seconds 2.0"),
    "rate": ({"rate": 100}, "greater than or equal to 4000"),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_cannot_be_meant_is_refused(name: str) -> None:
    values, says = SECTIONS[name]
    with pytest.raises(JobError) as caught:
        parse_job({"name": "a", "model": "speech-tiny", "data": {"kind": "audio", "path": "x", **values}})
    assert says in str(caught.value)


def test_the_task_is_what_the_data_is_for() -> None:
    audio = {"kind": "audio", "path": "x"}
    assert parse_job({"name": "a", "model": "speech-tiny", "data": audio}).task == "classify"
    said = {**audio, "transcript": "text"}
    job = parse_job({"name": "a", "model": "speech-tiny", "data": said, "target": {"wer": 0.1}})
    assert job.task == "transcribe"
    with pytest.raises(JobError, match="name its column of the table"):
        parse_job({"name": "a", "model": "speech-tiny", "data": audio, "task": "transcribe"})
    with pytest.raises(JobError, match="task 'classify' has no target 'wer'"):
        parse_job({"name": "a", "model": "speech-tiny", "data": audio, "target": {"wer": 0.1}})
