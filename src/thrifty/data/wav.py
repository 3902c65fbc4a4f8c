"""WAV files without a library: whether one is whole, and its samples where they are plain numbers of 16 bits.

Most recordings are such files, and short ones take a library that reads any sound longer to open than to read. The
form: RIFF, Microsoft and IBM 1991. Shapes: S samples, C channels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thrifty.errors import DataError

# what a WAV written to a pipe says of its length: nothing
_UNKNOWN_SIZE = 0xFFFFFFFF
_HEADER = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_PLAIN, _BITS = 1, 16


@dataclass(frozen=True, slots=True)
class Wav:
    """A WAV of plain 16-bit numbers.

    Attributes:
        samples: int16 [S, C], as they lie in the file.
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


def plain_wav(raw: bytes) -> Wav | None:
    """Return the samples of a WAV of plain 16-bit numbers; None of anything else, WAVs of other numbers among it.

    Raises:
        DataError: a WAV, of whatever numbers, ends before its sound does.

    >>> head = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    >>> plain_wav(head + b"data" + struct.pack("<I3h", 6, 1, -2, 3)).samples.tolist()
    [[1], [-2], [3]]
    """
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        return None
    form: tuple[int, ...] = ()
    for name, start, size in _chunks(raw):
        if name == b"fmt ":
            form = _FORMAT.unpack_from(raw, start) if size >= _FORMAT.size <= len(raw) - start else ()
        elif name == b"data":
            if size == _UNKNOWN_SIZE:
                return None
            if start + size > len(raw):
                raise DataError(f"truncated: {len(raw) - start:,} bytes of sound where its header says {size:,}")
            return _plain(form, memoryview(raw)[start : start + size])
    raise DataError("truncated: the WAV has no sound in it")


def _chunks(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of each part."""
    place = 12
    while place + _HEADER.size <= len(raw):
        name, size = _HEADER.unpack_from(raw, place)
        place += _HEADER.size
        yield name, place, size
        place += size + size % 2


def _plain(form: tuple[int, ...], sound: memoryview) -> Wav | None:
    if not form:
        return None
    kind, channels, rate, _, frame_bytes, bits = form
    if (kind, bits) != (_PLAIN, _BITS) or channels == 0 or frame_bytes != 2 * channels:
        return None
    count = len(sound) // frame_bytes
    return Wav(np.frombuffer(sound, "<i2", count * channels).reshape(count, channels), rate)
