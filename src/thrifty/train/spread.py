"""How a model lies on the ranks of a run: whole on one, copied to each, or shared out; and what the loop asks of it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.train.ranks import ALONE, World


class Spread(Protocol):
    """What the loop and checkpoints ask.

    Attributes:
        computes_along: a rank without samples of its own takes part in the passes all the same.
        copies: what `whole` returns stays as it is while training goes on.
    """

    computes_along: bool
    copies: bool

    @property
    def world(self) -> World: ...
    def follow(self, optimizer: Optimizer) -> None: ...
    def begin(self, answers: np.ndarray) -> None: ...
    def last(self, whether: bool) -> None: ...
    def sum(self) -> None: ...
    def own(self, gradient: Tensor) -> Tensor: ...
    def agreed(self, loss: float, norm: float) -> tuple[float, float]: ...
    def whole(self, tree: Any) -> Any: ...
    def parts(self, state: dict[str, Tensor]) -> dict[str, Tensor]: ...
    def optimizer_parts(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]: ...
    def release(self) -> None: ...


class OneDevice:
    """A model that is whole, and alone: nothing is to be done."""

    computes_along = False
    copies = False
    world = ALONE

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


ONE_DEVICE = OneDevice()


def spread_over(world: World, model: nn.Module, zero: int) -> Spread:
    """Spread a model over ranks.

    Args:
        world: the ranks.
        model: on the device, adapted and with blocks computed again as they will be.
        zero: what ranks share out, as in a `Plan`: 0 nothing, 3 weights, gradients and optimizer states.
    """
    if world.size == 1:
        return ONE_DEVICE
    if not zero:
        from thrifty.train.replicas import Replicas

        return Replicas(world, model)
    # it takes a second and 40 MiB to import
    from thrifty.train.shards import Shards

    return Shards(world, model)
