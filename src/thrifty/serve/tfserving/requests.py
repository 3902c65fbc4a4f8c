"""Bodies of predict, classify and regress to rows, with TensorFlow Serving's words for what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.http import Reply
from thrifty.serve.json_text import JsonError, decode
from thrifty.serve.models import Ask, Model
from thrifty.serve.pixels import from_base64, from_nested, is_base64, json_type, shown, type_error
from thrifty.serve.tfserving.replies import by_column, by_row, classified, regressed
from thrifty.serve.tfserving.signatures import DEFAULT, Takes, takes

_PLAIN = "is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"


def parse_predict(model: Model, body: bytes) -> Ask:
    """Parse a predict request in row form, ``instances``, or in column form, ``inputs``.

    Raises:
        RequestError: in TensorFlow Serving's words.
    """
    request = _object(body)
    wanted = takes(model, _signature(request))
    if "instances" not in request and "inputs" not in request:
        raise RequestError("Missing 'inputs' or 'instances' key")
    if "instances" in request and "inputs" in request:
        raise RequestError(
            f"JSON Value: {shown(request)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "instances" in request:
        return Ask(_rows_of_instances(model, wanted, request), lambda answers: by_row(model, answers))
    return Ask(_rows_of_inputs(model, wanted, request["inputs"]), lambda answers: by_column(model, answers))


def parse_examples(model: Model, body: bytes) -> Ask:
    """Parse a classify request, answered by labels with their probabilities, or a regress request, by numbers.

    Raises:
        RequestError: in TensorFlow Serving's words.
    """
    request = _object(body)
    takes(model, _signature(request))
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
    context = request.get("context", {})
    if not isinstance(context, dict):
        raise RequestError(f"JSON Value: {shown(request)} Expecting 'context' value to be an JSON object")
    rows = rows_of_examples(model, context, examples)

    def reply(answers: list[Any]) -> Reply:
        return classified(model, answers) if labels else regressed(answers)

    return Ask(rows, reply)


def rows_of_examples(model: Model, context: dict[str, Any], examples: Sequence[Any]) -> list[Any]:
    """Make a row of each example: an object of inputs by their names, with what ``context`` says of all of them.

    Raises:
        RequestError: in TensorFlow Serving's words.
    """
    model.check_rows(len(examples))
    return [_row_of_example(model, context, example) for example in examples]


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        request = decode(body, lenient=True)
    except JsonError as error:
        raise RequestError(f"JSON Parse error: {error.what} at offset: {error.offset}") from None
    if not isinstance(request, dict):
        raise RequestError(f"JSON Value: {shown(request)} Is not object")
    return request


def _signature(request: dict[str, Any]) -> str:
    signature = request.get("signature_name", DEFAULT)
    if not isinstance(signature, str):
        raise RequestError(
            f"JSON Value: {shown(request)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return signature or DEFAULT


def _rows_of_instances(model: Model, wanted: Takes, request: dict[str, Any]) -> list[Any]:
    instances = request["instances"]
    if not isinstance(instances, list):
        raise RequestError(f"JSON Value: {shown(request)} Expecting 'instances' to be an list/array")
    if not instances:
        raise RequestError(f"JSON Value: {shown(request)} No values in 'instances' array")
    model.check_rows(len(instances))
    if wanted.columns and not isinstance(instances[0], str | dict):
        raise RequestError(f"instances {_PLAIN}")
    first_named = _is_named(instances[0])
    rows = []
    for number, instance in enumerate(instances):
        if _is_named(instance) != first_named:
            got = "object but got list" if first_named else "value/list but got object"
            raise RequestError(f"Expecting {got} at item {number} of input list")
        rows.append(_row_of_instance(model, wanted, instance, number))
    return rows


def _row_of_instance(model: Model, wanted: Takes, instance: Any, number: int) -> Any:
    """One row; an instance is the input itself, or an object that names it, and may have options beside it."""
    name, options, value, named = wanted.inputs[0], {}, instance, ""
    where = f"Failed to process element: {number}"
    # the cells of a row name themselves
    if _is_named(instance) and not (wanted.columns and set(instance) != {name}):
        name = next((each for each in wanted.inputs if each in instance), name)
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
        return _row(model, name, value, options)
    except ThriftyError as error:
        raise RequestError(f"{where}{named} of 'instances' list. Error: INVALID_ARGUMENT: {error.what}") from None


def _rows_of_inputs(model: Model, wanted: Takes, inputs: Any) -> list[Any]:
    name, options = wanted.inputs[0], {}
    if _is_named(inputs):
        name = next((each for each in wanted.inputs if each in inputs), "")
        if not name:
            if wanted.columns and inputs:
                return _rows_of_columns(model, inputs)
            raise RequestError(f"Missing named input: {wanted.inputs[0]} in 'inputs' object.")
        options = {key: each for key, each in inputs.items() if key in model.options}
        inputs = inputs[name]
    if not isinstance(inputs, list):
        raise RequestError(f"JSON Value: {shown(inputs)} must be a list: its first dimension is the batch")
    if not inputs:
        raise RequestError("No values in 'inputs' array")
    if wanted.columns and not isinstance(inputs[0], str | dict):
        raise RequestError(f"inputs {_PLAIN}")
    model.check_rows(len(inputs))
    try:
        return [_row(model, name, value, options) for value in inputs]
    except RequestError:
        raise
    except ThriftyError as error:
        raise RequestError(error.what) from None


def _rows_of_columns(model: Model, inputs: Mapping[str, Any]) -> list[Any]:
    """Rows of a table given as a list of cells for each column; columns that are left out are empty."""
    for name, cells in inputs.items():
        if not isinstance(cells, list):
            raise RequestError(f"JSON Value: {shown(cells)} must be a list: its first dimension is the batch")
        if name not in model.columns:
            model.row({name: None}, {})
    counts = {name: len(cells) for name, cells in inputs.items()}
    first, count = next(iter(counts.items()))
    odd = next((name for name in counts if counts[name] != count), None)
    if odd is not None:
        raise RequestError(f"Input '{odd}' has {counts[odd]} values, '{first}' has {count}")
    if not count:
        raise RequestError("No values in 'inputs' array")
    model.check_rows(count)
    return [model.row(dict(zip(inputs, cells, strict=True)), {}) for cells in zip(*inputs.values(), strict=True)]


def _row(model: Model, name: str, value: Any, options: dict[str, Any]) -> Any:
    form = model.form
    if form.takes != "bytes":
        text = from_base64(value["b64"]).decode("utf-8", "replace") if is_base64(value) else value
        if not isinstance(text, str | dict) or (isinstance(text, dict) and form.takes == "text"):
            raise type_error(text, "string")
        return model.row(text, options)
    pixels = form.inputs.get("pixels")
    if is_base64(value) and name == model.input:
        return model.row(from_base64(value["b64"]), options)
    if isinstance(value, list) and pixels is not None:
        return from_nested(value, pixels[1][1:])
    files = '{"b64": ...}' if name == model.input else ""
    nested = "nested pixels" if pixels is not None else ""
    either = f"neither {files} nor {nested}" if files and nested else f"not {files or nested}"
    raise RequestError(f"JSON Value: {shown(value)} is {either}")


def _row_of_example(model: Model, context: dict[str, Any], example: Any) -> Any:
    if not isinstance(example, dict):
        raise RequestError(f"Example must be JSON object but got JSON {json_type(example)}")
    example = context | example
    name = model.input
    if model.form.takes == "row":
        return model.row(example, {})
    if model.form.takes == "text":
        if set(example) != {name} or not isinstance(example[name], str):
            raise RequestError(f'An example must be {{"{name}": "..."}}')
        return model.row(example[name], {})
    given = example.get(name)
    if set(example) != {name} or not (isinstance(given, bytes) or is_base64(given)):
        raise RequestError(f'An example must be {{"{name}": {{"b64": ...}}}}')
    try:
        return model.row(given if isinstance(given, bytes) else from_base64(given["b64"]), {})
    except RequestError:
        raise
    except ThriftyError as error:
        raise RequestError(error.what) from None


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)
