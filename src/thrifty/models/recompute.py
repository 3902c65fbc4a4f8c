"""Activation checkpointing from outside: blocks of any model forget their insides and compute them again for backward.

Chen et al. 2016 (arXiv 1604.06174); selective: Korthikanti et al. 2022 (arXiv 2205.05198), by operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
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
    aten.mkldnn_rnn_layer.default,
}


def recomputing(model: nn.Module, how: str) -> nn.Module:
    """Make the repeated blocks of a model keep less for the backward pass; returns the model.

    What is learned stays the same: random numbers of a block are drawn again as they were.

    Args:
        model: any module; its blocks are found by `repeated_blocks`.
        how: ``none``; ``full``, a block keeps its inputs alone; ``selective``, results of products and attention too.

    Raises:
        JobError: an unknown way, or a model without repeated blocks.

    >>> recomputing(nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3))), "full")
    ... # doctest: +ELLIPSIS
    Sequential(...
    """
    if how not in CHECKPOINTING:
        raise unknown_name("way of checkpointing", how, CHECKPOINTING)
    if how == "none":
        return model
    blocks = list(repeated_blocks(model))
    if not blocks:
        raise JobError(
            f"{type(model).__name__} has no repeated blocks to compute again", mend="Use checkpointing 'none'."
        )
    for block in blocks:
        block.forward = _again(block.forward, how)
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


def _again(forward: Callable[..., Any], how: str) -> Callable[..., Any]:
    again = functools.partial(checkpoint, use_reentrant=False)
    if how == "selective":
        again = functools.partial(again, context_fn=_keep_products)

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return again(forward, *args, **kwargs)

    return wrapped


def _keep_products() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
