"""Tensors of a request to rows, and answers to tensors, whatever carried them: JSON, binary or gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.models import Model
from thrifty.serve.oip.binary import DTYPES, Values, strings
from thrifty.serve.pixels import json_type


@dataclass(frozen=True)
class Tensor:
    """A named tensor: an array, or texts or bytes in a list where the type is BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for, as bytes or as JSON; of so many likeliest classes, or 0 for all as numbers."""

    name: str
    binary: bool = False
    classes: int = 0


def check_input(model: Model, name: Any, datatype: Any, shape: Any) -> tuple[int, ...]:
    """Return the shape of an input that a request gives.

    Raises:
        RequestError: the model has no such input, or one of another type or shape, or it has too many rows.
    """
    known = model.form.inputs
    if not isinstance(name, str) or name not in known:
        raise RequestError(f"unexpected inference input '{name}' for model '{model.name}'")
    wanted_type, wanted = known[name]
    if datatype != wanted_type:
        raise RequestError(
            f"inference input '{name}' data-type is '{datatype}', but model '{model.name}' expects '{wanted_type}'"
        )
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not whole or len(shape) != len(wanted) or tuple(shape[1:]) != wanted[1:]:
        shown = f"[{','.join(map(str, shape))}]"[:200] if isinstance(shape, list) else json_type(shape)
        raise RequestError(
            f"unexpected shape for input '{name}' for model '{model.name}'. "
            f"Expected [{','.join(map(str, wanted))}], got {shown}"
        )
    if shape[0] == 0:
        raise RequestError(f"input '{name}' has no rows")
    model.check_rows(shape[0])
    return tuple(shape)


def rows_of(model: Model, tensors: Sequence[Tensor], parameters: Mapping[str, Any]) -> list[Any]:
    """Make the rows that a request asks for.

    Raises:
        RequestError: the inputs do not go together, or what is in them cannot be read; it says where.
    """
    given = {tensor.name: tensor for tensor in tensors}
    if model.columns and given and model.input not in given:
        if len(given) != len(tensors):
            raise RequestError(f"an input is given twice for model '{model.name}'")
        return _rows_of_columns(model, given)
    if len(tensors) != 1:
        raise RequestError(f"expected 1 inputs but got {len(tensors)} inputs for model '{model.name}'")
    tensor = tensors[0]
    if tensor.name != model.input:
        return list(tensor.values)
    options = {key: parameters[key] for key in model.options if key in parameters}
    raw = list(tensor.values) if model.form.takes == "bytes" else strings(tensor.name, tensor.values)
    rows = []
    for number, each in enumerate(raw):
        try:
            rows.append(model.row(each, options))
        except ThriftyError as error:
            if model.form.takes != "bytes":
                raise
            raise RequestError(f"{model.input} {number}: {error.what}") from None
    return rows


def _rows_of_columns(model: Model, given: Mapping[str, Tensor]) -> list[Any]:
    """Rows of a table of a tensor for each column; columns that are left out are empty."""
    counts = {name: len(tensor.values) for name, tensor in given.items()}
    count = next(iter(counts.values()))
    odd = next((name for name in counts if counts[name] != count), None)
    if odd is not None:
        raise RequestError(f"input '{odd}' batch size does not match other inputs for '{model.name}'")
    columns = [_cells(tensor) for tensor in given.values()]
    return [model.row(dict(zip(given, cells, strict=True)), {}) for cells in zip(*columns, strict=True)]


def _cells(tensor: Tensor) -> list[Any]:
    if isinstance(tensor.values, list):
        return strings(tensor.name, tensor.values)
    return [None if value != value else value for value in tensor.values.tolist()]


def all_outputs(model: Model, *, binary: bool) -> list[Wanted]:
    """All that a model answers."""
    return [Wanted(name, binary) for name in model.form.outputs]


def check_output(model: Model, name: Any, *, binary: bool, classes: Any = 0) -> Wanted:
    """Return an output that a request asks for.

    Raises:
        RequestError: the model has no such output, or none that can be said as classes.
    """
    if name not in model.form.outputs:
        raise RequestError(f"unexpected inference output '{name}' for model '{model.name}'")
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise RequestError("'classification' must be a whole number from 0")
    if classes and name != "probabilities":
        raise RequestError(f"output '{name}' for model '{model.name}' has no classes")
    return Wanted(str(name), binary, classes)


def check_once(wanted: Sequence[Wanted]) -> None:
    """Refuse an output that is asked for twice."""
    if len({each.name for each in wanted}) != len(wanted):
        raise RequestError("an output is asked for twice")


def output(model: Model, answers: Sequence[Mapping[str, Any]], wanted: Wanted) -> Tensor:
    """Make one tensor of all answers."""
    datatype, shape = model.form.outputs[wanted.name]
    found = [row[wanted.name] for row in answers]
    if wanted.classes:
        said = [text for row in found for text in _likeliest(model, row, wanted.classes)]
        return Tensor(wanted.name, "BYTES", (len(found), len(said) // len(found)), said)
    full = (len(found), *shape[1:])
    if datatype == "BYTES":
        return Tensor(wanted.name, datatype, full, found)
    return Tensor(wanted.name, datatype, full, np.asarray(found, dtype=DTYPES[datatype]).reshape(full))


def _likeliest(model: Model, row: NDArray[np.float32], count: int) -> list[str]:
    """Triton's classes: score, index and label."""
    labels = model.bundle.info.data.labels
    order = np.argsort(-row, kind="stable")[:count].tolist()
    return [f"{row[index]:f}:{index}:{labels[index]}" for index in order]
