"""ONNX: one file with preprocessing inside, checked by ONNX's own checker and read back by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.onnx_program import program_of, program_with_names, require_onnx
from thrifty.export.parity import Outputs
from thrifty.export.targets.decoder import INPUTS, OUTPUTS, Step
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target

FILE = "model.onnx"
# the newest of the exporter comes first; runtimes of some years ago end at 18
_OLDER_OPSET = 18


def _write(source: Source, path: Path) -> dict[str, Any]:
    return _save(source, path, opset=None)


def _write_older(source: Source, path: Path) -> dict[str, Any]:
    return _save(source, path, opset=_OLDER_OPSET)


def _save(source: Source, path: Path, *, opset: int | None) -> dict[str, Any]:
    import onnx

    program = program_of(
        source.module, source.x, source.bundle.info.data, source=source.input, targets=source.outputs, opset=opset
    )
    program.save(path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker and shape inference raise kinds of their own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"ONNX's checker refuses it: {reason}") from error
    session = session_of(path)
    sides = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    tensors = {
        side: [{"name": each.name, "type": each.type, "shape": each.shape} for each in found]
        for side, found in sides.items()
    }
    return {"opset": int(program.model.opset_imports[""]), **tensors}


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Read an ONNX file by ONNX Runtime."""
    session = session_of(path)
    names = [each.name for each in session.get_outputs()]

    def answer(x: Tensor) -> Outputs:
        return dict(zip(names, session.run(names, {source.input: x.numpy()}), strict=True))

    return answer


def session_of(path: Path) -> Any:
    """Open a file with ONNX Runtime on the CPU.

    Raises:
        BundleError: it cannot be read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its warnings go to stderr past Python
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds are generated and have no common one
        raise BundleError(f"ONNX Runtime cannot read it: {' '.join(str(error).split())[:300]}") from error


def _write_decoder(program: ExportedProgram, path: Path) -> Step:
    program_with_names(program, inputs=INPUTS, outputs=OUTPUTS).save(path)
    session = session_of(path)
    return lambda *read: session.run(list(OUTPUTS), dict(zip(INPUTS, read, strict=True)))


TARGET = Target(
    says="ONNX",
    file=FILE,
    routes=(
        Route("torch.onnx on torch.export", _write),
        Route(f"torch.onnx on torch.export, opset {_OLDER_OPSET}", _write_older),
    ),
    read=read,
    require=require_onnx,
    decoder=_write_decoder,
)
