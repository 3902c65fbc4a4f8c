"""What computes a bundle: torch, or a form of the model that another runtime has made its own.

Forms, servers and the guard know no engine: what `load` returns is called as a torch model is. Nothing of an engine is
imported before it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.export.engines.engine import Computed, Engine, compute_of

if TYPE_CHECKING:
    from torch import nn

    from thrifty.spec import BundleInfo, Dataset

__all__ = ["ENGINES", "WEIGHTS", "Computed", "Engine", "compute_of"]

WEIGHTS = "model.safetensors"
_GIB = 2**30


def _keep(model: nn.Module, data: Dataset) -> nn.Module:
    return model


def _save_torch(model: nn.Module, folder: Path, precision: str) -> None:
    from thrifty.export.weights import save

    if precision == "int8":
        from thrifty.models.quantised import whole_names

        save(model, folder / WEIGHTS, whole=whole_names(model))
        return
    save(_in_bf16(model) if precision == "bf16" else model, folder / WEIGHTS)


def _load_torch(folder: Path, info: BundleInfo, threads: int | None) -> nn.Module:
    from thrifty.export.weights import load

    if info.precision == "int8":
        return _load_int8(folder, info)
    model = load(info.model, folder / WEIGHTS)
    return _in_bf16(model) if info.precision == "bf16" else model


def _load_int8(folder: Path, info: BundleInfo) -> nn.Module:
    from thrifty.errors import BundleError
    from thrifty.export.weights import load
    from thrifty.export.writing import can_write_in_int8
    from thrifty.models.quantised import quantised

    if not can_write_in_int8(info):
        raise BundleError(
            f"'{info.name}' is of the family '{info.model.family}', which torch has no form in int8 of",
            mend="Write it again from its run, in fp32.",
        )
    return quantised(load(info.model, folder / WEIGHTS, whole=True))


def _in_bf16(model: nn.Module) -> nn.Module:
    """Give a model of the same weights rounded to bf16; the one that is given keeps its own."""
    import copy

    import torch

    return copy.deepcopy(model).to(torch.bfloat16)


def _convert_openvino(model: nn.Module, data: Dataset) -> Any:
    from thrifty.export.engines.openvino import convert

    return convert(model, data)


def _save_openvino(form: Any, folder: Path, precision: str) -> None:
    from thrifty.export.engines.openvino import save

    save(form, folder, precision)


def _load_openvino(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    from thrifty.export.engines.openvino import load

    return load(folder, info, threads)


def _convert_onnx(model: nn.Module, data: Dataset) -> Any:
    from thrifty.export.engines.onnx import convert

    return convert(model, data)


def _save_onnx(form: Any, folder: Path, precision: str) -> None:
    from thrifty.export.engines.onnx import save

    save(form, folder, precision)


def _load_onnx(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    from thrifty.export.engines.onnx import load

    return load(folder, info, threads)


def _convert_aoti(model: nn.Module, data: Dataset) -> Any:
    from thrifty.export.engines.aoti import convert

    return convert(model, data)


def _save_aoti(form: Any, folder: Path, precision: str) -> None:
    from thrifty.export.engines.aoti import save

    save(form, folder, precision)


def _load_aoti(folder: Path, info: BundleInfo, threads: int | None) -> Computed:
    from thrifty.export.engines.aoti import load

    return load(folder, info, threads)


ENGINES: dict[str, Engine] = {
    "torch": Engine(
        says="torch, as the model was trained",
        files={WEIGHTS: 1024 * _GIB},
        precisions=("fp32", "bf16", "int8"),
        convert=_keep,
        save=_save_torch,
        load=_load_torch,
    ),
    "openvino": Engine(
        says="OpenVINO: quickest on most processors, and starts without torch",
        files={"model.xml": _GIB // 4, "model.bin": 1024 * _GIB},
        precisions=("fp32", "bf16", "int8"),
        convert=_convert_openvino,
        save=_save_openvino,
        load=_load_openvino,
    ),
    "onnx": Engine(
        says="ONNX Runtime: on every processor, and starts without torch",
        files={"model.onnx": 2 * _GIB},
        precisions=("fp32", "int8"),
        convert=_convert_onnx,
        save=_save_onnx,
        load=_load_onnx,
    ),
    "aoti": Engine(
        says="native code that torch compiled for this processor",
        files={"model.pt2": 1024 * _GIB},
        precisions=("fp32", "int8"),
        convert=_convert_aoti,
        save=_save_aoti,
        load=_load_aoti,
    ),
}
