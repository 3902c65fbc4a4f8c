"""Tensors as bytes, as the binary extension and gRPC's raw contents have them: little-endian, row-major, unpadded."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thrifty.errors import RequestError

Values = NDArray[Any] | list[Any]

DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}

_LENGTH = struct.Struct("<I")


def unpack(name: str, datatype: str, shape: tuple[int, ...], raw: memoryview) -> Values:
    """Read a tensor of this type and shape: an array that shares the bytes, or a list of bytes for BYTES.

    Raises:
        RequestError: there are more or fewer bytes than the shape says.
    """
    if datatype == "BYTES":
        return _unpack_bytes(name, math.prod(shape), raw)
    dtype = np.dtype(DTYPES[datatype])
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise RequestError(f"unexpected total byte size {len(raw)} for input '{name}', expecting {expected}")
    return np.frombuffer(raw, dtype).reshape(shape)


def pack(values: Values) -> bytes:
    """Write a tensor: an array, or texts each after its length."""
    if isinstance(values, list):
        return b"".join(_LENGTH.pack(len(each)) + each for each in map(encoded, values))
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def encoded(text: str | bytes) -> bytes:
    """The bytes of a text; half of a surrogate pair, which has none, becomes a question mark."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def strings(name: str, values: Iterable[Any]) -> list[str]:
    """Read texts of bytes.

    Raises:
        RequestError: one of them is not UTF-8.
    """
    try:
        return [each.decode() if isinstance(each, bytes) else each for each in values]
    except UnicodeDecodeError as error:
        raise RequestError(f"input '{name}' of BYTES is not UTF-8: {error.reason}") from None


def _unpack_bytes(name: str, count: int, raw: memoryview) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        if start > len(raw) or (end := start + _LENGTH.unpack_from(raw, at)[0]) > len(raw):
            raise RequestError(f"incomplete string data for inference input '{name}'")
        if len(found) == count:
            break
        found.append(bytes(raw[start:end]))
        at = end
    if len(found) != count or at < len(raw):
        got = f"over {count}" if at < len(raw) else str(len(found))
        raise RequestError(f"expected {count} strings for inference input '{name}', got {got}")
    return found
