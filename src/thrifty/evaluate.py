"""Evaluate: a model and held-out data in, the metrics of the task out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.errors import DataError
from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSSES, cross_entropy, cross_entropy_sum
from thrifty.models.precision import autocasting

# the standard normal's 97.5 % quantile: 95 % lie within
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: of ``classify``: ``accuracy`` with the bounds ``accuracy_low`` and ``accuracy_high`` (95 %), ``loss``
            (nats a sample), ``samples``. Of ``language``: ``loss`` (nats a token), ``perplexity``, ``tokens``, and
            ``bits_per_byte`` where the bytes of the text are known.
        confusion: samples by true label (row) and answer (column); empty for ``language``.
    """

    metrics: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]


def wilson(right: int, samples: int) -> tuple[float, float]:
    """Bounds within which the true share lies, 95 times in 100 (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, z2 = right / samples, Z_95**2
    middle = share + z2 / (2 * samples)
    half = Z_95 * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2))
    scale = 1 + z2 / samples
    # rounding must not push a bound past the share itself, nor past 0 and 1
    return max(min((middle - half) / scale, share), 0.0), min(max((middle + half) / scale, share), 1.0)


def evaluate(
    model: nn.Module,
    batches: Iterable[Mapping[str, np.ndarray]],
    task: str,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    memory_format: str = "contiguous",
    text_bytes: int = 0,
    add_up: Callable[[np.ndarray], np.ndarray] = lambda sums: sums,
    inference: bool = True,
) -> Evaluation:
    """Run a model over batches in ``eval`` mode; it is left in the mode it was in.

    Args:
        model: already on the device.
        batches: of ``x`` and ``y``, as for training; one without ``y`` is computed and not counted.
        task: ``classify`` or ``language``.
        device: ``cpu`` or ``cuda``.
        precision: as in a `Plan`.
        memory_format: of images.
        text_bytes: bytes of the raw text that the tokens stand for; 0 when not known.
        add_up: sums over the ranks that measure a part each; all get the figures of the whole.
        inference: whether tensors made here are never trained with; weights that ranks gather are kept and may be.

    Raises:
        DataError: there was nothing to evaluate.
    """
    assert task in LOSSES, task
    measured = _Classified() if task == "classify" else _Predicted(text_bytes)
    training = model.training
    model.eval()
    try:
        # in this order: where it is off, inference mode turns gradients on
        with torch.inference_mode(inference), torch.no_grad(), autocasting(device, precision):
            for arrays in batches:
                measured.add(model, to_tensors(arrays, device, memory_format))
    finally:
        model.train(training)
    measured.take(add_up(measured.sums()))
    if not measured.count:
        raise DataError("there are no samples to evaluate on", mend="Hold out more: data.split.")
    return measured.evaluation()


class _Classified:
    """Sums over images or texts: logits [B, classes] and labels [B]."""

    def __init__(self) -> None:
        self.loss_sum, self.count = 0.0, 0
        self.confusion: np.ndarray | None = None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        logits, y = model(batch["x"]), batch.get("y")
        if y is None:
            logits, y = logits[:0], batch["x"].new_zeros(0).long()
        loss_sum, _ = cross_entropy_sum(logits, y)
        classes = logits.shape[1]
        cells = torch.bincount(y * classes + logits.argmax(1), minlength=classes * classes)
        counts = cells.view(classes, classes).cpu().numpy()
        self.confusion = counts if self.confusion is None else self.confusion + counts
        self.loss_sum += loss_sum.item()
        self.count += len(y)

    def sums(self) -> np.ndarray:
        counts = [] if self.confusion is None else self.confusion.ravel().tolist()
        return np.array([self.loss_sum, *counts], np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, counts = float(sums[0]), sums[1:].astype(np.int64)
        self.confusion = counts.reshape(math.isqrt(len(counts)), -1) if len(counts) else None
        self.count = int(counts.sum())

    def evaluation(self) -> Evaluation:
        assert self.confusion is not None
        right = int(np.trace(self.confusion))
        low, high = wilson(right, self.count)
        metrics = {
            "accuracy": right / self.count,
            "accuracy_low": low,
            "accuracy_high": high,
            "loss": self.loss_sum / self.count,
            "samples": float(self.count),
        }
        return Evaluation(metrics, tuple(tuple(int(cell) for cell in row) for row in self.confusion))


class _Predicted:
    """Sums over text: of tokens [B, T] the losses of those that follow, [B, T]."""

    def __init__(self, text_bytes: int) -> None:
        self.loss_sum, self.count, self.text_bytes = 0.0, 0, text_bytes

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        if "y" not in batch:
            model(batch["x"])
            return
        loss_sum, count = cross_entropy(model, batch)
        self.loss_sum += loss_sum.item()
        self.count += int(count)

    def sums(self) -> np.ndarray:
        return np.array([self.loss_sum, self.count], np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, self.count = float(sums[0]), int(sums[1])

    def evaluation(self) -> Evaluation:
        loss = self.loss_sum / self.count
        # beyond 700 nats the exponential overflows; such a model knows nothing either way
        metrics = {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf, "tokens": float(self.count)}
        if self.text_bytes:
            metrics["bits_per_byte"] = self.loss_sum / math.log(2) / self.text_bytes
        return Evaluation(metrics, ())
