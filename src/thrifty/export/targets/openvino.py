"""OpenVINO: its intermediate representation, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.engines.openvino import GRAPH, HINTS, core, openvino
from thrifty.export.onnx_program import program_of
from thrifty.export.parity import Outputs
from thrifty.export.program import quiet, traced
from thrifty.export.targets.decoder import INPUTS, OUTPUTS, Step
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target

FILE = "model.xml"


def _from_torch(source: Source, path: Path) -> dict[str, Any]:
    return _save(source.program, source, path)


def _from_onnx(source: Source, path: Path) -> dict[str, Any]:
    program = program_of(source.module, source.x, source.bundle.info.data, source=source.input, targets=source.outputs)
    between = path.with_suffix(".onnx")
    program.save(between)
    try:
        return _save(between, source, path)
    finally:
        for each in path.parent.glob(f"{between.name}*"):
            each.unlink()


def _from_own(source: Source, path: Path) -> dict[str, Any]:
    """Put what is done before and after around the graph that computes the bundle."""
    library, data = openvino(), source.bundle.info.data
    parts = [core().read_model(source.bundle.folder / GRAPH)]
    with quiet():
        if source.before is not None:
            parts.insert(0, library.convert_model(traced(source.before, source.x, data)))
        parts.append(library.convert_model(traced(source.after, source.logits, data)))
    for first, second in pairwise(parts):
        given = first.get_results()[0].input_value(0)
        for taken in second.get_parameters()[0].output(0).get_target_inputs():
            taken.replace_source_output(given)
    model = library.Model(parts[-1].get_results(), parts[0].get_parameters(), "model")
    return _save_model(model, path, inputs=(source.input,), outputs=source.outputs)


def _save(origin: Any, source: Source, path: Path) -> dict[str, Any]:
    return _convert(origin, path, inputs=(source.input,), outputs=source.outputs)


def _convert(origin: Any, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    library = openvino()
    try:
        with quiet():
            model = library.convert_model(origin)
    except Exception as error:  # its frontends raise many kinds of their own
        raise BundleError(f"OpenVINO does not convert it: {' '.join(str(error).split())[:300]}") from error
    return _save_model(model, path, inputs=inputs, outputs=outputs)


def _save_model(model: Any, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    for tensors, names in ((model.inputs, inputs), (model.outputs, outputs)):
        for tensor, name in zip(tensors, names, strict=True):
            tensor.get_tensor().set_names({name})
    openvino().save_model(model, path, compress_to_fp16=False)
    return {"openvino": openvino().__version__}


def _compiled(path: Path, precision: str = "fp32") -> Any:
    try:
        return core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    except RuntimeError as error:
        raise BundleError(f"OpenVINO does not compile it: {' '.join(str(error).split())[:300]}") from error


def _write_decoder(program: ExportedProgram, path: Path) -> Step:
    _convert(program, path, inputs=INPUTS, outputs=OUTPUTS)
    compiled = _compiled(path)

    def step(*read: NDArray[Any]) -> list[NDArray[Any]]:
        found = compiled(dict(zip(INPUTS, read, strict=True)))
        return [found[name] for name in OUTPUTS]

    return step


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Compile the representation for this processor: in fp32, or as the engine computes whose own graph it is."""
    info = source.bundle.info
    compiled = _compiled(path, "fp32" if info.engine == "torch" else info.precision)

    def answer(x: Tensor) -> Outputs:
        found = compiled({source.input: x.numpy()})
        return {name: found[name] for name in source.outputs}

    return answer


def _require() -> None:
    openvino()


TARGET = Target(
    says="OpenVINO's representation",
    file=FILE,
    routes=(Route("OpenVINO on torch.export", _from_torch), Route("OpenVINO on ONNX", _from_onnx)),
    read=read,
    require=_require,
    decoder=_write_decoder,
    own={"openvino": Route("OpenVINO's own graph of the bundle", _from_own)},
    decoder_file="decoder.xml",
)
