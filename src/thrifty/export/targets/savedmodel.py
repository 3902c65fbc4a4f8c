"""A TensorFlow SavedModel, preprocessing inside: torch's core operators one by one as TensorFlow's, by a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from thrifty.export.arrays import pack, unpack
from thrifty.export.check import sha256
from thrifty.export.other_python import python_with_tensorflow, tensorflow
from thrifty.export.parity import Outputs
from thrifty.export.steps import STEPS, WEIGHTS, write_steps
from thrifty.export.targets.decoder import INPUTS, OUTPUTS, Step
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target

FILE = "saved_model.pb"


def write_saved_model(
    program: ExportedProgram, folder: Path, *, inputs: Sequence[str], outputs: Sequence[str], lite: bool = False
) -> dict[str, Any]:
    """Write a traced program as a SavedModel that answers ``serving_default``, and return facts about it.

    Args:
        program: traced.
        folder: where to.
        inputs, outputs: names, in the program's order.
        lite: it is to become a LiteRT file.

    Raises:
        MissingExtraError: there is no TensorFlow.
        BundleError: it cannot be written; why.
    """
    with tempfile.TemporaryDirectory(prefix="thrifty-steps-") as scratch:
        write_steps(program, Path(scratch), inputs=inputs, outputs=outputs)
        paths = {"steps": f"{scratch}/{STEPS}", "weights": f"{scratch}/{WEIGHTS}", "folder": str(folder)}
        made = tensorflow().ask("write", **paths, lite=lite)
    files = {str(each.relative_to(folder)): sha256(each) for each in sorted(folder.rglob("*")) if each.is_file()}
    return {"signature": "serving_default", "tensorflow": made["tensorflow"], "files": files}


def _write(source: Source, path: Path) -> dict[str, Any]:
    return write_saved_model(source.program, path.parent, inputs=(source.input,), outputs=source.outputs)


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Read a SavedModel by TensorFlow."""

    def answer(x: Tensor) -> Outputs:
        return ask_saved_model(path.parent, {source.input: x.numpy()})

    return answer


def ask_saved_model(folder: Path, inputs: dict[str, NDArray[Any]]) -> Outputs:
    """Load a SavedModel from its files by TensorFlow, at the first, and ask its ``serving_default``.

    Raises:
        BundleError: TensorFlow refuses it; why.
    """
    packed = {name: pack(each) for name, each in inputs.items()}
    found = tensorflow().ask("answer", folder=str(folder), inputs=packed)["outputs"]
    return {name: unpack(each) for name, each in found.items()}


def _write_decoder(program: ExportedProgram, path: Path) -> Step:
    write_saved_model(program, path.parent, inputs=INPUTS, outputs=OUTPUTS)

    def step(*read: NDArray[Any]) -> list[NDArray[Any]]:
        found = ask_saved_model(path.parent, dict(zip(INPUTS, read, strict=True)))
        return [found[name] for name in OUTPUTS]

    return step


def _require() -> None:
    python_with_tensorflow()


TARGET = Target(
    says="a TensorFlow SavedModel",
    file=FILE,
    routes=(Route("core operators of torch.export by TensorFlow's", _write),),
    read=read,
    require=_require,
    decoder=_write_decoder,
    decoder_file=f"decoder/{FILE}",
)
