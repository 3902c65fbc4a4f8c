"""ONNX Runtime: a model as an ONNX graph from its tensor to its logits, optimised for this processor when loaded.

Shapes: those of the model, N rows first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.engines.engine import Computed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from thrifty.spec import BundleInfo, Dataset

GRAPH = "model.onnx"


def convert(model: nn.Module, data: Dataset) -> Any:
    """Make an ``onnx.ModelProto`` of a torch model, its numbers of rows and tokens open.

    Raises:
        MissingExtraError: ``onnx`` or ``onnxscript`` is not installed.
        BundleError: the model cannot be converted.
    """
    from thrifty.export.examples import example
    from thrifty.export.onnx_program import program_of

    return program_of(model, example(data), data, source="x", targets=("logits",)).model_proto


def save(form: Any, folder: Path, precision: str) -> None:
    """Write an ``onnx.ModelProto`` with its weights in it, which is as much as one such file can hold: 2 GiB."""
    try:
        content = form.SerializeToString()
    except ValueError as error:  # google.protobuf has a kind of its own for this
        raise BundleError(
            f"the ONNX form does not fit in one file: {error}", mend="Take another engine, such as openvino."
        ) from None
    (folder / GRAPH).write_bytes(content)


def load(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    """Read the form; weights that it would have outside of the bundle's folder are refused.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the form is not one.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("a bundle computed by ONNX Runtime", package="onnxruntime", extra="onnx") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its warnings go to stderr past Python
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds are generated and have no common one
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"ONNX Runtime cannot read '{folder / GRAPH}': {reason}", mend="Write it again.") from None
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name

    def compute(x: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run([target], {source: x})[0]
        return found

    return Computed(compute)
