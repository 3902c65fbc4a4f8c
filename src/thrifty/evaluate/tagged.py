"""How well several labels of a sample are told: F1 over all answers, and as the mean of labels."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept
from thrifty.models.losses import several_sum


class Tagged:
    """Sums over texts: logits [B, K] and which labels each has, float32 [B, K] of 0 and 1.

    A label is said where its probability is over 0.5. F1 is ``2 h / (s + w)`` of h that were said rightly, s said and
    w wanted (van Rijsbergen 1979). The mean of labels leaves out those that were neither said nor wanted.
    """

    def __init__(self) -> None:
        self.loss_sum, self.count = 0.0, 0
        self.kept: Kept | None = None
        # by label: said rightly, said, wanted
        self._counts: np.ndarray | None = None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        logits_BK, y_BK = model(batch["x"]), batch.get("y")
        if y_BK is None:
            logits_BK, y_BK = logits_BK[:0], logits_BK[:0]
        loss_sum, _ = several_sum(logits_BK, y_BK)
        said_BK, wanted_BK = logits_BK > 0, y_BK > 0
        counts = np.stack([each.sum(0).cpu().numpy() for each in (said_BK & wanted_BK, said_BK, wanted_BK)])
        self._counts = counts if self._counts is None else self._counts + counts
        if self.kept is not None and len(y_BK):
            losses_B = F.binary_cross_entropy_with_logits(logits_BK.float(), y_BK.float(), reduction="none").sum(1)
            self.kept.add(losses_B.cpu().numpy(), _numbers(said_BK), _numbers(wanted_BK))
        self.loss_sum += loss_sum.item()
        self.count += len(y_BK)

    def sums(self) -> np.ndarray:
        counts = [] if self._counts is None else [self._counts.ravel()]
        return np.concatenate([[self.loss_sum, self.count], *counts]).astype(np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, self.count = float(sums[0]), int(sums[1])
        self._counts = sums[2:].reshape(3, -1)

    def evaluation(self) -> Evaluation:
        assert self._counts is not None
        right_K, said_K, wanted_K = self._counts
        whole = (said_K + wanted_K).sum()
        seen_K = said_K + wanted_K > 0
        of_labels = 2 * right_K[seen_K] / (said_K + wanted_K)[seen_K]
        metrics = {
            "micro_f1": float(2 * right_K.sum() / whole) if whole else 0.0,
            "macro_f1": float(of_labels.mean()) if seen_K.any() else 0.0,
            "loss": self.loss_sum / self.count,
            "samples": float(self.count),
        }
        return Evaluation(metrics, (), tuple(tuple(int(cell) for cell in counts) for counts in self._counts.T))


def _numbers(has_BK: Tensor) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in has_BK.cpu().numpy()]
