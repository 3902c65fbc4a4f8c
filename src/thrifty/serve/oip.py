"""Open Inference Protocol, version 2 (REST, JSON tensors): health, metadata, infer; error texts are Triton's.

Images come as ``image`` BYTES [N], base64 text of whole image files, or as ``pixels`` UINT8 [N, H, W, C]; a classifier
of texts takes ``text``, a language model ``prompt``, what learned from a table ``row``, the JSON of cells by their
columns, all BYTES [N]. Binary tensors are an extension that is refused by name. A NaN in an answer is an error: JSON
cannot say it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from thrifty import __version__
from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.http import Reply, json_reply, parse_json
from thrifty.serve.models import Ask, Model, Models, finite, plain
from thrifty.serve.pixels import from_base64, from_flat, from_nested, json_type

_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_PLATFORM = "thrifty_pytorch"


def owns(path: str) -> bool:
    """Say whether a path is this protocol's."""
    return path == "/v2" or path.startswith("/v2/")


def ask_for(
    method: str, path: str, headers: dict[bytes, bytes], models: Models
) -> tuple[Model, Callable[[bytes], Ask]] | None:
    """Find the model that an infer request is for, and the function that parses its body; None when it is none.

    Raises:
        RequestError: 404 unknown model or version, 400 a binary body.
    """
    match = _MODEL.fullmatch(path)
    if match is None or match[3] != "infer" or method != "POST":
        return None
    model = _find(match, models)
    if b"inference-header-content-length" in headers:
        raise RequestError("Binary tensors are not supported", mend="Send JSON tensors.")
    return model, lambda body: _infer(model, body)


def look_up(method: str, path: str, models: Models) -> Reply:
    """Answer what needs no model to compute: health and metadata.

    Raises:
        RequestError: 404 unknown model or path, 405 another verb than the path has.
    """
    match = _MODEL.fullmatch(path)
    plain = path.rstrip("/") if path == "/v2/" else path
    if match is None and plain not in ("/v2", "/v2/health/live", "/v2/health/ready"):
        raise RequestError("Not Found", status=404)
    if method != ("POST" if match is not None and match[3] == "infer" else "GET"):
        raise RequestError("Method Not Allowed", status=405)
    if match is not None:
        model = _find(match, models)
        if match[3] == "ready":
            return json_reply({"name": model.name, "ready": model.ready}, 200 if model.ready else 503)
        return json_reply(_metadata(model, models))
    if plain == "/v2":
        return json_reply({"name": "thrifty", "version": __version__, "extensions": []})
    if plain == "/v2/health/live":
        return json_reply({"live": True})
    ready = all(model.ready for model in models)
    return json_reply({"ready": ready}, 200 if ready else 503)


def _find(match: re.Match[str], models: Models) -> Model:
    name, version = unquote(match[1]), match[2]
    number = int(version) if version is not None and version.isdecimal() and len(version) < 20 else None
    model = models.find(name, number) if version is None or number is not None else None
    if model is None:
        which = f"'{name}'" if version is None else f"'{name}' version {unquote(version)}"
        raise RequestError(f"Request for unknown model: {which} is not found", status=404)
    return model


def _metadata(model: Model, models: Models) -> dict[str, Any]:
    inputs = [_tensor(name, datatype, shape) for name, (datatype, shape) in model.form.inputs.items()]
    outputs = [_tensor(name, datatype, shape) for name, (datatype, shape) in model.form.outputs.items()]
    if outputs[0]["name"] == "probabilities":
        outputs[0]["parameters"] = {"labels": list(model.bundle.info.data.labels)}
    versions = [str(each.version) for each in reversed(models.versions(model.name))]
    return {"name": model.name, "versions": versions, "platform": _PLATFORM, "inputs": inputs, "outputs": outputs}


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _infer(model: Model, body: bytes) -> Ask:
    request = parse_json(body)
    if not isinstance(request, dict):
        raise RequestError(f"The request must be a JSON object, not {json_type(request)}")
    parameters = request.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError("'parameters' must be an object")
    if any(key in parameters for key in ("binary_data_output", "binary_data_size")):
        raise RequestError("Binary tensors are not supported", mend="Send JSON tensors.")
    given_id = request.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise RequestError("'id' must be a string")
    wanted = _wanted(model, request.get("outputs"))
    rows = _rows(model, _the_input(model, request.get("inputs")), parameters)
    head = {"model_name": model.name, "model_version": str(model.version)} | ({"id": given_id} if given_id else {})
    return Ask(rows, lambda answers: json_reply(head | {"outputs": _answer(model, answers, wanted)}))


def _wanted(model: Model, outputs: Any) -> list[str]:
    known = list(model.form.outputs)
    if outputs is None or outputs == []:
        return known
    if not isinstance(outputs, list):
        raise RequestError("'outputs' must be an array")
    names = [each.get("name") if isinstance(each, dict) else None for each in outputs]
    for name in names:
        if name not in known:
            raise RequestError(f"unexpected inference output '{name}' for model '{model.name}'")
    if len(set(names)) != len(names):
        raise RequestError("an output is asked for twice")
    return [str(name) for name in names]


def _the_input(model: Model, inputs: Any) -> dict[str, Any]:
    known = model.form.inputs
    if not isinstance(inputs, list):
        raise RequestError("Unable to parse 'inputs': attempt to access JSON non-array as array")
    if len(inputs) != 1:
        raise RequestError(f"expected 1 inputs but got {len(inputs)} inputs for model '{model.name}'")
    given = inputs[0]
    if not isinstance(given, dict):
        raise RequestError(f"an input must be an object, not {json_type(given)}")
    for key in ("name", "shape", "datatype", "data"):
        if key not in given:
            raise RequestError(f"an input lacks its '{key}'")
    name = given["name"]
    if not isinstance(name, str) or name not in known:
        raise RequestError(f"unexpected inference input '{name}' for model '{model.name}'")
    datatype, shape = known[name]
    if given["datatype"] != datatype:
        raise RequestError(
            f"inference input '{name}' data-type is '{given['datatype']}', "
            f"but model '{model.name}' expects '{datatype}'"
        )
    _check_shape(model, name, given["shape"], shape)
    return given


def _check_shape(model: Model, name: str, given: Any, expected: tuple[int, ...]) -> None:
    whole = isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in given)
    if not whole or len(given) != len(expected) or tuple(given[1:]) != expected[1:]:
        shown = f"[{','.join(map(str, given))}]"[:200] if isinstance(given, list) else json_type(given)
        raise RequestError(
            f"unexpected shape for input '{name}' for model '{model.name}'. "
            f"Expected [{','.join(map(str, expected))}], got {shown}"
        )
    if given[0] == 0:
        raise RequestError(f"input '{name}' has no rows")
    model.check_rows(given[0])


def _rows(model: Model, given: dict[str, Any], parameters: dict[str, Any]) -> list[Any]:
    data, shape = given["data"], tuple(given["shape"])
    if not isinstance(data, list):
        raise RequestError("'data' must be an array")
    if given["name"] == "pixels":
        if data and isinstance(data[0], list):
            return list(from_nested(data, shape))
        _check_count(data, math.prod(shape), given["name"])
        return list(from_flat(data, shape))
    _check_count(data, shape[0], given["name"])
    if not all(isinstance(each, str) for each in data):
        raise RequestError(f"input '{given['name']}' of BYTES must hold strings alone")
    options = {key: parameters[key] for key in model.options if key in parameters}
    if model.form.takes != "bytes":
        return [model.row(each, options) for each in data]
    return [_file(model, number, each, options) for number, each in enumerate(data)]


def _file(model: Model, number: int, text: str, options: dict[str, Any]) -> Any:
    try:
        return model.row(from_base64(text), options)
    except ThriftyError as error:
        raise RequestError(f"{model.input} {number}: {error.what}") from None


def _check_count(data: list[Any], expected: int, name: str) -> None:
    if len(data) != expected:
        raise RequestError(f"input '{name}' has {len(data)} values; its shape says {expected}")


def _answer(model: Model, answers: list[Any], wanted: list[str]) -> list[dict[str, Any]]:
    outputs = []
    for name in wanted:
        datatype, shape = model.form.outputs[name]
        outputs.append(
            _tensor(name, datatype, (len(answers), *shape[1:]))
            | {"data": _flat([row[name] for row in finite(answers)])}
        )
    return outputs


def _flat(values: list[Any]) -> list[Any]:
    """The values of all rows, one after another."""
    rows = [plain(value) for value in values]
    return [each for row in rows for each in (row if isinstance(row, list) else [row])]
