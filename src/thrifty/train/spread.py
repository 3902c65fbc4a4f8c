"""How a model lies on the ranks of a run: whole on one, copied to each, or shared out; and what the loop asks of it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.train.alone import OneDevice
from thrifty.train.ranks import World
from thrifty.train.replicas import Replicas


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
        return Replicas(world, model)
    # it takes a second and 40 MiB to import
    from thrifty.train.shards import Shards

    return Shards(world, model)
