"""How well labels are told: shares with their bounds, which labels are taken for which, and how two are ordered."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept
from thrifty.evaluate.ranked import BINS, area, count_odds
from thrifty.models.losses import cross_entropy_sum

# the standard normal's 97.5 % quantile: 95 % lie within
Z_95 = 1.959963984540054


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


class Classified:
    """Sums over images, texts or rows: logits [B, classes] and labels [B]."""

    def __init__(self) -> None:
        self.loss_sum, self.count = 0.0, 0
        self.kept: Kept | None = None
        self.confusion: np.ndarray | None = None
        # of two labels, samples by label and log odds
        self.odds: np.ndarray | None = None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        logits, y = model(batch["x"]), batch.get("y")
        if y is None:
            logits, y = logits[:0], batch["x"].new_zeros(0).long()
        loss_sum, _ = cross_entropy_sum(logits, y)
        classes = logits.shape[1]
        cells = torch.bincount(y * classes + logits.argmax(1), minlength=classes * classes)
        counts = cells.view(classes, classes).cpu().numpy()
        self.confusion = counts if self.confusion is None else self.confusion + counts
        if classes == 2:
            odds = count_odds(logits, y)
            self.odds = odds if self.odds is None else self.odds + odds
        if self.kept is not None and len(y):
            log_p = logits.float().log_softmax(1)
            sure, said = log_p.exp().max(1)
            losses = -log_p.gather(1, y[:, None])[:, 0]
            self.kept.add(losses.cpu().numpy(), said.tolist(), y.tolist(), sure.cpu().numpy())
        self.loss_sum += loss_sum.item()
        self.count += len(y)

    def sums(self) -> np.ndarray:
        counts = [each.ravel() for each in (self.confusion, self.odds) if each is not None]
        return np.concatenate([[self.loss_sum], *counts]).astype(np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, counts = float(sums[0]), sums[1:].astype(np.int64)
        if len(counts) > 2 * BINS:
            counts, self.odds = counts[: -2 * BINS], counts[-2 * BINS :].reshape(2, BINS)
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
            **({} if self.odds is None else {"auc": area(self.odds)}),
            "loss": self.loss_sum / self.count,
            "samples": float(self.count),
        }
        return Evaluation(metrics, tuple(tuple(int(cell) for cell in row) for row in self.confusion))
