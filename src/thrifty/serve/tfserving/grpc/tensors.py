"""TensorProtos to values and back: as raw content, or as the values of their kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thrifty.errors import RequestError
from thrifty.serve.oip.binary import Values, encoded
from thrifty.serve.oip.tensors import Tensor
from thrifty.serve.tfserving.signatures import TYPES


@dataclass(frozen=True)
class Kind:
    """How a DataType is written: the type of its content, None for texts, and the field of its values."""

    dtype: str | None
    field: str


KINDS = {
    "DT_FLOAT": Kind("<f4", "float_val"),
    "DT_DOUBLE": Kind("<f8", "double_val"),
    "DT_INT32": Kind("<i4", "int_val"),
    "DT_UINT8": Kind("u1", "int_val"),
    "DT_INT16": Kind("<i2", "int_val"),
    "DT_INT8": Kind("i1", "int_val"),
    "DT_STRING": Kind(None, "string_val"),
    "DT_INT64": Kind("<i8", "int64_val"),
    "DT_BOOL": Kind("?", "bool_val"),
    "DT_UINT16": Kind("<u2", "int_val"),
    "DT_UINT32": Kind("<u4", "uint32_val"),
    "DT_UINT64": Kind("<u8", "uint64_val"),
}


def kind_of(proto: Any) -> str:
    """Return the name of a tensor's type, or its number where there is no such type."""
    known = proto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return str(known[proto.dtype].name) if proto.dtype in known else str(proto.dtype)


def said(kind: str) -> str:
    """Name a type as TensorFlow's errors do.

    >>> said("DT_UINT8")
    'uint8'
    """
    return kind.removeprefix("DT_").lower()


def shape_of(name: str, proto: Any) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raises:
        RequestError: it is not known.
    """
    shape = tuple(each.size for each in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise RequestError(f"tensor parsing error: {name}")
    return shape


def values_of(name: str, proto: Any, shape: tuple[int, ...]) -> Values:
    """Read the values of a tensor whose type and shape are found to be right: an array, or bytes in a list.

    Where there are fewer values than the shape says the last is repeated, and without any all are zero or empty, as
    TensorFlow reads them.

    Raises:
        RequestError: the content has another size than the shape says, or a value is none of its type.
    """
    kind, count = KINDS[kind_of(proto)], math.prod(shape)
    if kind.dtype is None:
        if proto.tensor_content:
            return _texts(name, proto.tensor_content, count)
        given = list(proto.string_val[:count])
        return given + [given[-1] if given else b""] * (count - len(given))
    dtype = np.dtype(kind.dtype)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise RequestError(f"tensor parsing error: {name}")
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    return _filled(name, getattr(proto, kind.field)[:count], dtype, count).reshape(shape)


def _filled(name: str, found: Sequence[Any], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    values = np.zeros(count, dtype)
    try:
        values[: len(found)] = np.array(found, dtype)
    except (OverflowError, ValueError):
        raise RequestError(f"tensor parsing error: {name}") from None
    if found:
        values[len(found) :] = values[len(found) - 1]
    return values


def _texts(name: str, content: bytes, count: int) -> list[bytes]:
    """Read texts as TensorFlow's content has them: all lengths, seven bits a byte, then all texts."""
    lengths, at = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise RequestError(f"tensor parsing error: {name}")
            byte = content[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise RequestError(f"tensor parsing error: {name}")
    texts = []
    for length in lengths:
        texts.append(content[at : at + length])
        at += length
    return texts


def fill(proto: Any, tensor: Tensor) -> None:
    """Write a tensor as values of its kind, which clients read by name."""
    name = TYPES[tensor.datatype]
    proto.dtype = proto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[name].number
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    values = tensor.values
    listed = list(map(encoded, values)) if isinstance(values, list) else values.ravel().tolist()
    getattr(proto, KINDS[name].field).extend(listed)
