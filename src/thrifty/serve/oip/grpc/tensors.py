"""Infer messages to rows and answers to messages: tensors as raw bytes, or as lists of their kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thrifty.errors import RequestError
from thrifty.serve.models import Model
from thrifty.serve.oip.binary import DTYPES, Values, encoded, pack, unpack
from thrifty.serve.oip.tensors import (
    Tensor,
    Wanted,
    all_outputs,
    check_input,
    check_once,
    check_output,
    output,
    rows_of,
)
from thrifty.serve.pixels import to_uint8

# which list of InferTensorContents holds a type; FP16 has none
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parse_infer(model: Model, request: Any) -> tuple[list[Any], list[Wanted]]:
    """Make the rows of a ModelInferRequest, and say which outputs it asks for.

    Raises:
        RequestError: in Triton's words as far as it has them.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(f"expected {len(request.inputs)} raw input contents, got {len(raw)}")
    tensors = []
    for number, given in enumerate(request.inputs):
        shape = check_input(model, given.name, given.datatype, list(given.shape))
        if "shared_memory_region" in given.parameters:
            raise RequestError("Shared memory is not supported", mend="Send the tensor itself.")
        if raw and given.HasField("contents"):
            raise RequestError(f"contents field must not be specified when using raw_input_contents for '{given.name}'")
        values = (
            unpack(given.name, given.datatype, shape, memoryview(raw[number])) if raw else _listed(model, given, shape)
        )
        tensors.append(Tensor(given.name, given.datatype, shape, values))
    wanted = [
        check_output(model, each.name, binary=bool(raw), classes=_options(each.parameters).get("classification", 0))
        for each in request.outputs
    ]
    check_once(wanted)
    rows = rows_of(model, tensors, _options(request.parameters))
    return rows, wanted or all_outputs(model, binary=bool(raw))


def fill_answer(
    model: Model, answers: Sequence[Mapping[str, Any]], wanted: Sequence[Wanted], given_id: str, response: Any
) -> None:
    """Fill a ModelInferResponse: raw contents for a request that had such, else lists."""
    response.model_name, response.model_version, response.id = model.name, str(model.version), given_id
    for each in wanted:
        tensor = output(model, answers, each)
        said = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if each.binary:
            response.raw_output_contents.append(pack(tensor.values))
        else:
            values = tensor.values
            listed = list(map(encoded, values)) if isinstance(values, list) else values.ravel().tolist()
            getattr(said.contents, _CONTENTS[tensor.datatype]).extend(listed)


def _listed(model: Model, given: Any, shape: tuple[int, ...]) -> Values:
    found = getattr(given.contents, _CONTENTS[given.datatype])
    if len(found) != math.prod(shape):
        raise RequestError(f"input '{given.name}' has {len(found)} values; its shape says {math.prod(shape)}")
    if given.datatype == "BYTES":
        return list(found)
    if given.datatype == "UINT8":
        return to_uint8(np.array(found, dtype=np.float64)).reshape(shape)
    return np.array(found, dtype=DTYPES[given.datatype]).reshape(shape)


def _options(parameters: Any) -> dict[str, Any]:
    found = {}
    for key, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        found[key] = getattr(value, kind) if kind else None
    return found
