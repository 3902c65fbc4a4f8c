"""Raw waves as features: scaled as wav2vec 2.0 wants them, cut without loss, stored, and spelled by a vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_sounds import write_folders, write_strings

from thrifty.data import Store, prepare
from thrifty.data.samples import take
from thrifty.data.sounds.frames import PADDED
from thrifty.data.sounds.sound import Limits, read_sound, resample
from thrifty.data.sounds.vocabulary import read_symbols
from thrifty.data.sounds.waves import wave_frames
from thrifty.errors import DataError, JobError
from thrifty.spec import SPLITS, AudioData, Sound, parse_job

WAVE = Sound(rate=16_000, features="wave")
LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{each: 5 + at for at, each in enumerate("DGHILMOW")}}


def run(folder: Path, **values: Any) -> Store:
    data = AudioData.model_validate({"kind": "audio", "path": folder, "features": "wave", **values})
    return prepare(data, seed=0, cache=folder.parent / "cache", emit=lambda _: None)


@given(st.integers(1, 2000), st.floats(1e-4, 30), st.floats(-5, 5))
def test_a_wave_loses_nothing_but_its_mean_and_scale(samples: int, scale: float, mean: float) -> None:
    wave_S = (scale * np.random.default_rng(samples).standard_normal(samples) + mean).astype(np.float32)
    frames_TM = wave_frames(wave_S, WAVE)
    assert frames_TM.shape == (-(-samples // 320), 320)
    found_S = frames_TM.ravel()[:samples]
    assert (frames_TM.ravel()[samples:] == PADDED).all()
    assert not (found_S == PADDED).any()
    if samples > 1:
        exact_S = wave_S.astype(np.float64)
        assert np.allclose(found_S, (exact_S - exact_S.mean()) / np.sqrt(exact_S.var() + 1e-7), atol=1e-5)


def test_a_click_is_no_padding() -> None:
    wave_S = np.zeros(48_000, np.float32)
    wave_S[[7, 9]] = 1.0, -30.0
    found_S = wave_frames(wave_S, WAVE).ravel()
    assert (found_S.min(), (found_S == PADDED).sum()) == (-90.0, 0)


@pytest.mark.slow
def test_a_wave_is_scaled_as_transformers_does() -> None:
    transformers = pytest.importorskip("transformers")
    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    wave_S = (np.random.default_rng(0).standard_normal(1600) / 10 + 0.05).astype(np.float32)
    wanted = extract(wave_S, sampling_rate=16_000, return_tensors="np")["input_values"][0]
    assert np.allclose(wave_frames(wave_S, WAVE).ravel(), wanted, atol=1e-5)


def test_the_store_holds_the_samples_of_each_recording(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "tones")
    store = run(folder)
    dataset = store.dataset
    assert (dataset.sound, dataset.mean, dataset.std) == (WAVE, (), ())
    # 0.28 s are 14 frames of 20 ms, filled up to a multiple of eight
    assert dataset.shape == (16, 320)
    for split in SPLITS:
        starts, frames = (store.array(split, name) for name in ("starts", "frames"))
        for at, name in enumerate(store.names(split)):
            samples, rate = read_sound((folder / name).read_bytes(), Limits(0, 9))
            wanted = wave_frames(resample(samples, rate, 16_000), WAVE)
            assert np.abs(frames[starts[at] : starts[at + 1]] - wanted).max() < 2e-3
    x_bTM = take(store, "train", np.arange(4))["x"]
    assert (x_bTM.dtype, x_bTM.shape[2]) == (np.float32, 320)


def test_transcripts_take_the_tokens_of_a_checkpoint(tmp_path: Path) -> None:
    folder = write_strings(tmp_path / "said")
    (tmp_path / "vocab.json").write_text(json.dumps(LETTERS))
    store = run(folder, transcript="transcript", tokenizer=tmp_path / "vocab.json")
    dataset = store.dataset
    assert dataset.labels == ("<s>", "</s>", "<unk>", " ", *"dghilmow")
    assert (dataset.vocabulary, dataset.label_counts["<s>"]) == (len(LETTERS), 0)
    first = store.array("train", "y")[: store.array("train", "y_starts")[1]]
    spelled = "".join(dataset.labels[token - 1] for token in first)
    assert set(spelled.split()) <= {"low", "high", "mid"}
    assert any(each.startswith("tokens are those of vocab.json, 12 beside") for each in dataset.cleaning.notes)


def test_the_blank_may_be_any_token() -> None:
    raw = json.dumps({"b": 1, "a": 0, "[PAD]": 2, "|": 3}).encode()
    assert read_symbols(raw, "vocab.json", []) == ("a", "b", " ")


FAULTS = {
    "no JSON": (b"a b c", "is no JSON"),
    "a gap": (b'{"<pad>": 0, "a": 2}', "does not number its tokens from 0 on"),
    "a list": (b'["<pad>"]', "does not number its tokens"),
    "no blank": (b'{"a": 0, "b": 1}', r"has 2 tokens, and no blank\. A blank, <pad> or \[PAD\], and"),
    "a blank alone": (b'{"<pad>": 0}', "has 1 tokens, and no use"),
    "both cases": (b'{"[PAD]": 0, "a": 1, "A": 2}', "has 'a' twice, in both cases"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_vocabulary_is_told(fault: str) -> None:
    raw, says = FAULTS[fault]
    with pytest.raises(DataError, match=says):
        read_symbols(raw, "vocab.json", [])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"bands": 40}, "bands are of log_mel and mfcc, and features is wave"),
        ({"tokenizer": "vocab.json"}, "tokenizer is of transcripts, and transcript is left out"),
        ({"tokenizer": "v.json", "transcript": "said", "tokens": "words"}, "tokens says what to find"),
    ],
    ids=["bands", "tokenizer", "tokens"],
)
def test_what_cannot_be_meant_of_a_wave(values: dict[str, Any], says: str) -> None:
    audio = {"kind": "audio", "path": "x", "features": "wave", **values}
    with pytest.raises(JobError, match=says):
        parse_job({"name": "a", "model": "wav2vec2-tiny", "data": audio})
