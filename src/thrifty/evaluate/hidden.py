"""How well hidden words are told."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept
from thrifty.models.losses import IGNORED, cross_entropy_sum


class Hidden:
    """Sums over texts: logits [B, T, V] and the words that are asked for, [B, T]."""

    def __init__(self) -> None:
        self.loss_sum, self.right, self.count = 0.0, 0, 0
        self.kept: Kept | None = None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        logits_BTV, y_BT = model(batch["x"]), batch.get("y")
        if y_BT is None:
            return
        loss_sum, count = cross_entropy_sum(logits_BTV, y_BT)
        if self.kept is not None:
            _keep(self.kept, logits_BTV, y_BT)
        self.loss_sum += loss_sum.item()
        self.right += int((logits_BTV.argmax(-1) == y_BT)[y_BT != IGNORED].sum())
        self.count += int(count)

    def sums(self) -> np.ndarray:
        return np.array([self.loss_sum, self.right, self.count], np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.loss_sum, self.right, self.count = float(sums[0]), int(sums[1]), int(sums[2])

    def evaluation(self) -> Evaluation:
        loss = self.loss_sum / self.count
        # beyond 700 nats the exponential overflows; such a model knows nothing either way
        perplexity = math.exp(loss) if loss < 700 else math.inf
        metrics = {"loss": loss, "accuracy": self.right / self.count, "perplexity": perplexity}
        return Evaluation({**metrics, "words": float(self.count)}, ())


def _keep(kept: Kept, logits_BTV: Tensor, y_BT: Tensor) -> None:
    """Keep of each text the mean loss of its hidden words, what they were told to be, and what they are."""
    for logits_TV, y_T in zip(logits_BTV, y_BT, strict=True):
        asked_T = y_T != IGNORED
        if not asked_T.any():
            kept.add(np.zeros(1), [()], [()])
            continue
        logits_WV, y_W = logits_TV[asked_T].float(), y_T[asked_T]
        loss = F.cross_entropy(logits_WV, y_W).item()
        kept.add(np.array([loss]), [tuple(logits_WV.argmax(-1).tolist())], [tuple(y_W.tolist())])
