"""Made-up input for a model of which only its tensors are known."""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
import zlib
from collections.abc import Sequence
from typing import Any

TEXT = "the cat sat on the mat [MASK]"


def png() -> bytes:
    """A red image of 32 x 32 pixels."""
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + b"\xff\0\0" * 32 for _ in range(32)))
    parts = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in parts
    )


def wav() -> bytes:
    """Half a second of a tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(struct.pack("<8000h", *(round(9_000 * math.sin(at / 6)) for at in range(8_000))))
    return file.getvalue()


def texts() -> list[str | bytes]:
    """What a tensor of strings may want: a text, a file, nothing, the JSON of a row."""
    return [TEXT, png(), wav(), "", "{}"]


def base64_of(value: str | bytes) -> str:
    """A value as base64 text."""
    return base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()


def zeros(shape: Sequence[int]) -> Any:
    """Nested lists of zeros; a size that is not known is 1."""
    if not shape:
        return 0
    return [zeros(shape[1:]) for _ in range(max(1, shape[0]))]
