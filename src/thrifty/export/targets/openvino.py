"""OpenVINO: its intermediate representation, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.engines.openvino import core, openvino
from thrifty.export.onnx_program import program_of
from thrifty.export.parity import Outputs
from thrifty.export.program import quiet
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


def _save(origin: Any, source: Source, path: Path) -> dict[str, Any]:
    _convert(origin, path, inputs=(source.input,), outputs=source.outputs)
    return {"openvino": openvino().__version__}


def _convert(origin: Any, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    library = openvino()
    try:
        with quiet():
            model = library.convert_model(origin)
    except Exception as error:  # its frontends raise many kinds of their own
        raise BundleError(f"OpenVINO does not convert it: {' '.join(str(error).split())[:300]}") from error
    for tensors, names in ((model.inputs, inputs), (model.outputs, outputs)):
        for tensor, name in zip(tensors, names, strict=True):
            tensor.get_tensor().set_names({name})
    library.save_model(model, path, compress_to_fp16=False)


def _compiled(path: Path) -> Any:
    try:
        return core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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
    """Compile the representation for this processor, in fp32."""
    compiled = _compiled(path)

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
)
