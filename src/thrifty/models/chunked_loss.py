"""Cross entropy over a large vocabulary without ever holding its logits: rows in chunks, gradients along the way.

Logits of 4,096 tokens over 50,257 words take 0.8 GB in float32, and as much again for each of the steps to their
gradient. Here a chunk of rows goes the whole way, from its logits to its share of both gradients, before the next one
begins, as in Liger Kernel's fused linear cross entropy (Hsu et al. 2024, arXiv 2410.10989, section 3.2).

Shapes: N rows, n rows of a chunk, C width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# each chunk adds a product [V, C] to the weight's gradient: so many rows that this is little beside making it
ROWS_AT_ONCE = 1024
# of GPT-2's 50,257 words, an odd number, the three products took an H200 32 ms of 63 for 16,384 rows of 768, and 88 of
# 340 for rows of 2,048: cuBLAS has its fast kernels for rows whose bytes are multiples of 16
MULTIPLES = {"cuda": 64}
Pull = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def chunked_cross_entropy_sum(
    hidden: Tensor,
    weight_VC: Tensor,
    y: Tensor,
    *,
    ignored: int,
    rows_at_once: int = ROWS_AT_ONCE,
    pull: Pull | None = None,
    multiple: int = 0,
) -> tuple[Tensor, Tensor]:
    """Sum the cross entropy of ``hidden`` [..., C] times ``weight_VC`` against answers [...], in nats; count answers.

    The gradients are those of ``F.cross_entropy`` over the logits; they are taken in the forward pass, so where none
    are wanted `summed_in_chunks` does less. Products are of autocast's dtype where it is on; softmax and sums of
    float32 at least.

    Args:
        hidden: what the head is applied to.
        weight_VC: of the head, which has no bias.
        y: int64 answers.
        ignored: an answer that is not counted.
        rows_at_once: of a chunk.
        pull: what `pull_of` does, compiled; as torch has its operators when left out.
        multiple: words are filled up to one, by words that have no chance; by the device when left out.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    loss_sum: Tensor = _ChunkedCrossEntropy.apply(
        hidden.flatten(0, -2),
        weight_VC,
        y.flatten(),
        ignored,
        dtype,
        rows_at_once,
        pull or pull_in_place,
        multiple or MULTIPLES.get(kind, 1),
    )
    return loss_sum, (y != ignored).sum()


def summed_in_chunks(
    hidden: Tensor, weight_VC: Tensor, y: Tensor, *, ignored: int, rows_at_once: int = ROWS_AT_ONCE, multiple: int = 0
) -> Tensor:
    """Sum the same losses without gradients, the logits of one chunk of rows at a time.

    Args:
        hidden, weight_VC, y, ignored, rows_at_once, multiple: as for `chunked_cross_entropy_sum`.
    """
    loss_sum: Tensor | None = None
    for logits_nV, y_n in _chunks(hidden, weight_VC, y, rows_at_once, multiple):
        part = F.cross_entropy(logits_nV, y_n, ignore_index=ignored, reduction="sum")
        loss_sum = part if loss_sum is None else loss_sum + part
    assert loss_sum is not None
    return loss_sum


def each_in_chunks(
    hidden: Tensor, weight_VC: Tensor, y: Tensor, *, ignored: int, rows_at_once: int = ROWS_AT_ONCE, multiple: int = 0
) -> Tensor:
    """Return the same losses without their sum, of the shape of ``y``; 0 where no answer is counted.

    Args:
        hidden, weight_VC, y, ignored, rows_at_once, multiple: as for `chunked_cross_entropy_sum`.
    """
    parts = [
        F.cross_entropy(logits_nV, y_n, ignore_index=ignored, reduction="none")
        for logits_nV, y_n in _chunks(hidden, weight_VC, y, rows_at_once, multiple)
    ]
    return torch.cat(parts).view(y.shape)


def _chunks(
    hidden: Tensor, weight_VC: Tensor, y: Tensor, rows_at_once: int, multiple: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of one chunk of rows after another, float32 at least, with their answers."""
    kind, words = hidden.device.type, len(weight_VC)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    wide = torch.promote_types(dtype, torch.float32)
    hidden_NC, y_N = hidden.flatten(0, -2).to(dtype), y.flatten()
    used_VC = _filled_up(weight_VC, dtype, multiple or MULTIPLES.get(kind, 1))
    for at in range(0, len(y_N), rows_at_once):
        with torch.autocast(kind, enabled=False):
            logits_nV = _logits(hidden_NC[at : at + rows_at_once], used_VC, words).to(wide)
        yield logits_nV, y_N[at : at + rows_at_once]


def pull_of(logits_nV: Tensor, y_n: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Sum the cross entropy of logits in float32 at least, and take its gradient in their dtype [n, V].

    Written so that a compiler reads the logits twice and writes the gradient once.
    """
    log_p_nV = logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32)).log_softmax(1)
    counts_n1 = (y_n != ignored).unsqueeze(1)
    is_answer_nV = torch.arange(logits_nV.shape[1], device=y_n.device) == y_n.unsqueeze(1)
    loss_sum = -log_p_nV.gather(1, y_n.unsqueeze(1).masked_fill(~counts_n1, 0)).mul(counts_n1).sum()
    pull_nV = (log_p_nV.exp() - is_answer_nV.to(log_p_nV.dtype)) * counts_n1
    return loss_sum, pull_nV.to(logits_nV.dtype)


def pull_in_place(logits_nV: Tensor, y_n: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """As `pull_of`, in the memory that the softmax takes."""
    dtype, wide = logits_nV.dtype, torch.promote_types(logits_nV.dtype, torch.float32)
    counts_n1 = (y_n != ignored).unsqueeze(1)
    y_n1 = y_n.unsqueeze(1).masked_fill(~counts_n1, 0)
    logits_nV = logits_nV.to(wide)  # under the same name, lest both be held
    log_p_nV = logits_nV.log_softmax(1)
    del logits_nV
    loss_sum = -log_p_nV.gather(1, y_n1).mul(counts_n1).sum()
    # softmax less one at the answer is the gradient of the logits
    pull_nV = log_p_nV.exp_().scatter_add_(1, y_n1, -torch.ones_like(y_n1, dtype=wide))
    return loss_sum, pull_nV.mul_(counts_n1).to(dtype)


def _filled_up(weight_VC: Tensor, dtype: torch.dtype, multiple: int) -> Tensor:
    """A head's weight in a dtype, with rows of zeros up to a multiple."""
    over = -len(weight_VC) % multiple
    return F.pad(weight_VC.to(dtype), (0, 0, 0, over)) if over else weight_VC.to(dtype)


def _logits(h_nC: Tensor, weight_VC: Tensor, words: int) -> Tensor:
    """Logits [n, V], of which those beyond so many words have no chance."""
    logits_nV = h_nC @ weight_VC.T
    if len(weight_VC) > words:
        logits_nV[:, words:] = -math.inf
    return logits_nV


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Rows [N, C], weight [V, C] and answers [N] to the sum of their losses; keeps both gradients and no logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        weight_VC: Tensor,
        y_N: Tensor,
        ignored: int,
        dtype: torch.dtype,
        rows: int,
        pull: Pull,
        multiple: int,
    ) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        words = len(weight_VC)
        used_NC, used_VC = hidden_NC.to(dtype), _filled_up(weight_VC, dtype, multiple)
        gradient_NC = torch.empty_like(used_NC)
        gradient_VC = torch.zeros_like(used_VC, dtype=weight_VC.dtype) if weight_VC.requires_grad else None
        loss_sum = torch.zeros((), dtype=wide, device=hidden_NC.device)
        with torch.autocast(hidden_NC.device.type, enabled=False):
            for at in range(0, len(y_N), rows):
                h_nC = used_NC[at : at + rows]
                # not by a name, lest the logits be held beside the softmax
                part_sum, pull_nV = pull(_logits(h_nC, used_VC, words), y_N[at : at + rows], ignored)
                loss_sum += part_sum
                torch.mm(pull_nV, used_VC, out=gradient_NC[at : at + rows])
                if gradient_VC is not None:
                    gradient_VC += pull_nV.T @ h_nC
        ctx.gradients = gradient_NC.to(hidden_NC.dtype), None if gradient_VC is None else gradient_VC[:words]
        return loss_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NC, weight_VC = ctx.gradients
        ctx.gradients = None
        return hidden_NC.mul_(pull), None if weight_VC is None else weight_VC.mul_(pull), *[None] * 6
