"""ONNX: one file with preprocessing inside, checked by ONNX's own checker and read back by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.engines.onnx import GRAPH
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
    program = program_of(
        source.module, source.x, source.bundle.info.data, source=source.input, targets=source.outputs, opset=opset
    )
    program.save(path)
    return _checked(path) | {"opset": int(program.model.opset_imports[""])}


def _save_own(source: Source, path: Path) -> dict[str, Any]:
    """Put what is done before and after around the graph that computes the bundle."""
    import onnx

    data = source.bundle.info.data
    own = onnx.load(source.bundle.folder / GRAPH)
    opset = next(each.version for each in own.opset_import if each.domain in ("", "ai.onnx"))
    parts = [own]
    if source.before is not None:
        before = program_of(source.before, source.x, data, source="x", targets=("y",), opset=opset)
        parts.insert(0, before.model_proto)
    after = program_of(source.after, source.logits, data, source="logits", targets=source.outputs, opset=opset)
    parts.append(after.model_proto)
    for number, part in enumerate(parts):
        part.ir_version = own.ir_version
        onnx.compose.add_prefix(part, f"{number}/", rename_functions=False, inplace=True)
    joined = parts[0]
    for part in parts[1:]:
        given, taken = joined.graph.output[0].name, part.graph.input[0].name
        joined = onnx.compose.merge_models(joined, part, io_map=[(given, taken)])
    last = f"{len(parts) - 1}/"
    _rename(joined.graph, {joined.graph.input[0].name: source.input, **{last + name: name for name in source.outputs}})
    onnx.save(joined, path)
    return _checked(path) | {"opset": int(opset)}


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Give edges of a graph other names; none is of an inner graph."""
    for each in (*graph.input, *graph.output):
        each.name = names.get(each.name, each.name)
    for node in graph.node:
        for edges in (node.input, node.output):
            edges[:] = [names.get(each, each) for each in edges]


def _checked(path: Path) -> dict[str, Any]:
    """Have ONNX's own checker read a file; returns its inputs and outputs."""
    import onnx

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
    return dict(tensors)


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
    own={"onnx": Route("ONNX Runtime's own graph of the bundle", _save_own)},
    decoder_file="decoder.onnx",
)
