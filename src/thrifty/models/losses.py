"""The loss of each task, as a sum and what it is a sum over, so that micro-batches add up to their batch.

Shapes: B batch, T tokens, V classes or vocabulary, K labels of which a sample may have several.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.chunked_loss import chunked_cross_entropy_sum, each_in_chunks, summed_in_chunks
from thrifty.models.ctc import ctc, sum_ctc
from thrifty.models.inputs import input_of

IGNORED = -100
# logits of a micro-batch that would take more than this in float32 are never made whole
LARGE_LOGITS_BYTES = 64 << 20

Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Tensor]]
# the sum of the losses of a batch, alone
LossSum = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def cross_entropy_sum(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross entropy of logits [..., V] and answers [...] in float32 at least, in nats; and count the answers.

    Answers of -100 are not counted. Of the logits of members, [B, K, V] for [B] answers, it is the mean of theirs.
    """
    return _sum(logits, y), (y != IGNORED).sum()


def sum_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a model on ``batch["x"]``, packed or not, and sum the cross entropy of ``batch["y"]``; or of the shares of
    all classes in ``batch["answers"]``, where one is not the whole answer.

    Where the logits would be large, a model that tells its head apart, as a `GPT` does, is asked for what the head is
    applied to, and the logits come in chunks.
    """
    x, y = input_of(batch), batch.get("answers", batch["y"])
    # asked of the class: a module that lacks a name makes an error of it, which takes microseconds
    head_VC = getattr(model, "head_weight", None) if hasattr(type(model), "head_weight") else None
    if head_VC is None or 4 * y.numel() * len(head_VC) <= LARGE_LOGITS_BYTES:
        return _sum(model(x), y)
    if not torch.is_grad_enabled():
        return summed_in_chunks(model(x, hidden=True), head_VC, y, ignored=IGNORED)
    pull = getattr(model, "pull_of", None)
    return chunked_cross_entropy_sum(model(x, hidden=True), head_VC, y, ignored=IGNORED, pull=pull)[0]


def cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """As `sum_cross_entropy`, with the count of the answers."""
    return sum_cross_entropy(model, batch), (batch["y"] != IGNORED).sum()


def each_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a model as `sum_cross_entropy` does without gradients; return the loss of each answer, 0 where none is."""
    x, y = input_of(batch), batch["y"]
    head_VC = getattr(model, "head_weight", None) if hasattr(type(model), "head_weight") else None
    if head_VC is not None and 4 * y.numel() * len(head_VC) > LARGE_LOGITS_BYTES:
        return each_in_chunks(model(x, hidden=True), head_VC, y, ignored=IGNORED)
    logits = model(x).flatten(0, -2)
    logits = logits.float() if logits.itemsize < 4 else logits
    return F.cross_entropy(logits, y.flatten(), ignore_index=IGNORED, reduction="none").view(y.shape)


def whole_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """As `cross_entropy`, over logits that are made whole whatever their size: the same operators for any batch."""
    return cross_entropy_sum(model(input_of(batch)), batch["y"])


def squared_error_sum(answers: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the squared errors of answers [B, 1], or of those of members [B, K, 1], their mean, against numbers [B].

    In float32 at least. Numbers that are none (NaN) are not counted.
    """
    return _squares(answers, y), (~y.isnan()).sum()


def sum_squared_error(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a model on ``batch["x"]`` and sum the squared errors against ``batch["y"]``, as `squared_error_sum`."""
    return _squares(model(batch["x"]), batch["y"])


def squared_error(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """As `sum_squared_error`, with the count of the answers."""
    return squared_error_sum(model(batch["x"]), batch["y"])


def several_sum(logits_BK: Tensor, y_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the binary cross entropies of logits and answers of 0 and 1, over labels and samples; and count the samples.

    In float32 at least, in nats. Samples whose answers are none (NaN) are not counted.
    """
    return _several(logits_BK, y_BK), (~y_BK.isnan().any(1)).sum()


def sum_several(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a model on ``batch["x"]``, packed or not, and sum as `several_sum` against ``batch["y"]``."""
    return _several(model(input_of(batch)), batch["y"])


def several(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """As `sum_several`, with the count of the samples."""
    return several_sum(model(input_of(batch)), batch["y"])


# Each takes a model and a batch and returns the sum of the losses and the number of samples or tokens in it. The number
# is a tensor: reading it would make a GPU wait, and cannot be done on fake tensors.
LOSSES: dict[str, Loss] = {
    "classify": cross_entropy,
    "language": cross_entropy,
    "regress": squared_error,
    "tag": several,
    "transcribe": ctc,
    "mask": cross_entropy,
}
# the sum alone, for who has counted
LOSS_SUMS: dict[str, LossSum] = {
    "classify": sum_cross_entropy,
    "language": sum_cross_entropy,
    "regress": sum_squared_error,
    "tag": sum_several,
    "transcribe": sum_ctc,
    "mask": sum_cross_entropy,
}


def _squares(answers: Tensor, y: Tensor) -> Tensor:
    if answers.itemsize < 4:
        answers = answers.float()
    error_BK = torch.where(y.isnan()[:, None], 0.0, answers.flatten(1) - y[:, None])
    return error_BK.square().mean(1).sum()


def _several(logits_BK: Tensor, y_BK: Tensor) -> Tensor:
    if logits_BK.itemsize < 4:
        logits_BK = logits_BK.float()
    none_BK = y_BK.isnan()
    wanted_BK = torch.where(none_BK, 0.0, y_BK).to(logits_BK.dtype)
    loss_BK = F.binary_cross_entropy_with_logits(logits_BK, wanted_BK, reduction="none")
    return torch.where(none_BK, 0.0, loss_BK).sum()


def _sum(logits: Tensor, y: Tensor) -> Tensor:
    # answers are numbers of classes, or shares of all classes
    if logits.dim() == 3 and y.dim() == (2 if y.is_floating_point() else 1):
        # of several members [B, K, V] each learns by itself: the mean of their losses
        members = logits.shape[1]
        return _sum(logits.flatten(0, 1), y.repeat_interleave(members, dim=0)) / members
    if logits.dim() > 2:
        logits, y = logits.flatten(0, -2), y.flatten()
    if logits.itemsize < 4:
        logits = logits.float()
    return F.cross_entropy(logits, y, ignore_index=IGNORED, reduction="sum")
