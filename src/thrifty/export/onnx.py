"""A bundle to ONNX: preprocessing inside the graph, sizes that vary, and parity with torch proved before it is kept.

Shapes: N rows, H × W pixels, C channels, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.bundle import Bundle
from thrifty.export.check import sha256
from thrifty.files import flush_folder, flush_tree, writing
from thrifty.models.speech import PADDING
from thrifty.spec import KINDS, Dataset, KindName

TOLERANCE = 1e-4  # both compute in fp32; kernels differ in the order of their sums alone
PARITY = "parity.json"
MODEL = "model.onnx"
_BATCHES = (1, 3, 8)
_SEED = 0


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
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingExtraError("exporting to ONNX", package=package, extra="onnx") from None
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

    served = SERVED[bundle.info.data.kind, bundle.info.task](bundle).eval()
    opset = _write(served, _example(bundle), path)
    onnx.checker.check_model(str(path), full_check=True)
    differences, inputs, outputs = _compare(served, bundle, path)
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


def _served_rows(bundle: Bundle) -> nn.Module:
    table = bundle.info.data.table
    assert table is not None
    return ServedRows(bundle.model, table.mean, table.deviation, labels=bool(bundle.info.data.labels))


# What is exported of a bundle, by the kind of its data and its task.
SERVED: dict[tuple[str, str], Callable[[Bundle], nn.Module]] = {
    ("audio", "classify"): lambda bundle: ServedFrames(bundle.model, transcribes=False),
    ("audio", "transcribe"): lambda bundle: ServedFrames(bundle.model, transcribes=True),
    ("image", "classify"): lambda bundle: Served(bundle.model, bundle.info.data.mean, bundle.info.data.std),
    ("table", "classify"): _served_rows,
    ("table", "regress"): _served_rows,
    ("text", "classify"): lambda bundle: ServedTexts(bundle.model),
    ("text", "tag"): lambda bundle: ServedTexts(bundle.model, several=True),
    ("text", "mask"): lambda bundle: ServedTokens(bundle.model),
    ("language", "language"): lambda bundle: ServedTokens(bundle.model),
}


def _example(bundle: Bundle, rows: int = 3, length: int | None = None) -> Tensor:
    """Random input of the model's kind; neither 1 nor 2 rows when exporting, for those sizes specialise."""
    generator = torch.Generator().manual_seed(_SEED)
    data = bundle.info.data
    return EXAMPLES[data.kind](data, rows, length or (_lengths(bundle)[1] if _has_length(data) else 0), generator)


def _has_length(data: Dataset) -> bool:
    """Whether inputs have a length that may vary."""
    return KINDS[data.kind].tokenized or KINDS[data.kind].varies


def _pixels(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    channels, height, width = data.shape
    return torch.randint(256, (rows, height, width, channels), dtype=torch.uint8, generator=generator)


def _frames(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    frames = torch.randn(rows, length, data.shape[1], generator=generator)
    ends = torch.randint(1, length + 1, (rows, 1, 1), generator=generator)
    return frames.where(torch.arange(length)[:, None] < ends, PADDING)


def _rows(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    table = data.table
    assert table is not None
    numbers = torch.rand((rows, table.numbers), generator=generator)
    return torch.cat([numbers, torch.randint(data.vocabulary, (rows, table.codes), generator=generator).float()], 1)


def _tokens(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(data.vocabulary, (rows, length), generator=generator)


def _padded(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    tokens = _tokens(data, rows, length, generator)
    # rows of several lengths: what follows is padding, the first token never is
    ends = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return tokens.clamp(min=1) * (torch.arange(length) < ends)


EXAMPLES: dict[KindName, Callable[[Dataset, int, int, torch.Generator], Tensor]] = {
    "audio": _frames,
    "image": _pixels,
    "language": _tokens,
    "table": _rows,
    "text": _padded,
}


def _lengths(bundle: Bundle) -> tuple[int, int, int]:
    """Three token counts: the least, some, and the whole context."""
    longest = bundle.info.data.shape[0]
    return (1, longest // 2 + 1, longest)


def _write(served: nn.Module, example: Tensor, path: Path) -> int:
    floats = "rows" if example.dim() == 2 else "frames"
    name = {torch.int64: "tokens", torch.float32: floats}.get(example.dtype, "pixels")
    varies = name in {"tokens", "frames"}
    dynamic = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("length")} if varies else {})
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(
                served,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[name],
                output_names=list(served(example)),
                dynamic_shapes={name: dynamic},
            )
            assert program is not None
            program.save(path)
    except Exception as error:  # the exporter raises many kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"this model cannot be exported to ONNX: {reason}", mend="Keep serving the torch bundle."
        ) from error
    return int(program.model.opset_imports[""])


def _compare(served: nn.Module, bundle: Bundle, path: Path) -> tuple[dict[str, dict[str, float]], Any, Any]:
    """Largest absolute difference of each output, by the shape of the input; of numbers told, in their deviations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its warnings go to stderr past Python
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    lengths: tuple[int | None, ...] = _lengths(bundle) if _has_length(bundle.info.data) else (None,)
    units: dict[str, float] = getattr(served, "units", {})
    differences: dict[str, dict[str, float]] = {}
    for rows in _BATCHES:
        for length in lengths:
            example = _example(bundle, rows, length)
            with torch.inference_mode():
                expected = served(example)
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress and advice off stdout and out of the user's log; its errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # copyreg and onnxscript call what torch itself has deprecated; nothing a user could mend
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
