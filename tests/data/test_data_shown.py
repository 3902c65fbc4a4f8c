"""Samples for people to look at: images and sounds that decode to what they were, rows that say what they said."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import pytest
import soundfile

from thrifty.data.shown import LARGEST_SIDE, cells_of, picture, sound
from thrifty.data.tables.coded import Cells
from thrifty.spec.table import Column, Table


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 9, 3), (400, 300, 3), (1, 900, 1)], ids=str)
def test_a_picture_decodes_to_its_pixels(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = cv2.imdecode(np.frombuffer(base64.b64decode(picture(pixels)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None and max(read.shape[:2]) <= LARGEST_SIDE
    if max(shape) <= LARGEST_SIDE:
        read = read.reshape(shape) if shape[2] == 1 else read[:, :, ::-1]
        assert (read == pixels).all()


def test_a_sound_decodes_to_its_wave() -> None:
    wave = (0.1 * np.sin(np.arange(5 * 16_000) / 20)).astype(np.float32)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound(wave, 16_000))))
    assert rate == 8_000 and len(samples) == 3 * 8_000
    assert np.abs(samples).max() == pytest.approx(0.9, abs=0.02), "as loud as it can be"
    assert np.corrcoef(samples[200:2_000], wave[::2][200:2_000])[0, 1] > 0.999
    assert len(base64.b64decode(sound(np.zeros(0, np.float32), 8_000))) < 100


def test_cells_come_back_from_their_numbers_and_codes() -> None:
    polars = pytest.importorskip("polars")
    from thrifty.data.tables.features import encode

    table = Table(
        columns=(
            Column(name="age", kind="number", edges=(10.0, 20.0, 40.0, 80.0), missing=True),
            Column(name="job", kind="category", values=("cook", "smith"), missing=True),
            Column(name="day", kind="date", edges=(0.0, 864_000.0), format="%Y-%m-%d"),
            Column(name="paid", kind="boolean", values=("no", "yes")),
        ),
        target="y",
    )  # fmt: skip
    texts = {
        "age": ["30", None, "10"], "job": ["smith", None, "king"], "day": ["1970-01-06"] * 3,
        "paid": ["yes", "no", "no"],
    }  # fmt: skip
    x_NF = encode({name: Cells(polars.Series(name, values)) for name, values in texts.items()}, table)
    first, second, third = (cells_of(table, row) for row in x_NF)
    assert first == {"age": "30", "job": "smith", "day": "1970-01-06 00:00:00", "paid": "yes"}
    assert second["age"] == "" and second["job"] == "" and second["paid"] == "no"
    assert third["age"] == "10" and third["job"] == "?"
