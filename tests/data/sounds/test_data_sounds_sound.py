"""Recordings decoded: forms, rates, and every way in which a file can be no good."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.sounds.sound import Limits, read_sound, resample
from thrifty.errors import DataError

LIMITS = Limits(0.05, 2.0)
TONE = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32) / 2


def written(samples: np.ndarray, rate: int = 8000, form: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "subtype", "near"),
    [
        ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "FLOAT", 0), ("WAV", "ULAW", 0.02),
        ("FLAC", "PCM_16", 1e-4), ("AIFF", "PCM_16", 1e-4), ("OGG", "VORBIS", 0.1), ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)  # fmt: skip
def test_a_tone_comes_back_whatever_it_was_stored_as(form: str, subtype: str, near: float) -> None:
    samples, rate = read_sound(written(TONE, 8000, form, subtype), LIMITS)
    assert rate == 8000
    assert samples.dtype == np.float32
    # MP3 pads its ends
    inner = slice(2000, 6000)
    assert np.abs(samples[: len(TONE)][inner] - TONE[inner]).max() <= near + 1e-9


def test_channels_are_averaged() -> None:
    both = np.stack([TONE, np.zeros_like(TONE)], axis=1)
    assert np.allclose(read_sound(written(both, subtype="FLOAT"), LIMITS)[0], TONE / 2)


def _bad_wav(change: str) -> bytes:
    whole = written(TONE)
    if change == "cut":
        return whole[:-5000]
    if change == "no data":
        return whole[:36]
    assert change == "rate"
    return whole[:24] + struct.pack("<I", 100) + whole[28:]


def _with(value: float) -> bytes:
    samples = TONE.copy()
    samples[7] = value
    return written(samples, subtype="FLOAT")


BROKEN = {
    "empty file": (lambda: b"", "empty"),
    "text": (lambda: b"these are words " * 20, "not a sound: format not recognised"),
    "image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "not a sound: format not recognised"),
    "zero length": (lambda: written(TONE[:0]), "no samples: it has a header and nothing else"),
    "too short": (lambda: written(TONE[:80]), "too short: 0.010 s is under 0.05 s"),
    "too long": (lambda: written(np.tile(TONE, 3)), "too long: 3.0 s is over 2 s"),
    "long and small": (lambda: written(np.zeros(10**6), form="FLAC"), "too long: 125.0 s is over 2 s"),
    "cut WAV": (lambda: _bad_wav("cut"), "truncated: 11,000 bytes of sound where its header says 16,000"),
    "WAV without sound": (lambda: _bad_wav("no data"), "truncated: the WAV has no sound in it"),
    "odd rate": (lambda: _bad_wav("rate"), "odd rate: 100 samples a second, 4,000 to 384,000 are read"),
    "silent": (lambda: written(np.zeros(8000)), "silent: every sample is the same"),
    "constant": (lambda: written(np.full(8000, 0.25)), "silent: every sample is the same"),
    "NaN": (lambda: _with(np.nan), "not numbers: it holds NaN or infinity"),
    "infinity": (lambda: _with(np.inf), "not numbers: it holds NaN or infinity"),
    "another scale": (lambda: _with(20_000.0), "out of scale: samples up to 2e+04 where full scale is 1"),
    "many channels": (lambda: written(np.tile(TONE[:, None], 20)), "too many channels: 20, and 16 are read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_by_what_is_wrong(name: str) -> None:
    make, says = BROKEN[name]
    with pytest.raises(DataError) as caught:
        read_sound(make(), LIMITS)
    assert caught.value.what.startswith(says)


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3", "WAV"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_bytes_cut_or_changed_are_read_or_refused(form: str, data: st.DataObject) -> None:
    whole = bytearray(written(TONE[:2000], 8000, form))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    raw = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        samples, rate = read_sound(raw, LIMITS)
    except DataError:
        return
    assert np.isfinite(samples).all()
    assert LIMITS.shortest <= len(samples) / rate <= LIMITS.longest


def test_a_wav_from_a_pipe_says_no_length_and_is_read() -> None:
    whole = written(TONE)
    at = whole.index(b"data") + 4
    samples, _ = read_sound(whole[:at] + struct.pack("<I", 0xFFFFFFFF) + whole[at + 4 :], LIMITS)
    assert len(samples) == len(TONE)


def test_resampling_keeps_a_tone_and_folds_nothing() -> None:
    seconds = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * hertz * seconds).astype(np.float32) for hertz in (440, 6000))
    kept = resample(low, 16000, 8000)
    assert np.abs(kept[1000:7000] - np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)[1000:7000]).max() < 1e-3
    assert np.abs(resample(high, 16000, 8000)[1000:7000]).max() < 1e-3
    assert resample(low, 16000, 16000) is low
