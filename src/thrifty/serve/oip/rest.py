"""Infer requests and answers as HTTP bodies: JSON, and JSON with binary tensors after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from thrifty.errors import RequestError
from thrifty.serve.http import JSON, Reply
from thrifty.serve.json_text import JsonError, decode
from thrifty.serve.models import Ask, Model
from thrifty.serve.oip.binary import Values, pack, unpack
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
from thrifty.serve.pixels import from_base64, from_flat, from_nested, json_type

HEAD_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"
_SHORT_HEAD = 4096


def parse_infer(model: Model, head_length: bytes | None, body: bytes) -> Ask:
    """Parse a whole body; of the binary extension its first bytes are JSON, of a raw one it is the input itself.

    Raises:
        RequestError: in Triton's words as far as it has them.
    """
    if head_length is None:
        return _infer(model, parse_object(body), memoryview(b""))
    if not head_length.isdigit() or len(head_length) > 15 or int(head_length) > len(body):
        raise RequestError("Inference-Header-Content-Length is no length within the body")
    head, whole = int(head_length), memoryview(body)
    if head == 0:
        return _raw(model, whole)
    return _infer(model, parse_object(whole[:head]), whole[head:])


def is_light(model: Model, head_length: bytes | None, size: int) -> bool:
    """Say whether a body of so many bytes is pixels behind a short head, which are taken as they lie.

    Args:
        model: that is asked.
        head_length: bytes of the head, as its header says.
        size: of the whole body.
    """
    if head_length is None or not head_length.isdigit() or "pixels" not in model.form.inputs:
        return False
    head = int(head_length[:15])
    return 0 < head <= _SHORT_HEAD < size and (size - head) % math.prod(model.form.inputs["pixels"][1][1:]) == 0


def parse_object(body: bytes | memoryview) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        RequestError: it is none, in Triton's words.
    """
    try:
        request = decode(body)
    except JsonError as error:
        raise RequestError(f"failed to parse the request JSON buffer: {error.what} at {error.offset}") from None
    if not isinstance(request, dict):
        raise RequestError(f"The request must be a JSON object, not {json_type(request)}")
    return request


def _raw(model: Model, body: memoryview) -> Ask:
    """A body that is one element of the model's first input; the answer is binary too."""
    name = model.input
    tensor = Tensor(name, "BYTES", (1,), [bytes(body)])
    wanted = all_outputs(model, binary=True)
    return Ask(rows_of(model, [tensor], {}), lambda answers: _reply(model, answers, wanted, None))


def _infer(model: Model, request: dict[str, Any], binary: memoryview) -> Ask:
    parameters = _parameters(request)
    given_id = request.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise RequestError("'id' must be a string")
    wanted = _wanted(model, request.get("outputs"), binary=_flag(parameters, "binary_data_output"))
    rows = rows_of(model, _tensors(model, request.get("inputs"), binary), parameters)
    return Ask(rows, lambda answers: _reply(model, answers, wanted, given_id))


def _parameters(holder: Mapping[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError("'parameters' must be an object")
    if "shared_memory_region" in parameters:
        raise RequestError("Shared memory is not supported", mend="Send the tensor itself.")
    return parameters


def _flag(parameters: Mapping[str, Any], key: str, *, otherwise: bool = False) -> bool:
    value = parameters.get(key, otherwise)
    if not isinstance(value, bool):
        raise RequestError(f"'{key}' must be true or false")
    return value


def _wanted(model: Model, outputs: Any, *, binary: bool) -> list[Wanted]:
    if outputs is None or outputs == []:
        return all_outputs(model, binary=binary)
    if not isinstance(outputs, list):
        raise RequestError("'outputs' must be an array")
    wanted = []
    for each in outputs:
        if not isinstance(each, dict):
            raise RequestError(f"an output must be an object, not {json_type(each)}")
        asked = _parameters(each)
        as_bytes = _flag(asked, "binary_data", otherwise=binary)
        classes = asked.get("classification", 0)
        name = each.get("name")
        wanted.append(check_output(model, name if isinstance(name, str) else None, binary=as_bytes, classes=classes))
    check_once(wanted)
    return wanted


def _tensors(model: Model, inputs: Any, binary: memoryview) -> list[Tensor]:
    if not isinstance(inputs, list):
        raise RequestError("Unable to parse 'inputs': attempt to access JSON non-array as array")
    tensors, at = [], 0
    for given in inputs:
        if not isinstance(given, dict):
            raise RequestError(f"an input must be an object, not {json_type(given)}")
        size = _parameters(given).get("binary_data_size")
        for key in ("name", "shape", "datatype", *(("data",) if size is None else ())):
            if key not in given:
                raise RequestError(f"an input lacks its '{key}'")
        name, datatype = given["name"], given["datatype"]
        shape = check_input(model, name, datatype, given["shape"])
        if size is None:
            tensors.append(Tensor(name, datatype, shape, _from_json(model, name, datatype, shape, given["data"])))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - at:
            raise RequestError(f"'binary_data_size' of input '{name}' is no length within the body")
        tensors.append(Tensor(name, datatype, shape, unpack(name, datatype, shape, binary[at : at + size])))
        at += size
    if at != len(binary):
        raise RequestError(f"unexpected additional input data: {len(binary) - at} bytes belong to no input")
    return tensors


def _from_json(model: Model, name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Values:
    if not isinstance(data, list):
        raise RequestError("'data' must be an array")
    if datatype == "UINT8":
        if data and isinstance(data[0], list):
            return from_nested(data, shape)
        _check_count(data, math.prod(shape), name)
        return from_flat(data, shape)
    _check_count(data, shape[0], name)
    if datatype == "BYTES":
        if not all(isinstance(each, str) for each in data):
            raise RequestError(f"input '{name}' of BYTES must hold strings alone")
        return [_file(name, number, each) for number, each in enumerate(data)] if model.form.takes == "bytes" else data
    try:
        numbers = msgspec.convert(data, list[float | None])
    except (msgspec.ValidationError, OverflowError):
        raise RequestError(f"input '{name}' of {datatype} must hold numbers alone, or null") from None
    return np.array(numbers, dtype=np.float64)


def _file(name: str, number: int, text: str) -> bytes:
    try:
        return from_base64(text)
    except RequestError as error:
        raise RequestError(f"{name} {number}: {error.what}") from None


def _check_count(data: list[Any], expected: int, name: str) -> None:
    if len(data) != expected:
        raise RequestError(f"input '{name}' has {len(data)} values; its shape says {expected}")


def _reply(model: Model, answers: Sequence[Mapping[str, Any]], wanted: Sequence[Wanted], given_id: str | None) -> Reply:
    head: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if given_id:
        head["id"] = given_id
    outputs, parts = [], []
    for each in wanted:
        tensor = output(model, answers, each)
        said: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if each.binary:
            parts.append(pack(tensor.values))
            said["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            said["data"] = _to_json(tensor.values)
        outputs.append(said)
    body = msgspec.json.encode(head | {"outputs": outputs})
    if not parts:
        return Reply(200, body, JSON)
    length = (b"inference-header-content-length", str(len(body)).encode())
    return Reply(200, b"".join((body, *parts)), _OCTETS, headers=(length,))


def _to_json(values: Values) -> list[Any]:
    """The values of all rows, one after another."""
    if isinstance(values, list):
        return [each.encode("utf-8", "replace").decode() for each in values]
    if not bool(np.isfinite(values).all()):
        raise RequestError("The model answered with NaN or infinity", status=500, mend="Ask for a binary output.")
    found: list[Any] = values.ravel().tolist()
    return found
