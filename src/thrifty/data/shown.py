"""A sample of a store for people to look at: an image, a sound, a text, or the cells of a row; small enough for a page.

Shapes: H, W pixels, C channels, S samples of a sound.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from thrifty.data.documents.tokenizer import load_tokenizer
from thrifty.data.inventory import opened
from thrifty.data.samples import take
from thrifty.data.sounds.sound import Limits, read_sound, resample
from thrifty.data.store import Store
from thrifty.data.texts.word_pieces import PAD_ID, load_pieces
from thrifty.errors import DataError, StorageError
from thrifty.spec import RawData
from thrifty.spec.table import Column, Table

LARGEST_SIDE = 112
# of all sounds of a page together, as base64
SOUND_BYTES = 100_000
SOUND_RATE, SOUND_SECONDS = 8_000, 3.0
# a file that is larger is not read for a few seconds of it
LARGEST_FILE = 64 << 20
MOST_CHARACTERS = 600
MOST_CELLS = 24


class Shower:
    """Shows samples of one split, sounds while there is room for them.

    Args:
        store: prepared data.
        split: of it.
        source: the folder that the raw files lie in.
    """

    def __init__(self, store: Store, split: str, source: Path) -> None:
        self._store, self._split, self._source = store, split, source
        self._left = SOUND_BYTES
        self._names: list[str] | None = None

    def show(self, sample: int) -> dict[str, Any]:
        """Return what there is to see of a sample: fields of `thrifty.spec.mistakes.Mistake` by name."""
        data = self._store.dataset
        if data.kind == "image":
            pixels = np.asarray(self._store.array(self._split, "x")[sample])
            return {"name": self._name(sample), "png": picture(pixels)}
        if data.kind == "audio":
            return {"name": self._name(sample), "wav": self._sound(sample)}
        if data.kind == "table":
            assert data.table is not None
            return {"row": cells_of(data.table, np.asarray(self._store.array(self._split, "x")[sample]))}
        tokens = take(self._store, self._split, np.array([sample]))["x"][0].tolist()
        if data.kind == "language":
            return {"text": str(_tokenizer(self._store.folder, data.end).decode(tokens))[:MOST_CHARACTERS]}
        return {"text": words_of(self._store, tokens, marks=data.task == "mask")[:MOST_CHARACTERS]}

    def _name(self, sample: int) -> str:
        if self._names is None:
            try:
                self._names = self._store.names(self._split)
            except (OSError, ValueError, KeyError):
                self._names = []
        return self._names[sample] if sample < len(self._names) else ""

    def _sound(self, sample: int) -> str:
        name = self._name(sample)
        path = self._source / name
        try:
            if not name or not path.is_file() or path.stat().st_size > LARGEST_FILE:
                return ""
            samples, rate = read_sound(path.read_bytes(), Limits(0.0, float("inf")))
        except (DataError, OSError):
            return ""
        encoded = sound(samples, rate)
        if len(encoded) > self._left:
            return ""
        self._left -= len(encoded)
        return encoded


def raw_folder(data: RawData, cache: Path) -> Path:
    """Return where a job's raw files lie, an archive's where it was unpacked; the path as given where that fails."""
    try:
        return opened(data, cache).path
    except (DataError, StorageError):
        return data.path


def picture(pixels_HWC: np.ndarray) -> str:
    """Return an image, uint8 [H, W, C] of one or three channels (RGB), as base64 of a PNG of 112 pixels a side at most.

    >>> picture(np.zeros((2, 2, 1), np.uint8))[:8]
    'iVBORw0K'
    """
    import cv2

    height, width = pixels_HWC.shape[:2]
    if (longest := max(height, width)) > LARGEST_SIDE:
        share = LARGEST_SIDE / longest
        size = (max(1, round(width * share)), max(1, round(height * share)))
        pixels_HWC = cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    if pixels_HWC.shape[2] == 3:
        pixels_HWC = np.ascontiguousarray(pixels_HWC[:, :, ::-1])
    written, png = cv2.imencode(".png", pixels_HWC, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert written
    return base64.b64encode(png.tobytes()).decode()


def sound(samples_S: np.ndarray, rate: int) -> str:
    """Return the first three seconds of a sound as base64 of a WAV of 8 bits and 8 kHz, as loud as that can be.

    >>> len(sound(np.sin(np.arange(8000) / 5).astype(np.float32), 8000))
    10728
    """
    import soundfile

    cut = resample(samples_S[: round(SOUND_SECONDS * rate)].astype(np.float32), rate, SOUND_RATE)
    loudest = float(np.abs(cut).max(initial=0.0))
    file = io.BytesIO()
    soundfile.write(file, cut * (0.9 / loudest) if loudest > 0 else cut, SOUND_RATE, "PCM_U8", format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def words_of(store: Store, tokens: Sequence[int], *, marks: bool = False) -> str:
    """Write tokens of a store of texts as text; marks, such as the one that hides a word, where they are asked for."""
    tokenizer = _pieces(store.folder)
    real = [token for token in tokens if token != PAD_ID]
    return str(tokenizer.decode(real, skip_special_tokens=not marks)).strip()


@cache
def _tokenizer(folder: Path, end: int) -> Any:
    return load_tokenizer(folder, end)


@cache
def _pieces(folder: Path) -> Any:
    return load_pieces(folder)


def cells_of(table: Table, row_F: np.ndarray) -> dict[str, str]:
    """Say what the cells of an encoded row were, the first 24: numbers as nearly as their places among the edges tell.

    >>> age = Column(name="age", kind="number", edges=(20.0, 30.0, 60.0))
    >>> cells_of(Table(columns=(age, Column(name="job", kind="category", values=("a", "b"))), target="y"),
    ...          np.array([0.75, 2.0]))
    {'age': '45', 'job': 'b'}
    """
    said: dict[str, str] = {}
    number, code, first = 0, table.numbers, 1
    for column in table.columns:
        sizes = column.code_sizes
        codes = [int(row_F[code + at]) for at in range(len(sizes))]
        own, start = [], first
        for each, size in zip(codes, sizes, strict=True):
            own.append(each - start + 1 if each else 0)
            start += size
        place = float(row_F[number]) if column.is_number else 0.0
        if len(said) < MOST_CELLS:
            said[column.name] = _cell(column, place, own)
        number += column.is_number
        code, first = code + len(sizes), start
    return said


def _cell(column: Column, place: float, codes: Sequence[int]) -> str:
    if not column.is_number:
        known = [*column.values, *([""] if column.missing else [])]
        return known[codes[0] - 1] if codes[0] else "?"
    if column.missing and codes[-1]:
        return ""
    if len(column.edges) < 2:
        return f"{column.edges[0]:,.6g}" if column.edges else "?"
    value = float(np.interp(place, np.linspace(0, 1, len(column.edges)), column.edges))
    if column.kind == "date":
        return str(np.datetime64(round(value), "s")).replace("T", " ")
    return f"{value:,.6g}"
