"""WAV files read without a library are what the library reads."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.wav import plain_wav


def written(samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


@settings(max_examples=25, deadline=None)
@given(
    samples=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=40),
    channels=st.integers(1, 3),
    rate=st.sampled_from([4000, 8000, 44_100, 384_000]),
)
def test_samples_are_the_librarys(samples: list[int], channels: int, rate: int) -> None:
    raw = written(np.tile(np.array(samples, np.int16)[:, None], channels), rate)
    wanted, _ = soundfile.read(io.BytesIO(raw), dtype="float32", always_2d=True)
    found = plain_wav(raw)
    assert found is not None
    assert found.rate == rate
    assert np.array_equal(found.samples / np.float32(2**15), wanted)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "ULAW", "PCM_U8"])
def test_other_numbers_are_left_to_the_library(subtype: str) -> None:
    assert plain_wav(written(np.zeros(10), subtype=subtype)) is None


def test_other_files_are_left_to_the_library() -> None:
    assert plain_wav(written(np.zeros(10), form="FLAC")) is None
    assert plain_wav(b"RIFF") is None


def test_a_part_that_says_something_else_is_passed_over() -> None:
    raw = written(np.arange(5, dtype=np.int16))
    said = struct.pack("<4sI3sx", b"LIST", 3, b"abc")
    found = plain_wav(raw[:12] + said + raw[12:])
    assert found is not None
    assert found.samples[:, 0].tolist() == [0, 1, 2, 3, 4]
