"""Data parallel: a copy of the model on each rank; their gradients are summed while the backward pass still computes.

As PyTorch DDP does it (Li et al. 2020, arXiv 2006.15704), but the sum, not the mean, and without a module around the
model. Gradients are summed in groups, in the order in which the backward pass makes them, each group once it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.optim import parameters_of
from thrifty.optim.buckets import buckets_of
from thrifty.train.alone import OneDevice
from thrifty.train.norms import SharedNorms
from thrifty.train.ranks import World


class Replicas(OneDevice):
    """A copy of the model on each rank, as whole as on one.

    Args:
        world: more than one rank.
        model: built alike on every rank; rank 0's values are everyone's from here on.
    """

    def __init__(self, world: World, model: nn.Module) -> None:
        self.world, self.model = world, model
        self._sums: GradientSums | None = None
        give_first_ranks(world, model)
        self._norms = SharedNorms(world, model)
        self.computes_along = bool(self._norms.norms)

    def follow(self, optimizer: Optimizer) -> None:
        """Sum the gradients that an optimizer steps by; it is asked once, before the first step."""
        place = {id(each): at for at, each in enumerate(self.model.parameters())}
        # the rows used of an embedding are no parameter of the model; they are read first
        trained = sorted(parameters_of(optimizer), key=lambda each: place.get(id(each), -1))
        self._sums = GradientSums(trained, self.world)

    def begin(self, answers: np.ndarray) -> None:
        """Say which answers of the micro-batch that comes next there are."""
        self._norms.begin(answers)

    def last(self, whether: bool) -> None:
        """Say whether the micro-batch that comes next is the last of its step on this rank."""
        assert self._sums is not None
        self._sums.last = whether

    def sum(self) -> None:
        """Wait until gradients are those of the whole step."""
        assert self._sums is not None
        self._sums.finish()

    def agreed(self, loss: float, norm: float) -> tuple[float, float]:
        """The loss and the gradient's norm of the whole step, the same bits on each rank."""
        assert self._sums is not None
        said = self.world.gather(loss, norm, *map(float, self._sums.came))
        self._sums.forget_unused([any(counts) for counts in zip(*(each[2:] for each in said), strict=True)])
        return sum(each[0] for each in said), said[0][1]

    def release(self) -> None:
        """Take what was put into the model out of it."""
        self._norms.release()


class GradientSums:
    """Sums gradients over the ranks.

    Args:
        parameters: in the order of the forward pass, the same on each rank.
        world: the ranks.
    """

    def __init__(self, parameters: Sequence[Tensor], world: World) -> None:
        self.last, self.came = False, [False] * len(parameters)
        self._parameters, self._group = parameters, world.group
        self._buckets = buckets_of(parameters)
        self._place = {id(parameters[at]): place for place, bucket in enumerate(self._buckets) for at in bucket}
        self._begin()
        for each in parameters:
            each.register_post_accumulate_grad_hook(self._note)

    def _begin(self) -> None:
        self._missing = [len(bucket) for bucket in self._buckets]
        self._next = 0
        self._sent: list[tuple[Any, Tensor, list[Tensor]]] = []

    def _note(self, parameter: Tensor) -> None:
        """A gradient is there; send the groups that are complete, in the same order on each rank."""
        if not self.last:
            return
        self._missing[self._place[id(parameter)]] -= 1
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        gradients = []
        for at in self._buckets[self._next]:
            parameter = self._parameters[at]
            self.came[at] = parameter.grad is not None
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self._next += 1
        alone = len(gradients) == 1 and gradients[0].is_contiguous()
        packed = gradients[0] if alone else torch.cat([each.flatten() for each in gradients])
        work = dist.all_reduce(packed, group=self._group, async_op=True)
        self._sent.append((work, packed, [] if alone else gradients))

    @torch.no_grad()
    def finish(self) -> None:
        """Send what is left, wait for all of it, and put sums where the gradients were."""
        while self._next < len(self._buckets):
            self._send()
        for work, packed, gradients in self._sent:
            work.wait()
            parts = packed.split([each.numel() for each in gradients]) if gradients else ()
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        self._begin()

    def forget_unused(self, used: Sequence[bool]) -> None:
        """Leave parameters that no rank has used without gradients, so that they stay as they are."""
        for parameter, was in zip(self._parameters, used, strict=True):
            if not was:
                parameter.grad = None


@torch.no_grad()
def give_first_ranks(world: World, model: nn.Module) -> None:
    """Give every rank the values that rank 0's model has, whatever else its own code may have drawn."""
    for tensor in model.state_dict(keep_vars=True).values():
        value = tensor.detach().contiguous()
        dist.broadcast(value, 0, group=world.group)
        if value.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(value)
