"""Signatures of a model: the ways in which it takes input, by name, and what its tensors are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thrifty.errors import RequestError
from thrifty.serve.models import Model

DEFAULT = "serving_default"
# TensorFlow's names of types, by the models' own
TYPES = {"BYTES": "DT_STRING", "UINT8": "DT_UINT8", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE"}


@dataclass(frozen=True)
class Takes:
    """What a request under one signature may give: one of ``inputs``, or cells by ``columns``."""

    inputs: tuple[str, ...]
    columns: bool


def takes(model: Model, signature: str) -> Takes:
    """Say what a request under a signature may give.

    Raises:
        RequestError: the model has no such signature.
    """
    if signature == DEFAULT:
        # of a table its columns come after the row itself
        single = (model.input,) if model.columns else tuple(model.form.inputs)
        return Takes(single, bool(model.columns))
    if signature not in _signatures(model):
        raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
    return Takes((signature,), False)


def metadata_of(model: Model) -> dict[str, Any]:
    """Describe all signatures; 64-bit numbers are text, as protobuf writes them."""
    outputs = {name: _tensor(name, kind, shape) for name, (kind, shape) in model.form.outputs.items()}
    signatures = {
        signature: {
            "inputs": {name: _tensor(name, *model.form.inputs[name]) for name in names},
            "outputs": outputs,
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for signature, names in _signatures(model).items()
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _signatures(model: Model) -> dict[str, tuple[str, ...]]:
    """The inputs that each signature is described with."""
    raw, *others = (name for name in model.form.inputs if name not in model.columns)
    if model.columns:
        return {DEFAULT: model.columns, raw: (raw,)}
    return dict([(DEFAULT, (raw,)), *((name, (name,)) for name in others)])


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": TYPES[datatype], "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}
