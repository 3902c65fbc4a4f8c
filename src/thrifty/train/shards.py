"""Fully sharded: each rank holds a part of every weight, gradient and optimizer state; a block is whole while it runs.

FSDP2 (Zhao et al. 2023, arXiv 2304.11277): ``fully_shard`` on each repeated block, and on the rest. Gradients are
summed and shared out after each micro-batch. Checkpoints hold whole tensors, so they are those of one device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from thrifty.models.recompute import repeated_blocks
from thrifty.train.norms import SharedNorms
from thrifty.train.ranks import World, root_of_squares
from thrifty.train.replicas import give_first_ranks


class Shards:
    """A model whose weights are shared out.

    Args:
        world: more than one rank.
        model: built alike on every rank, on the device; its parameters are replaced by their parts.
    """

    # blocks are gathered by all ranks together: one without samples computes along
    computes_along = True
    copies = True

    def __init__(self, world: World, model: nn.Module) -> None:
        assert world.mesh is not None
        self.world, self.model = world, model
        give_first_ranks(world, model)
        self._norms = SharedNorms(world, model)
        for block in (*repeated_blocks(model), model):
            sharded = fully_shard(block, mesh=world.mesh)
            assert isinstance(sharded, FSDPModule)
            # the sum of the ranks' gradients, not their mean; gloo knows no other
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def follow(self, optimizer: Optimizer) -> None:
        """Have an optimizer step by parts: where its fused kernel knows none, by another that does the same."""
        if isinstance(optimizer, torch.optim.SGD | torch.optim.Adagrad):
            for group in optimizer.param_groups:
                group["fused"] = False

    def begin(self, answers: np.ndarray) -> None:
        """Say which answers of the micro-batch that comes next there are."""
        self._norms.begin(answers)

    def last(self, whether: bool) -> None:
        """Nothing depends on it: each micro-batch is summed."""

    def sum(self) -> None:
        """Nothing is left to wait for: the backward pass ends with the sums."""

    def own(self, gradient: Tensor) -> Tensor:
        """The part of a gradient that lies here."""
        return gradient.to_local() if isinstance(gradient, DTensor) else gradient

    def agreed(self, loss: float, norm: float) -> tuple[float, float]:
        """The loss and the gradient's norm of the whole step, the same bits on each rank."""
        said = self.world.gather(loss, norm)
        return sum(each[0] for each in said), root_of_squares(each[1] for each in said)

    @torch.no_grad()
    def whole(self, tree: Any) -> Any:
        """Copy tensors of nested dicts, lists and tuples to rank 0's host memory, put together; empty on the others."""
        if isinstance(tree, DTensor):
            full = tree.full_tensor()
            return full.cpu() if self.world.first else full.new_empty(0)
        if isinstance(tree, Tensor):
            return tree.detach().to("cpu", copy=True)
        if isinstance(tree, dict):
            return {name: self.whole(each) for name, each in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self.whole(each) for each in tree)
        return tree

    def parts(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this rank holds of a model's whole tensors."""
        own = self.model.state_dict()
        return {name: _part_like(own[name], value) if name in own else value for name, value in state.items()}

    def optimizer_parts(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """What this rank holds of an optimizer's whole state."""
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        held = {
            at: {name: _part_like(parameters[at], value) for name, value in values.items()}
            for at, values in state["state"].items()
        }
        return {**state, "state": held}

    def release(self) -> None:
        """Take batch norms over ranks out of the model; its weights stay shared out."""
        self._norms.release()


def _part_like(like: Tensor, value: Any) -> Any:
    """Cut a whole tensor as another of its shape is cut; all else stays."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # every rank has read the whole: nothing is sent
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
