"""Sparsity: weights that matter least become zero, one by one or two of every four.

What is zero saves bytes where files are packed, and time only where kernels leave zeros out: torch's on a CPU do not,
and 2:4 has kernels on some GPUs alone. So these moves are declined by default, with what they would save.

A weight matters by its size times the size of its input (Sun et al. 2023, arXiv 2306.11695, "Wanda"), compared within
each output. Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import copy
import time
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from thrifty.compress.moves.low_rank import second_moments
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.weight import made
from thrifty.data import Batch
from thrifty.spec.units import format_bytes

Pattern = Literal["any", "2:4"]
_DECLINED = "zeros make nothing faster on a processor, whose products take them as any number, and no bundle smaller"


@torch.no_grad()
def sparsify(model: nn.Module, batches: Iterable[Batch], pattern: Pattern, share: float = 0.5) -> dict[str, float]:
    """Set weights of a model's linear layers and convolutions to zero, in place.

    Args:
        model: in ``eval`` mode, on the CPU.
        batches: of the training split.
        pattern: ``any``, a share of each output's weights; or ``2:4``, two of every four inputs of an output.
        share: of ``any``.

    Returns:
        The share of zeros of each layer that has some; those whose inputs do not divide by four have none of ``2:4``.
    """
    sizes = {name: moment_II.diagonal().sqrt() for name, moment_II in second_moments(model, batches).items()}
    zeros = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d):
            continue
        weight_OI = module.weight.flatten(1)
        scores_OI = weight_OI.abs() * sizes.get(name, torch.ones(()))
        gone_OI = _gone(scores_OI, pattern, share)
        if gone_OI is not None:
            module.weight.copy_(weight_OI.masked_fill(gone_OI, 0.0).view_as(module.weight))
            zeros[name] = float((module.weight == 0).float().mean())
    return zeros


def packed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors packed by zlib: what zeros are worth in storage and on the way."""
    return sum(len(zlib.compress(each.detach().contiguous().numpy().tobytes(), 6)) for each in tensors.values())


def _gone(scores_OI: Tensor, pattern: Pattern, share: float) -> Tensor | None:
    outputs, inputs = scores_OI.shape
    if pattern == "any":
        count = int(share * inputs)
        if not count:
            return None
        gone_OI = torch.zeros_like(scores_OI, dtype=torch.bool)
        return gone_OI.scatter_(1, scores_OI.topk(count, dim=1, largest=False).indices, True)
    if inputs % 4:
        return None
    of_four = scores_OI.view(outputs, -1, 4)
    gone = torch.zeros_like(of_four, dtype=torch.bool)
    return gone.scatter_(2, of_four.topk(2, dim=2, largest=False).indices, True).view(outputs, inputs)


def sparse_move(pattern: Pattern) -> Move:
    """The move that makes half of the weights zero."""
    name = {"any": "sparse_half", "2:4": "sparse_2_4"}[pattern]

    def apply(context: Context, candidate: Candidate) -> Candidate:
        began = time.perf_counter()
        model = copy.deepcopy(candidate.model)
        zeros = sparsify(model, context.calibration, pattern)
        was, now = (packed_bytes(dict(each.state_dict())) for each in (candidate.model, model))
        says = f"zeros in {len(zeros)} layers; packed {format_bytes(was)} to {format_bytes(now)}, and no faster"
        return made(context, candidate, name, model, candidate.plan, says, began)

    return Move(
        name=name,
        says={"any": "half of each output's weights become zero", "2:4": "two of every four weights become zero"}[
            pattern
        ],
        applies=lambda context, candidate: _DECLINED,
        price=lambda context, candidate: 1.0,
        hope=lambda context, candidate: 1.0,
        apply=apply,
    )
