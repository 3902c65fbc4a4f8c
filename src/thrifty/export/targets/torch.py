"""torch.export: one ``.pt2`` file that torch loads without this package, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thrifty.export.parity import Outputs
from thrifty.export.program import quiet
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target

FILE = "model.pt2"


def _write(source: Source, path: Path) -> dict[str, Any]:
    with quiet():
        torch.export.save(source.program, path)
    return {}


def _write_unguarded(source: Source, path: Path) -> dict[str, Any]:
    """Leave out what the tracer concluded of the example's length: that it is odd, say, where nothing hangs on that."""
    program: Any = source.program
    guards, program._guards_code = program._guards_code, []
    try:
        return _write(source, path)
    finally:
        program._guards_code = guards


def _write_core(source: Source, path: Path) -> dict[str, Any]:
    with quiet():
        torch.export.save(source.program.run_decompositions(), path)
    return {}


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Load the program as its users will: ``torch.export.load(path).module()``."""
    with quiet():
        module = torch.export.load(path).module()

    def answer(x: Tensor) -> Outputs:
        with torch.no_grad():
            return {name: value.numpy() for name, value in module(x).items()}

    return answer


TARGET = Target(
    says="a program of torch.export",
    file=FILE,
    routes=(
        Route("torch.export", _write),
        Route("torch.export without guards of sizes", _write_unguarded),
        Route("torch.export, core operators", _write_core),
    ),
    read=read,
    traced=True,
)
