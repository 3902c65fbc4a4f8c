"""A bundle to ONNX: preprocessing inside the graph, sizes that vary, and parity with torch proved before it is kept.

Shapes: N rows, H × W pixels, C channels, T tokens, V vocabulary.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.errors import BundleError
from thrifty.export.bundle import Bundle, torch_model
from thrifty.export.check import sha256
from thrifty.export.examples import BATCHES, lengths_of, served_example
from thrifty.export.onnx_program import program_of, require_onnx
from thrifty.files import flush_folder, flush_tree, writing
from thrifty.spec import Dataset

TOLERANCE = 1e-4  # both compute in fp32; kernels differ in the order of their sums alone
PARITY = "parity.json"
MODEL = "model.onnx"


class Served(nn.Module):
    """A classifier with its preprocessing: uint8 [N, H, W, C] to ``probabilities`` and ``logits`` [N, K].

    Pixels are scaled to 0..1, then normalised with the statistics of the training split, as in training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Answer images as a client sends them."""
        x_NCHW = pixels.permute(0, 3, 1, 2).float() / 255
        logits = self.model((x_NCHW - self.mean) / self.std)
        return {"probabilities": torch.softmax(logits, dim=1), "logits": logits}


class ServedTexts(nn.Module):
    """A classifier of texts: token numbers int64 [N, T] to ``probabilities`` and ``logits`` [N, K].

    Texts are cut into numbers outside, by the ``tokenizer.json`` of the bundle, and filled up with 0. Where a text may
    have several labels each has a probability by itself.
    """

    def __init__(self, model: nn.Module, *, several: bool = False) -> None:
        super().__init__()
        self.model, self.several = model, several

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Answer token numbers."""
        logits = self.model(tokens)
        probabilities = torch.sigmoid(logits) if self.several else torch.softmax(logits, dim=1)
        return {"probabilities": probabilities, "logits": logits}


class ServedRows(nn.Module):
    """Encoded rows of a table, float32 [N, F], to ``probabilities`` and ``logits`` [N, K], or to ``value`` [N].

    Cells are encoded outside, by the ``bundle.json`` of the bundle.
    """

    units: dict[str, float]

    def __init__(self, model: nn.Module, mean: float, deviation: float, *, labels: bool) -> None:
        super().__init__()
        self.model, self.mean, self.deviation, self.labels = model, mean, deviation, labels
        # what one deviation of each output is
        self.units = {"value": deviation}

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Answer encoded rows."""
        out = self.model(rows)
        if self.labels:
            return {"probabilities": torch.softmax(out, dim=1), "logits": out}
        return {"value": out.flatten() * self.deviation + self.mean}


class ServedTokens(nn.Module):
    """A model that tells tokens under the names of its ONNX form: int64 [N, T] to ``logits`` [N, T, V]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Answer token numbers."""
        return {"logits": self.model(tokens)}


class ServedFrames(nn.Module):
    """A reader of sound under the names of its ONNX form: frames float32 [N, T, M] to ``logits``; a classifier's are
    [N, K], and it answers ``probabilities`` too.

    Sound files become normalised frames outside, as ``bundle.json`` says under ``sound``, and are filled up with -100.
    """

    def __init__(self, model: nn.Module, transcribes: bool) -> None:
        super().__init__()
        self.model, self.transcribes = model, transcribes

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Answer normalised frames."""
        logits = self.model(frames)
        return {"logits": logits} if self.transcribes else {"probabilities": torch.softmax(logits, 1), "logits": logits}


def export_onnx(bundle: Bundle, folder: str | Path) -> dict[str, Any]:
    """Write ``model.onnx`` with dynamic batch (and length), and ``parity.json`` beside it.

    The file is checked by ONNX's own checker, run by ONNX Runtime on batches of 1, 3 and 8 (of tokens at three
    lengths each), and compared with torch; only a file that agrees to `TOLERANCE` is kept.

    Returns:
        The report in ``parity.json``: file, its sha256 and bytes, opset, inputs, outputs, tolerance, and the largest
        absolute difference of each output at each shape.

    Raises:
        MissingExtraError: ``onnx``, ``onnxscript`` or ``onnxruntime`` is not installed.
        BundleError: the model cannot be exported, or the exported one answers otherwise; nothing is left behind.
        StorageError: the folder cannot be written.
    """
    require_onnx()
    folder = Path(folder).absolute()
    with writing(folder, "an ONNX model"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=folder.parent))
        try:
            report = _export(bundle, fresh / MODEL)
            (fresh / PARITY).write_text(json.dumps(report, indent=1), encoding="utf-8")
            flush_tree(fresh)
            folder.mkdir(exist_ok=True)
            # the report last: it holds the hash of the model
            for path in sorted(fresh.iterdir(), key=lambda path: path.name == PARITY):
                path.replace(folder / path.name)
            flush_folder(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return report


def _export(bundle: Bundle, path: Path) -> dict[str, Any]:
    import onnx

    whole = served(bundle)
    opset = _write(whole, bundle, path)
    onnx.checker.check_model(str(path), full_check=True)
    differences, inputs, outputs = _compare(whole, bundle, path)
    worst = max(max(each.values()) for each in differences.values())
    if not worst <= TOLERANCE:  # NaN must fail too
        raise BundleError(
            f"the ONNX form of '{bundle.info.name}' answers otherwise than torch: "
            f"difference {worst:.3g}, over {TOLERANCE:g}",
            mend="Keep serving the torch bundle; this model uses something that the exporter gets wrong.",
        )
    return {
        "model": bundle.info.name,
        "version": bundle.info.version,
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "opset": opset,
        "inputs": inputs,
        "outputs": outputs,
        "tolerance": TOLERANCE,
        "max_abs_difference": worst,
        "differences": differences,
        "torch": torch.__version__,
        "onnxruntime": importlib.import_module("onnxruntime").__version__,
    }


def served(bundle: Bundle) -> nn.Module:
    """Return the model of a bundle as it is served: with its preprocessing, as far as a graph can hold it.

    Raises:
        BundleError: the bundle is computed by another engine than torch.
    """
    return SERVED[bundle.info.data.kind, bundle.info.task](torch_model(bundle), bundle.info.data).eval()


def _served_rows(model: nn.Module, data: Dataset) -> nn.Module:
    assert data.table is not None
    return ServedRows(model, data.table.mean, data.table.deviation, labels=bool(data.labels))


# What is exported of a model, by the kind of its data and its task.
SERVED: dict[tuple[str, str], Callable[[nn.Module, Dataset], nn.Module]] = {
    ("audio", "classify"): lambda model, data: ServedFrames(model, transcribes=False),
    ("audio", "transcribe"): lambda model, data: ServedFrames(model, transcribes=True),
    ("image", "classify"): lambda model, data: Served(model, data.mean, data.std),
    ("table", "classify"): _served_rows,
    ("table", "regress"): _served_rows,
    ("text", "classify"): lambda model, data: ServedTexts(model),
    ("text", "tag"): lambda model, data: ServedTexts(model, several=True),
    ("text", "mask"): lambda model, data: ServedTokens(model),
    ("language", "language"): lambda model, data: ServedTokens(model),
}


def _write(whole: nn.Module, bundle: Bundle, path: Path) -> int:
    x = served_example(bundle.info.data)
    floats = "rows" if x.dim() == 2 else "frames"
    name = {torch.int64: "tokens", torch.float32: floats}.get(x.dtype, "pixels")
    program = program_of(whole, x, bundle.info.data, source=name, targets=tuple(whole(x)))
    program.save(path)
    return int(program.model.opset_imports[""])


def _compare(whole: nn.Module, bundle: Bundle, path: Path) -> tuple[dict[str, dict[str, float]], Any, Any]:
    """Largest absolute difference of each output, by the shape of the input; of numbers told, in their deviations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its warnings go to stderr past Python
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    units: dict[str, float] = getattr(whole, "units", {})
    differences: dict[str, dict[str, float]] = {}
    for rows in BATCHES:
        for length in lengths_of(bundle.info.data):
            example = served_example(bundle.info.data, rows, length)
            with torch.inference_mode():
                expected = whole(example)
            try:
                found = session.run(list(expected), {source.name: example.numpy()})
            except Exception as error:  # onnxruntime's own kinds; a size that was frozen ends here
                raise BundleError(f"the ONNX form does not take the shape {list(example.shape)}: {error}") from error
            differences[" x ".join(map(str, example.shape))] = {
                name: _difference(value, expected[name].numpy()) / units.get(name, 1.0)
                for name, value in zip(expected, found, strict=True)
            }
    inputs = [{"name": source.name, "type": source.type, "shape": source.shape}]
    outputs = [{"name": each.name, "type": each.type, "shape": each.shape} for each in session.get_outputs()]
    return differences, inputs, outputs


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
