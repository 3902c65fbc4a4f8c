"""Arrays in JSON and in safetensors files, by NumPy alone: for a Python that has nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# of the header of a safetensors file: more is no header
_HEADER_BYTES = 100_000_000
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
_TYPES["BOOL"] = "?"


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON holds it.

    >>> pack(np.array([[1, 2]], np.uint8))
    {'type': 'uint8', 'sizes': [1, 2], 'base64': 'AQI='}
    """
    whole = np.ascontiguousarray(array)
    return {"type": str(whole.dtype), "sizes": list(array.shape), "base64": base64.b64encode(whole.tobytes()).decode()}


def unpack(said: dict[str, Any]) -> NDArray[Any]:
    """Return the array that `pack` packed.

    >>> unpack({"type": "uint8", "sizes": [1, 2], "base64": "AQI="})
    array([[1, 2]], dtype=uint8)
    """
    return np.frombuffer(base64.b64decode(said["base64"]), said["type"]).reshape(said["sizes"])


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file, by its specification: a length, a JSON header, numbers.

    Raises:
        ValueError: it is none, or has a type that is not taken.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_BYTES:
            raise ValueError(f"'{path.name}' is no safetensors file")
        header = json.loads(file.read(length))
        found = {}
        for name, said in header.items():
            if name == "__metadata__":
                continue
            if said["dtype"] not in _TYPES:
                raise ValueError(f"'{name}' holds {said['dtype']}, which is not taken")
            begin, end = said["data_offsets"]
            file.seek(8 + length + begin)
            found[name] = np.frombuffer(file.read(end - begin), _TYPES[said["dtype"]]).reshape(said["shape"])
        return found
