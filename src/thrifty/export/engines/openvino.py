"""OpenVINO: a model as its intermediate representation, compiled for this processor when loaded and kept compiled.

Shapes: those of the model, N rows first.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import thrifty.export.engines.signal_stack as signal_stack
from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.engines.engine import Computed
from thrifty.spec.folders import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from thrifty.spec import BundleInfo, Dataset

GRAPH, WEIGHTS = "model.xml", "model.bin"
# how what is not quantised is computed; bf16 is rounded to, not asked of an int8 model that was judged without it
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def convert(model: nn.Module, data: Dataset) -> Any:
    """Make an ``openvino.Model`` of a torch model, its numbers of rows and tokens open.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleError: the model cannot be converted.
    """
    library = openvino()
    from thrifty.export.examples import example
    from thrifty.export.program import quiet, traced

    program = traced(model, example(data), data)
    try:
        with quiet():
            return library.convert_model(program)
    except Exception as error:  # its frontends raise many kinds of their own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"this model cannot be converted to OpenVINO: {reason}", mend="Keep serving the torch bundle."
        ) from error


def save(form: Any, folder: Path, precision: str) -> None:
    """Write an ``openvino.Model``; weights that are rounded when they are computed with take half the room."""
    openvino().save_model(form, folder / GRAPH, compress_to_fp16=precision == "bf16")


def load(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    """Compile the form for this processor, or take what was compiled of it before from the cache folder.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleError: the form is not one.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[info.precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = _compiled(folder / GRAPH, settings)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"OpenVINO cannot read '{folder / GRAPH}': {reason}", mend="Write it again.") from None
    request = compiled.create_infer_request()

    def compute(x: NDArray[Any]) -> NDArray[np.float32]:
        # what is shared lies in memory that the next call writes over
        found: NDArray[np.float32] = request.infer([x], share_inputs=True, share_outputs=False)[0]
        return found

    return Computed(compute)


def _compiled(path: Path, settings: dict[str, Any]) -> Any:
    """Compile, or take what was compiled before; it is kept with its weights.

    Kept without them (``OPTIMIZE_SIZE``) models of tables and of speech come back with a constant lost, and answer
    nothing (OpenVINO 2026.4).
    """
    kept = {"CACHE_DIR": str(cache_folder() / "openvino-whole"), "CACHE_MODE": "OPTIMIZE_SPEED"}
    with contextlib.suppress(RuntimeError):  # where nothing can be kept, too
        return core().compile_model(path, "CPU", settings | kept)
    return core().compile_model(path, "CPU", settings)


def openvino() -> Any:
    """Import OpenVINO, which sends nothing from here.

    It would report its use to its makers unless they were told not to; None in the place of what does so makes that
    fail to import, as if it were not installed, and OpenVINO and NNCF do without.

    Raises:
        MissingExtraError: it is not installed.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("a bundle computed by OpenVINO", package="openvino", extra="openvino") from None
    return openvino


@functools.cache
def core() -> Any:
    """Return what finds devices and compiles for them, one for the process: each more would load its plugin again.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    with signal_stack.kept():
        made = openvino().Core()
        made.get_versions("CPU")  # loads the plugin
    return made
