"""Files for the runtimes of others: each is read back there and compared with torch before it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thrifty.export.targets.served import Source

__all__ = ["OF_ENGINE", "READ_BY", "TARGETS"]


def _onnx(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.onnx import TARGET
    from thrifty.export.targets.target import export_to

    return export_to(TARGET, source, folder)


def _torch(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.target import export_to
    from thrifty.export.targets.torch import TARGET

    return export_to(TARGET, source, folder)


def _aoti(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.aoti import TARGET
    from thrifty.export.targets.target import export_to

    return export_to(TARGET, source, folder)


def _openvino(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.openvino import TARGET
    from thrifty.export.targets.target import export_to

    return export_to(TARGET, source, folder)


def _saved_model(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.savedmodel import TARGET
    from thrifty.export.targets.target import export_to

    return export_to(TARGET, source, folder)


def _litert(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.targets.litert import TARGET
    from thrifty.export.targets.target import export_to

    return export_to(TARGET, source, folder)


def _hugging_face(source: Source, folder: Path) -> dict[str, Any]:
    from thrifty.export.hugging_face import export_hugging_face

    return export_hugging_face(source.bundle, folder)


# Each writes a bundle's model into a folder, compares it with torch and returns the report.
TARGETS: dict[str, Callable[[Source, Path], dict[str, Any]]] = {
    "onnx": _onnx,
    "torch": _torch,
    "aoti": _aoti,
    "openvino": _openvino,
    "litert": _litert,
    "savedmodel": _saved_model,
    "hf": _hugging_face,
}

# What a bundle can be written as, by what computes it: an engine's own graph goes to its own runtime alone.
OF_ENGINE: dict[str, tuple[str, ...]] = {
    "torch": tuple(TARGETS),
    "openvino": ("openvino",),
    "onnx": ("onnx",),
    "aoti": (),
}

# How what was written is read, in Python, by who has its runtime.
READ_BY = {
    "onnx": "onnxruntime.InferenceSession('{path}')",
    "torch": "torch.export.load('{path}').module()",
    "aoti": "torch._inductor.aoti_load_package('{path}')",
    "openvino": "openvino.Core().compile_model('{path}', 'CPU')",
    "litert": "ai_edge_litert.interpreter.Interpreter('{path}').get_signature_runner()",
    "savedmodel": "tensorflow.saved_model.load('{folder}').signatures['serving_default']",
    "hf": "transformers.AutoModel.from_pretrained('{folder}')",
}
