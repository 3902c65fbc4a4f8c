"""The loss of each task, as a sum and what it is a sum over, so that micro-batches add up to their batch.

Shapes: B batch, T tokens, V classes or vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100

Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Tensor]]


def cross_entropy_sum(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross entropy of logits [..., V] and answers [...] in float32, in nats; and count the answers.

    Answers of -100 are not counted.
    """
    loss_sum = F.cross_entropy(logits.float().flatten(0, -2), y.flatten(), ignore_index=IGNORED, reduction="sum")
    return loss_sum, (y != IGNORED).sum()


def cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Run a model on ``batch["x"]`` and compare with ``batch["y"]``, by `cross_entropy_sum`."""
    return cross_entropy_sum(model(batch["x"]), batch["y"])


# Each takes a model and a batch and returns the sum of the losses and the number of samples or tokens in it. The number
# is a tensor: reading it would make a GPU wait, and cannot be done on fake tensors.
LOSSES: dict[str, Loss] = {"classify": cross_entropy, "language": cross_entropy}
