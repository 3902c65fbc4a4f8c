"""TensorFlow Serving's REST API, version 1: predict, classify, status and metadata, with its texts and its codes.

Source: tensorflow_serving/model_servers/http_rest_api_util.cc and util/json_tensor.cc. Where this differs: text after
the JSON object is refused, and so is NaN; ``OPTIONS`` is a malformed request; errors are written on one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.http import Reply, json_reply, parse_json
from thrifty.serve.models import Ask, Model, Models, finite, plain
from thrifty.serve.pixels import from_base64, from_nested, is_base64, json_type, shown, type_error

_POST = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE
)
_SIGNATURE = "serving_default"
# the output that a method other than predict asks for
_ANSWERS = {"classify": "probabilities", "regress": "value"}
_TYPES = {"BYTES": "DT_STRING", "FP32": "DT_FLOAT"}


def owns(path: str) -> bool:
    """Say whether a path is this protocol's."""
    return path[:4].lower() == "/v1/"


def ask_for(method: str, path: str, models: Models) -> tuple[Model, Callable[[bytes], Ask]] | None:
    """Find the model that a POST is for, and the function that parses its body; None when it is no such request.

    Raises:
        RequestError: 404 unknown model or version, 400 a label or a method that there is not.
    """
    match = _POST.fullmatch(path) if method == "POST" else None
    if match is None:
        return None
    name, version, label, verb = unquote(match[1]), _version(match[2]), match[3], match[4].lower()
    if label:
        raise RequestError(f"Unrecognized servable version label: {unquote(label)}")
    model = models.find(name, version)
    if model is None:
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError(f"Servable not found for request: {wanted}", status=404)
    if verb in _ANSWERS and _ANSWERS[verb] not in model.form.outputs:
        raise RequestError(
            f"Expected {'regression' if verb == 'regress' else 'classification'} signature method_name to be "
            f"tensorflow/serving/{verb}. Was: tensorflow/serving/predict"
        )
    parse = _examples if verb in _ANSWERS else _predict
    return model, lambda body: parse(model, body)


def look_up(method: str, path: str, models: Models) -> Reply:
    """Answer what needs no model to compute: status and metadata.

    Raises:
        RequestError: 404 unknown model or version, 400 anything else.
    """
    match = _GET.fullmatch(path) if method == "GET" else None
    if match is None:
        raise RequestError(f"Malformed request: {method} {path}")
    if match[1] is None:
        raise RequestError("Missing model name in request.")
    name, version, metadata = unquote(match[1]), _version(match[2]), match[4] is not None
    if match[3]:
        raise RequestError(f"Unrecognized servable version label: {unquote(match[3])}")
    found = [each for each in models.versions(name) if version in (None, each.version)]
    if metadata and found:
        return json_reply(_metadata(found[0]))
    if found:
        return json_reply({"model_version_status": [_status(each) for each in found]})
    if metadata:
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError(f"Servable not found for request: {wanted}", status=404)
    what = "any versions" if version is None else f"version {version}"
    raise RequestError(f"Could not find {what} of model {name}", status=404)


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    if len(digits) > 19 or int(digits) >= 2**63:
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return int(digits)


def _status(model: Model) -> dict[str, Any]:
    state = "AVAILABLE" if model.ready else "LOADING" if model.batcher.healthy else "END"
    return {"version": str(model.version), "state": state, "status": {"error_code": "OK", "error_message": ""}}


def _metadata(model: Model) -> dict[str, Any]:
    """The signatures; 64-bit numbers are text, as protobuf writes them. Images may also come as nested pixels."""
    inputs = {model.input: _tensor(model.input, "DT_STRING")}
    outputs = {name: _tensor(name, _TYPES[kind], *shape[1:]) for name, (kind, shape) in model.form.outputs.items()}
    signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict", "defaults": {}}
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": {_SIGNATURE: signature}}},
    }


def _tensor(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}


def _request(body: bytes) -> dict[str, Any]:
    request = parse_json(body)
    if not isinstance(request, dict):
        raise RequestError(f"JSON Value: {shown(request)} Is not object")
    signature = request.get("signature_name", _SIGNATURE)
    if not isinstance(signature, str):
        raise RequestError(
            f"JSON Value: {shown(request)} not formatted correctly. 'signature_name' key must be a string value."
        )
    if signature not in ("", _SIGNATURE):
        raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
    return request


def _predict(model: Model, body: bytes) -> Ask:
    request = _request(body)
    if "instances" not in request and "inputs" not in request:
        raise RequestError("Missing 'inputs' or 'instances' key")
    if "instances" in request and "inputs" in request:
        raise RequestError(
            f"JSON Value: {shown(request)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "instances" in request:
        rows = _rows_of_instances(model, request)
        return Ask(rows, lambda answers: json_reply({"predictions": _by_row(model, answers)}))
    rows = _rows_of_inputs(model, request["inputs"])
    return Ask(rows, lambda answers: json_reply({"outputs": _by_column(model, answers)}))


def _rows_of_instances(model: Model, request: dict[str, Any]) -> list[Any]:
    instances = request["instances"]
    if not isinstance(instances, list):
        raise RequestError(f"JSON Value: {shown(request)} Expecting 'instances' to be an list/array")
    if not instances:
        raise RequestError(f"JSON Value: {shown(request)} No values in 'instances' array")
    model.check_rows(len(instances))
    first_named = _is_named(instances[0])
    rows = []
    for number, instance in enumerate(instances):
        if _is_named(instance) != first_named:
            got = "object but got list" if first_named else "value/list but got object"
            raise RequestError(f"Expecting {got} at item {number} of input list")
        rows.append(_row_of_instance(model, instance, number))
    return rows


def _row_of_instance(model: Model, instance: Any, number: int) -> Any:
    """One row; an instance is the input itself, or an object that names it, and may have options beside it."""
    name, options, value, named = model.input, {}, instance, ""
    where = f"Failed to process element: {number}"
    # the cells of a row name themselves
    if _is_named(instance) and not (model.form.takes == "row" and set(instance) != {name}):
        options = {key: each for key, each in instance.items() if key in model.options}
        unknown = next((key for key in instance if key != name and key not in options), None)
        if unknown is not None:
            raise RequestError(
                f"{where} key: {unknown} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON object: does not have named input: {unknown}"
            )
        if name not in instance:
            raise RequestError(
                f"{where} of 'instances' list. JSON object: {shown(instance)} keys must be equal to: {name}"
            )
        value, named = instance[name], f" key: {name}"
    try:
        return _row(model, value, options)
    except ThriftyError as error:
        raise RequestError(f"{where}{named} of 'instances' list. Error: INVALID_ARGUMENT: {error.what}") from None


def _rows_of_inputs(model: Model, inputs: Any) -> list[Any]:
    name, options = model.input, {}
    if _is_named(inputs):
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
        options = {key: each for key, each in inputs.items() if key in model.options}
        inputs = inputs[name]
    if not isinstance(inputs, list):
        raise RequestError(f"JSON Value: {shown(inputs)} must be a list: its first dimension is the batch")
    if not inputs:
        raise RequestError("No values in 'inputs' array")
    model.check_rows(len(inputs))
    try:
        return [_row(model, value, options) for value in inputs]
    except RequestError:
        raise
    except ThriftyError as error:
        raise RequestError(error.what) from None


def _row(model: Model, value: Any, options: dict[str, Any]) -> Any:
    if model.form.takes != "bytes":
        text = from_base64(value["b64"]).decode("utf-8", "replace") if is_base64(value) else value
        if not isinstance(text, str | dict) or (isinstance(text, dict) and model.form.takes == "text"):
            raise type_error(text, "string")
        return model.row(text, options)
    if is_base64(value):
        return model.row(from_base64(value["b64"]), options)
    pixels = model.form.inputs.get("pixels")
    if isinstance(value, list) and pixels is not None:
        return from_nested(value, pixels[1][1:])
    nested = " nor nested pixels" if pixels is not None else ""
    raise RequestError(f'JSON Value: {shown(value)} is {"neither" if nested else "not"} {{"b64": ...}}{nested}')


def _examples(model: Model, body: bytes) -> Ask:
    """Labels with their probabilities for `classify`, or numbers for `regress`."""
    request = _request(body)
    labels = model.bundle.info.data.labels
    if "examples" not in request:
        method = "classify" if labels else "regress"
        raise RequestError(
            f"JSON Value: {shown(request)} When method is {method}, key 'examples' is expected and was not found"
        )
    examples = request["examples"]
    if not isinstance(examples, list):
        raise RequestError(f"JSON Value: {shown(request)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise RequestError(f"JSON Value: {shown(request)} 'examples' value is an empty array")
    model.check_rows(len(examples))
    rows = [_row_of_example(model, example) for example in examples]

    def reply(answers: list[Any]) -> Reply:
        if not labels:
            return json_reply({"results": [plain(row["value"]) for row in finite(answers)]})
        return json_reply(
            {"results": [list(zip(labels, plain(row["probabilities"]), strict=True)) for row in finite(answers)]}
        )

    return Ask(rows, reply)


def _row_of_example(model: Model, example: Any) -> Any:
    if not isinstance(example, dict):
        raise RequestError(f"Example must be JSON object but got JSON {json_type(example)}")
    name = model.input
    if model.form.takes == "row":
        return model.row(example, {})
    if model.form.takes == "text":
        if set(example) != {name} or not isinstance(example[name], str):
            raise RequestError(f'An example must be {{"{name}": "..."}}')
        return model.row(example[name], {})
    if set(example) != {name} or not is_base64(example[name]):
        raise RequestError(f'An example must be {{"{name}": {{"b64": ...}}}}')
    try:
        return model.row(from_base64(example[name]["b64"]), {})
    except RequestError:
        raise
    except ThriftyError as error:
        raise RequestError(error.what) from None


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _by_row(model: Model, answers: list[Any]) -> list[Any]:
    """One output goes without its name, as in TensorFlow Serving."""
    rows = [{name: plain(value) for name, value in row.items()} for row in finite(answers)]
    return [next(iter(row.values())) for row in rows] if len(model.form.outputs) == 1 else rows


def _by_column(model: Model, answers: list[Any]) -> Any:
    rows = finite(answers)
    columns = {name: [plain(row[name]) for row in rows] for name in model.form.outputs}
    return next(iter(columns.values())) if len(columns) == 1 else columns
