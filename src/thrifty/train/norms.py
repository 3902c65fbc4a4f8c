"""Batch norm over ranks: mean and variance of all samples that the ranks compute at once, forward and backward.

As torch.nn.SyncBatchNorm has it, which takes no tensors of a CPU: ranks of unequal shares count by their samples (the
pairwise sums of Chan, Golub and LeVeque 1979), and what a rank computes along for the others' sake does not count.

Shapes: B samples, C channels, R ranks; x_BC may have dimensions after the channels.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thrifty.data.answers import count_answers
from thrifty.train.ranks import World


class SharedNorms:
    """The batch norms of a model, computing over ranks; names of parameters and buffers stay as they are.

    Norms that are not in training when this is made, such as frozen ones, stay as they are, and so does evaluation.
    All ranks must call the model as often, in training.

    Args:
        world: more than one rank.
        model: the same on each.

    Attributes:
        norms: those that compute over ranks.
    """

    def __init__(self, world: World, model: nn.Module) -> None:
        self.norms = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.training]
        self._counts = True
        if not self.norms:
            return
        # of their own: gradients that travel meanwhile hold nothing up, and may come in another order on each rank
        self._group = dist.new_group(dist.get_process_group_ranks(world.group))
        for norm in self.norms:
            norm.forward = functools.partial(self._forward, norm, norm.forward)  # type: ignore[method-assign]
            if "torch._dynamo" in sys.modules:
                # compiled blocks break off around it
                norm.forward = torch.compiler.disable(norm.forward)  # type: ignore[method-assign]

    def begin(self, answers: Any) -> None:
        """Have the next micro-batch count if any of its answers does."""
        if self.norms:
            self._counts = count_answers(answers) > 0

    def release(self) -> None:
        """Let norms compute over what is given to them alone, as they did."""
        for norm in self.norms:
            del norm.forward
        self.norms = []

    def _forward(self, norm: _BatchNorm, alone: Callable[[Tensor], Tensor], x_BC: Tensor) -> Tensor:
        if not norm.training:
            return alone(x_BC)
        norm._check_input_dim(x_BC)
        mean_C, var_C, count = _statistics(x_BC.detach(), self._counts, self._group)
        if norm.running_mean is not None and norm.running_var is not None:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), share)
            norm.running_var.lerp_((var_C * (count / (count - 1))).to(norm.running_var.dtype), share)
        affine = (each if each is None else each.to(mean_C.dtype) for each in (norm.weight, norm.bias))
        normed: Tensor = _Normed.apply(x_BC, *affine, mean_C, var_C, count, norm.eps, self._counts, self._group)
        return normed


def _statistics(x_BC: Tensor, counts: bool, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance [C] of each channel over all ranks, the same bits on each, and of how many numbers they are.

    Raises:
        ValueError: there is one number to a channel, of which there is no variance.
    """
    channels = x_BC.shape[1]
    kind = torch.promote_types(x_BC.dtype, torch.float32)
    own = x_BC.new_zeros(2 * channels + 1, dtype=kind)
    if counts and x_BC.numel():
        # statistics of halves are taken in float32 where they are said to be kept so
        kept = own.new_zeros(channels), own.new_ones(channels)
        own[:channels], own[channels:-1] = torch.batch_norm_update_stats(x_BC, *kept, 0.0)
        own[-1] = x_BC.numel() // channels
    everyones = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, own, group=group)
    mean_RC, var_RC, count_R1 = torch.stack(everyones).split([channels, channels, 1], dim=1)
    count = count_R1.sum()
    # a GPU is not waited for
    if not count.is_cuda and count < 2:
        raise ValueError(f"batch norm over ranks takes no variance of {int(count)} numbers to a channel")
    mean_C = (count_R1 * mean_RC).sum(0) / count
    var_C = (count_R1 * (var_RC + (mean_RC - mean_C) ** 2)).sum(0) / count
    return mean_C, var_C, count


class _Normed(torch.autograd.Function):
    """Numbers less their mean, over their deviation; the gradient goes through both, over all ranks (Ioffe 2015)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BC: Tensor,
        weight_C: Tensor | None,
        bias_C: Tensor | None,
        mean_C: Tensor,
        var_C: Tensor,
        count: Tensor,
        eps: float,
        counts: bool,
        group: dist.ProcessGroup,
    ) -> Tensor:
        ctx.save_for_backward(x_BC, weight_C, mean_C, var_C, count)
        ctx.eps, ctx.counts, ctx.group = eps, counts, group
        return nn.functional.batch_norm(x_BC, mean_C, var_C, weight_C, bias_C, eps=eps)

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
        x_BC, weight_C, mean_C, var_C, count = ctx.saved_tensors
        given = pulls[0], x_BC, weight_C, mean_C, var_C
        # as if mean and variance were no numbers of this batch; and the sums of pulls, and of pulls x normed numbers
        pull_BC, by_weight_C, by_bias_C = torch.ops.aten.native_batch_norm_backward(
            *given, None, None, False, ctx.eps, [True, True, True]
        )
        beside = (None,) * 6
        by_affine = by_weight_C if ctx.needs_input_grad[1] else None, by_bias_C if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, *by_affine, *beside
        sums_2C = torch.cat([by_bias_C, by_weight_C])
        dist.all_reduce(sums_2C, group=ctx.group)
        if ctx.counts:
            sum_C, along_C = (sums_2C / count).chunk(2)
            inverse_C = torch.rsqrt(var_C + ctx.eps)
            scale_C = inverse_C if weight_C is None else inverse_C * weight_C
            slope_C = scale_C * along_C * inverse_C
            shape = (1, -1, *(1 for _ in x_BC.shape[2:]))
            offset_C = scale_C * sum_C - slope_C * mean_C
            pull_BC.sub_(torch.addcmul(offset_C.view(shape), x_BC, slope_C.view(shape)))
        return pull_BC, *by_affine, *beside
