"""Model to file and back: the bundle that is served, and its ONNX form; each is read back before it is trusted.

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


EXPORTERS: dict[str, Callable[[Bundle, Path], dict[str, Any]]] = {"onnx": _onnx}

__all__ = ["EXPORTERS"]
