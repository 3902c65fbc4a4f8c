"""AOTInductor: one package of native code for processors like this one, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thrifty.export.engines.aoti import compile_package, loader_of
from thrifty.export.parity import Outputs
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target
from thrifty.hardware.probe import instruction_sets

FILE = "model.pt2"


def _write(source: Source, path: Path) -> dict[str, Any]:
    compile_package(source.program, path)
    return {"isa": instruction_sets(), "outputs": source.outputs}


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Load the package directly: outputs come in the order of the model's."""
    loader = loader_of(path)

    def answer(x: Tensor) -> Outputs:
        with torch.inference_mode():
            found = loader.boxed_run([x])
        return {name: value.numpy() for name, value in zip(source.outputs, found, strict=True)}

    return answer


TARGET = Target(
    says="a package of AOTInductor",
    file=FILE,
    routes=(Route("AOTInductor on torch.export", _write),),
    read=read,
    traced=True,
)
