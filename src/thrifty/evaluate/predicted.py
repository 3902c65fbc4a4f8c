"""How well the next token is told."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept
from thrifty.models.inputs import input_of
from thrifty.models.losses import IGNORED, cross_entropy, each_cross_entropy


class Predicted:
    """Sums over text: of tokens [B, T] the losses of those that follow, [B, T]."""

    def __init__(self, text_bytes: int) -> None:
        self.loss_sum, self.count, self.text_bytes = 0.0, 0, text_bytes
        self.kept: Kept | None = None

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        if "y" not in batch:
            model(input_of(batch))
            return
        # windows that are laid end to end, their documents apart, are told as one
        if self.kept is not None and len(batch["y"]) == len(batch["x"]) > 0 and "places0" not in batch:
            losses_BT, counts_B = each_cross_entropy(model, batch), (batch["y"] != IGNORED).sum(1)
            nothing: list[str] = [""] * len(counts_B)
            self.kept.add((losses_BT.sum(1) / counts_B.clamp(min=1)).cpu().numpy(), nothing, nothing)
            loss_sum, count = losses_BT.double().sum(), counts_B.sum()
        else:
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
