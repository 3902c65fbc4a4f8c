"""A model on one device, as `thrifty.train.spread` has it: whole, and alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from thrifty.train.ranks import ALONE, World


class OneDevice:
    """A model that is whole, and alone: nothing is to be done."""

    computes_along = False
    copies = False
    world: World = ALONE

    def follow(self, optimizer: Optimizer) -> None:
        """Nothing is summed."""

    def begin(self, answers: np.ndarray) -> None:
        """Nothing depends on what counts of a micro-batch."""

    def last(self, whether: bool) -> None:
        """Nothing waits for the last micro-batch."""

    def sum(self) -> None:
        """Gradients are the step's own."""

    def own(self, gradient: Tensor) -> Tensor:
        """A gradient as it is."""
        return gradient

    def agreed(self, loss: float, norm: float) -> tuple[float, float]:
        """Loss and norm as they are."""
        return loss, norm

    def whole(self, tree: Any) -> Any:
        """Tensors as they are."""
        return tree

    def parts(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors as they are."""
        return state

    def optimizer_parts(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The state as it is."""
        return state

    def release(self) -> None:
        """Nothing was put into the model."""
