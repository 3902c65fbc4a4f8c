"""Model to file and back: the bundle that is served, its ONNX form, a directory of transformers; each is read back.

An exporter takes a bundle and a folder, writes the model there, compares it with torch and returns the report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle


def _onnx(bundle: Bundle, folder: Path) -> dict[str, Any]:
    from thrifty.export.onnx import export_onnx

    return export_onnx(bundle, folder)


def _hugging_face(bundle: Bundle, folder: Path) -> dict[str, Any]:
    from thrifty.export.hugging_face import export_hugging_face

    return export_hugging_face(bundle, folder)


EXPORTERS: dict[str, Callable[[Bundle, Path], dict[str, Any]]] = {"onnx": _onnx, "hf": _hugging_face}

__all__ = ["EXPORTERS"]
