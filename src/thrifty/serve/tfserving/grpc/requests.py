"""Messages of predict, classify and regress to rows, with TensorFlow Serving's words for what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.models import Model
from thrifty.serve.oip.tensors import Tensor, rows_of
from thrifty.serve.tfserving.grpc.tensors import KINDS, kind_of, said, shape_of, values_of
from thrifty.serve.tfserving.requests import rows_of_examples
from thrifty.serve.tfserving.signatures import DEFAULT, TYPES, takes


def parse_predict(model: Model, request: Any) -> tuple[list[Any], list[str]]:
    """Make the rows of a PredictRequest, and say which outputs it asks for.

    Options of a model, such as ``max_tokens``, are inputs of one number.

    Raises:
        RequestError: 412 there is no such signature, else 400.
    """
    signature = request.model_spec.signature_name or DEFAULT
    try:
        wanted = takes(model, signature)
    except RequestError:
        raise RequestError(f'Serving signature key "{signature}" not found.', status=412) from None
    options = {key: _option(key, proto) for key, proto in request.inputs.items() if key in model.options}
    given = {key: proto for key, proto in request.inputs.items() if key not in options}
    known = (*wanted.inputs, *(model.columns if wanted.columns else ()))
    for name in given:
        if name not in known:
            raise RequestError(
                f"input tensor alias not found in signature: {name}. Inputs expected to be in the set {_set(known)}."
            )
    if len(given) != 1 and not (given and wanted.columns and given.keys() <= set(model.columns)):
        one = wanted.inputs[:1]
        missing, extra = ([], [*given][1:]) if given else (one, [])
        raise RequestError(
            f"input size does not match signature: {len(given)}!=1 len({_set(given)}) != len({_set(one)}). "
            f"Sent extra: {_set(extra)}. Missing but required: {_set(missing)}."
        )
    tensors = [_tensor(model, name, proto) for name, proto in given.items()]
    if len({tensor.shape[0] for tensor in tensors}) > 1:
        raise RequestError("Batching Run() input tensors must have equal 0th-dimension size")
    return rows_of(model, tensors, options), outputs_of(model, request.output_filter)


def outputs_of(model: Model, names: Iterable[str]) -> list[str]:
    """Return the outputs that a request asks for; all where it names none.

    Raises:
        RequestError: the model has no such output, or one is named twice.
    """
    wanted: list[str] = []
    for name in names:
        if name not in model.form.outputs:
            raise RequestError(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{_set(model.form.outputs)}."
            )
        if name in wanted:
            raise RequestError(f"duplicate output tensor alias: {name}")
        wanted.append(name)
    return wanted or list(model.form.outputs)


def parse_examples(model: Model, signature: str, examples: Any) -> list[Any]:
    """Make the rows of the Input of a ClassificationRequest or a RegressionRequest.

    Raises:
        RequestError: there is no such signature, there are no examples, or they are none of the model's.
    """
    takes(model, signature or DEFAULT)
    kind = examples.WhichOneof("kind")
    given = getattr(examples, kind) if kind else None
    if given is None or not given.examples:
        raise RequestError("Input is empty.")
    context = _features(model, given.context) if kind == "example_list_with_context" else {}
    return rows_of_examples(model, context, [_features(model, each) for each in given.examples])


def _tensor(model: Model, name: str, proto: Any) -> Tensor:
    datatype, wanted = model.form.inputs[name]
    expected, kind = TYPES[datatype], kind_of(proto)
    if kind != expected:
        raise RequestError(f"Expected input {name} to be {said(expected)} but get {said(kind)}.")
    shape = shape_of(name, proto)
    # before anything is made of it: a shape may say more than was sent
    if len(shape) != len(wanted) or shape[1:] != wanted[1:]:
        shown = f"[{','.join(map(str, shape))}]"[:200]
        raise RequestError(f"Expected input {name} to have shape [{','.join(map(str, wanted))}] but get {shown}.")
    if shape[0] == 0:
        raise RequestError(f"Input {name} has no rows")
    model.check_rows(shape[0])
    return Tensor(name, datatype, shape, values_of(name, proto, shape))


def _option(name: str, proto: Any) -> Any:
    kind, shape = kind_of(proto), shape_of(name, proto)
    if kind not in KINDS or KINDS[kind].dtype is None or shape not in ((), (1,)):
        raise RequestError(f"Expected input {name} to be one number but get {said(kind)} {list(shape)}.")
    values = values_of(name, proto, (1,))
    assert not isinstance(values, list)
    return values.item()


def _features(model: Model, example: Any) -> dict[str, Any]:
    return {name: _feature(model, feature) for name, feature in example.features.feature.items()}


def _feature(model: Model, feature: Any) -> Any:
    """One value by itself, several in a list, None where there is none; texts are text, files are bytes."""
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    if model.form.takes != "bytes":
        values = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in values]
    return values if len(values) > 1 else next(iter(values), None)


def _set(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
