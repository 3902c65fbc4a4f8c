"""Activation checkpointing from outside: blocks of any model forget their insides and compute them again for backward.

Chen et al. 2016 (arXiv 1604.06174); selective: Korthikanti et al. 2022 (arXiv 2205.05198), by operator.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from thrifty.errors import JobError, unknown_name

aten = torch.ops.aten
CHECKPOINTING = ("none", "selective", "full")

# What selective checkpointing keeps: results that take arithmetic to make. All else is bounded by memory traffic, and
# cheaper to make again than to hold.
_KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten.mkldnn_rnn_layer.default,
    aten._cudnn_rnn.default,
}

# Buffers that a norm updates in its forward pass; what it computes in training does not depend on them.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recomputing(model: nn.Module, how: str) -> nn.Module:
    """Make the repeated blocks of a model keep less for the backward pass; returns the model.

    What is learned stays the same: random numbers of a block are drawn again as they were, and running statistics are
    updated once. The last call counts; names of parameters and buffers do not change.

    Args:
        model: any module; its blocks are found by `repeated_blocks`.
        how: ``none``, as the model was made; ``full``, a block keeps its inputs alone; ``selective``, results of
            products and attention too.

    Raises:
        JobError: an unknown way, or a model without repeated blocks.

    >>> recomputing(nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3))), "full")
    ... # doctest: +ELLIPSIS
    Sequential(...
    """
    if how not in CHECKPOINTING:
        raise unknown_name("way of checkpointing", how, CHECKPOINTING)
    blocks = list(repeated_blocks(model))
    if how != "none" and not blocks:
        raise JobError(
            f"{type(model).__name__} has no repeated blocks to compute again", mend="Use checkpointing 'none'."
        )
    for block in blocks:
        if isinstance(block.forward, _Again):
            block.forward = block.forward.once
        if how != "none":
            block.forward = _Again(block, how)
    return model


def repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Find the outermost blocks that a model repeats: children of a list or sequence that share their class.

    A child counts when it holds modules of its own and at least one other child is of its class. Of a list inside such
    a block only the block counts.
    """
    if isinstance(model, nn.ModuleList | nn.Sequential):
        kinds = [type(child) for child in model if next(child.children(), None) is not None]
        if any(kinds.count(kind) > 1 for kind in kinds):
            yield from (child for child in model if kinds.count(type(child)) > 1)
            return
    for child in model.children():
        yield from repeated_blocks(child)


class _Again:
    """The forward of a block, which runs once more in the backward pass; ``once`` is the block's own."""

    def __init__(self, block: nn.Module, how: str) -> None:
        self._block, self.once = block, block.forward
        self._contexts = _CONTEXTS[how]
        functools.update_wrapper(self, block.forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.once(*args, **kwargs)
        contexts = functools.partial(self._contexts, self._block)
        return checkpoint(self.once, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _keep_nothing(block: nn.Module) -> Any:
    return contextlib.nullcontext(), _still_statistics(block)


def _keep_products(block: nn.Module) -> Any:
    first, again = create_selective_checkpoint_contexts(_policy)
    return first, _both(_still_statistics(block), again)


_CONTEXTS = {"full": _keep_nothing, "selective": _keep_products}


@contextlib.contextmanager
def _both(outer: Any, inner: Any) -> Iterator[None]:
    with outer, inner:
        yield


@contextlib.contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Let copies take the updates while this lasts: a pass that is repeated would count its batch twice."""
    real = [
        (module, name, module._buffers[name])
        for module in block.modules()
        for name in _STATISTICS
        if isinstance(module._buffers.get(name), torch.Tensor)
    ]
    for module, name, buffer in real:
        assert buffer is not None
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in real:
            module._buffers[name] = buffer


def _policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
