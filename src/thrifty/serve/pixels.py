"""Nested JSON numbers to uint8 images, with TensorFlow Serving's words for what does not fit; and base64 to bytes."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from thrifty.errors import RequestError

_NESTED: dict[int, Any] = {1: list[float], 3: list[list[list[float]]], 4: list[list[list[list[float]]]]}
_SHOWN = 256  # TensorFlow Serving cuts values in its errors at as many bytes
_JSON_TYPES = {type(None): "Null", dict: "Object", list: "Array", str: "String"}


def from_nested(value: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Make an array of exactly this shape (3 or 4 dimensions) from nested lists of whole numbers 0 to 255.

    Raises:
        RequestError: a value of another type or size, a list of another length, or another depth.
    """
    try:
        numbers = np.array(msgspec.convert(value, _NESTED[len(shape)]), dtype=np.float64)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
        raise _fault(value, shape, 0) or RequestError(f"Expecting shape {_named(shape)}") from None
    if numbers.shape != shape:
        raise _fault(value, shape, 0) or RequestError(
            f"Expecting shape {_named(shape)} but got: {_named(numbers.shape)}"
        )
    return to_uint8(numbers)


def from_flat(value: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Make an array of this shape from a flat list of as many numbers, in row-major order."""
    try:
        numbers = np.array(msgspec.convert(value, _NESTED[1]), dtype=np.float64)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
        raise _fault(value, (len(value),), 0) or RequestError("data must be a list of numbers") from None
    return to_uint8(numbers).reshape(shape)


def to_uint8(numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Take numbers as pixels when each is whole and from 0 to 255."""
    pixels = numbers.astype(np.uint8, casting="unsafe") if _in_range(numbers) else None
    if pixels is None or not np.array_equal(pixels, numbers):
        wrong = numbers[~((numbers >= 0) & (numbers <= 255) & (numbers == np.floor(numbers)))].ravel()[0]
        raise RequestError(f"JSON Value: {wrong:g} Type: Number is not of expected type: uint8")
    return pixels


def from_base64(text: str) -> bytes:
    """Decode base64; padding may be missing, as in TensorFlow Serving."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    """Say whether a value is ``{"b64": "..."}`` and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def shown(value: Any) -> str:
    """Write a value for an error message, cut short."""
    try:
        text = msgspec.json.encode(value)
    except (RecursionError, msgspec.MsgspecError, ValueError):
        return "..."
    return text.decode() if len(text) <= _SHOWN else text[:_SHOWN].decode("utf-8", "ignore") + "..."


def type_error(value: Any, wanted: str) -> RequestError:
    """Say that a value is of another type, in TensorFlow Serving's words."""
    return RequestError(f"JSON Value: {shown(value)} Type: {json_type(value)} is not of expected type: {wanted}")


def json_type(value: Any) -> str:
    """Name the JSON type of a value as rapidjson does.

    >>> json_type(True), json_type([1]), json_type(2.5)
    ('True', 'Array', 'Number')
    """
    return str(value) if isinstance(value, bool) else _JSON_TYPES.get(type(value), "Number")


def _in_range(numbers: NDArray[np.float64]) -> bool:
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() <= 255)


def _fault(value: Any, shape: tuple[int, ...], level: int) -> RequestError | None:
    """Find the first place that does not fit, depth first, as TensorFlow Serving's own walk does."""
    if not isinstance(value, list):
        if level != len(shape):
            return RequestError(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 255
        return None if number else type_error(value, "uint8")
    if level >= len(shape):
        return RequestError(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        return RequestError(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return next((fault for each in value if (fault := _fault(each, shape, level + 1))), None)


def _named(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
