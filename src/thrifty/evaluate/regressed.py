"""How near numbers come, in their own units."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn

from thrifty.evaluate.figures import Evaluation, Kept


class Regressed:
    """Sums over rows: answers [B, 1] and standardised numbers [B].

    Args:
        unit: what one deviation is, in the unit of the numbers.
    """

    def __init__(self, unit: float) -> None:
        self.unit, self.count = unit, 0
        self.kept: Kept | None = None
        # of squared errors, errors, numbers and their squares, standardised
        self._sums = np.zeros(4)

    def add(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        answers, y = model(batch["x"]), batch.get("y")
        if y is None:
            return
        errors, y = answers.flatten().double() - y, y.double()
        if self.kept is not None:
            self.kept.add(errors.square().cpu().numpy(), (y + errors).tolist(), y.tolist())
        sums = (errors.square().sum(), errors.abs().sum(), y.sum(), y.square().sum())
        self._sums += [each.item() for each in sums]
        self.count += len(y)

    def sums(self) -> np.ndarray:
        return np.array([self.count, *self._sums], np.float64)

    def take(self, sums: np.ndarray) -> None:
        self.count, self._sums = int(sums[0]), sums[1:]

    def evaluation(self) -> Evaluation:
        squares, errors, total, total_squares = (self._sums / self.count).tolist()
        spread = total_squares - total**2
        metrics = {
            "rmse": self.unit * math.sqrt(squares),
            "mae": self.unit * errors,
            # of numbers that are all the same there is nothing to tell
            "r2": 1 - squares / spread if spread > 0 else 0.0,
            "loss": squares,
            "samples": float(self.count),
        }
        return Evaluation(metrics, ())
