"""Other tensors in the places of those that an optimizer steps, for as long as it works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.optim import Optimizer


@contextlib.contextmanager
def lent(optimizer: Optimizer, held: Sequence[Tensor], instead: Sequence[Tensor]) -> Iterator[None]:
    """Have an optimizer hold other tensors, as many, while this lasts; states go with their places."""
    exchange(optimizer, held, instead)
    try:
        yield
    finally:
        exchange(optimizer, instead, held)


def exchange(optimizer: Optimizer, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Put other tensors in the place of those that an optimizer holds, with their states."""
    instead = {id(one): other for one, other in zip(before, after, strict=True)}
    for group in optimizer.param_groups:
        group["params"] = [instead[id(each)] for each in group["params"]]
    for one, other in zip(before, after, strict=True):
        if one in optimizer.state:
            optimizer.state[other] = optimizer.state.pop(one)
