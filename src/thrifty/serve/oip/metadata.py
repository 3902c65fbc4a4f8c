"""What the server and its models are, as the Open Inference Protocol says it."""

from __future__ import annotations

from typing import Any

from thrifty import __version__
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Model, Models

_PLATFORM = "thrifty_pytorch"
_EXTENSIONS = ("binary_tensor_data", "classification", "parameters", "statistics")


def server_metadata(*, repository: bool = False) -> dict[str, Any]:
    """Name the server and what it knows beyond the protocol."""
    more = ["model_repository"] if repository else []
    return {"name": "thrifty", "version": __version__, "extensions": [*_EXTENSIONS, *more]}


def metadata_of(model: Model, models: Models) -> dict[str, Any]:
    """Name a model's tensors; -1 is the number of rows, and a request gives one input, or columns that go together."""
    inputs = [_tensor(name, datatype, shape) for name, (datatype, shape) in model.form.inputs.items()]
    outputs = [_tensor(name, datatype, shape) for name, (datatype, shape) in model.form.outputs.items()]
    if outputs[0]["name"] == "probabilities":
        outputs[0]["parameters"] = {"labels": list(model.bundle.info.data.labels)}
    versions = [str(each.version) for each in reversed(models.versions(model.name))]
    return {"name": model.name, "versions": versions, "platform": _PLATFORM, "inputs": inputs, "outputs": outputs}


def stats_of(model: Model, metrics: Metrics) -> dict[str, Any]:
    """Count what a model has computed, in the part of Triton's statistics that the server knows."""
    rows, batches, seconds = metrics.computed(model.label)
    done = {"count": batches, "ns": round(seconds * 1e9)}
    return {
        "name": model.name,
        "version": str(model.version),
        "inference_count": rows,
        "execution_count": batches,
        "inference_stats": {"compute_infer": done},
    }


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}
