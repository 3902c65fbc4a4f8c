"""A torch model as a program of ONNX, by torch's own exporter; its numbers of rows and of tokens open."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram

from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.program import quiet, sizes_of
from thrifty.spec import Dataset

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def program_of(
    model: nn.Module, x: Tensor, data: Dataset, *, source: str, targets: Sequence[str], opset: int | None = None
) -> ONNXProgram:
    """Export a model of one input.

    Args:
        model: whose ``forward`` names its argument ``source``, or takes one of any name.
        x: an example of its input.
        data: says which sizes may vary.
        source, targets: names of the input and the outputs.
        opset: of ONNX; the exporter's own when left out.

    Raises:
        MissingExtraError: ``onnx``, ``onnxscript`` or ``onnxruntime`` is not installed.
        BundleError: the model cannot be exported.
    """
    return _exported(
        model,
        (x,),
        input_names=[source],
        output_names=list(targets),
        dynamic_shapes=(sizes_of(data),),
        opset_version=opset,
    )


def program_with_names(traced: ExportedProgram, *, inputs: Sequence[str], outputs: Sequence[str]) -> ONNXProgram:
    """Export a traced program, whose open sizes stay open; names and errors as of `program_of`."""
    return _exported(traced, (), input_names=list(inputs), output_names=list(outputs))


def _exported(model: nn.Module | ExportedProgram, x: tuple[Tensor, ...], **how: Any) -> ONNXProgram:
    require_onnx()
    try:
        with _silent(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(model, x, dynamo=True, verbose=False, **how)
    except Exception as error:  # the exporter raises many kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"this model cannot be exported to ONNX: {reason}", mend="Keep serving the torch bundle."
        ) from error
    assert program is not None
    return program


def require_onnx() -> None:
    """Import what exporting takes.

    Raises:
        MissingExtraError: a package of it is not installed; which.
    """
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingExtraError("exporting to ONNX", package=package, extra="onnx") from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's own progress and advice off stdout and out of the user's log; its errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
