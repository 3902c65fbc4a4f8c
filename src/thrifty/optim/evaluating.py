"""`evaluating`: the weights that are to be measured and kept, where they are not the ones that train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


@contextmanager
def evaluating(optimizer: Optimizer) -> Iterator[None]:
    """Have the model hold the weights that are to be measured and kept while this lasts.

    An optimizer whose best weights are not those it steps has methods ``eval``, which puts the former into the model,
    and ``train``, which brings the latter back; both may round the last bit, so when they are called is part of a run.
    With any other optimizer nothing happens. A checkpoint to resume from holds the weights that train.
    """
    turns = [turn for turn in (getattr(optimizer, "eval", None), getattr(optimizer, "train", None)) if turn]
    assert len(turns) in {0, 2}, f"{type(optimizer).__name__} has one of eval and train, and not the other"
    if turns:
        turns[0]()
    try:
        yield
    finally:
        if turns:
            turns[1]()
