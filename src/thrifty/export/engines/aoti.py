"""AOTInductor: a model compiled to native code for this processor, loaded at once and without a compiler.

A package is native code, which may do anything: only one that this user wrote, or says to trust, is loaded.
Shapes: those of the model, N rows first.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError
from thrifty.export.engines.engine import Computed
from thrifty.files import write_atomic
from thrifty.spec.folders import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from thrifty.spec import BundleInfo, Dataset

PACKAGE = "model.pt2"
TRUSTED = "THRIFTY_TRUSTED_PACKAGES"


def convert(model: nn.Module, data: Dataset) -> Any:
    """Trace a model for the compiler: a ``torch.export.ExportedProgram``.

    Raises:
        BundleError: the model cannot be traced.
    """
    from thrifty.export.examples import example
    from thrifty.export.program import traced

    return traced(model, example(data), data)


def save(form: Any, folder: Path, precision: str) -> None:
    """Compile a traced program with the C++ compiler of this machine, and remember that this user wrote it.

    Raises:
        BundleError: it does not compile.
    """
    compile_package(form, folder / PACKAGE, frozen=precision == "int8")


def compile_package(program: Any, path: Path, *, frozen: bool = False) -> None:
    """Compile a traced program into a package of AOTInductor, and remember that this user wrote it.

    Args:
        program: traced.
        path: of the package.
        frozen: its weights are constants to the compiler: else what is quantised is computed in floats, without a word
            (torchao issue 4566).
    """
    import torch

    from thrifty.export.program import quiet

    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True} if frozen else None
            )
    except Exception as error:  # the compiler raises many kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"this model cannot be compiled: {reason}", mend="Take another engine.") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomic(cache_folder() / "aoti" / digest, f"{path.name}\n", purpose="which packages were written here")


def load(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    """Load the package.

    Raises:
        BundleError: it is not known to be this user's, or is made for another processor, or does not load.
    """
    return load_package(folder / PACKAGE, info.files[PACKAGE], info.isa)


def load_package(path: Path, digest: str, isa: tuple[str, ...]) -> Computed:
    """Load a package of known sha256, made on a processor with the instruction sets ``isa``."""
    from thrifty.export.engines.isa import missing

    named = {each.strip() for each in os.environ.get(TRUSTED, "").split(",")}
    if digest not in named and not (digest.isalnum() and (cache_folder() / "aoti" / digest).is_file()):
        raise BundleError(
            f"'{path}' is native code that was not written here",
            mend=f"Write it on this machine, or trust it: {TRUSTED}={digest}.",
        )
    if lacking := missing(isa):
        raise BundleError(
            f"'{path}' is made for a processor with {', '.join(lacking)}, which this one has not",
            mend="Write it on this machine from the bundle of its run.",
        )
    import torch

    loader = loader_of(path)

    def compute(x: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = loader.boxed_run([torch.from_numpy(x)])[0].numpy()
        return found

    return Computed(compute)


def loader_of(path: Path) -> Any:
    """Open a package; what it holds is trusted.

    The loader is made directly: ``torch._inductor.aoti_load_package`` first looks for a compiler to fill in a field
    that nobody reads, for seconds on a machine that has just started (pytorch issue 191715).

    Raises:
        BundleError: it does not load.
    """
    import torch

    try:
        return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"'{path}' does not load: {reason}", mend="Write it again on this machine.") from None
