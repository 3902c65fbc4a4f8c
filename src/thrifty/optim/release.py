"""Gradient release: each parameter is stepped in the backward pass as soon as its gradient is whole, which then goes.

So gradients of the whole model never lie in memory at once, only those of the layer at work (Pudipeddi et al. 2020,
arXiv 2002.05645, for layers; Lv et al. 2023, arXiv 2306.09782, as "fusion of gradient computation and parameter
update"). Optimizers here step each parameter by its own gradient and state alone, so what is learned is the same; what
they share is the rate, which is set before, and of Muon products of matrices of one shape, which are taken one by one.

It cannot be had with what needs all gradients before the first weight changes: clipping by their norm, several
micro-batches or ranks a step, a scale of the loss, and leaving a step out for its gradient.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Unit
from thrifty.optim.groups import rate_of
from thrifty.optim.table import parameters_of
from thrifty.optim.together import Together

Around = Callable[[Sequence[Tensor]], AbstractContextManager[object]]


class Release:
    """Steps the parameters of an optimizer in the backward pass of `backward`; any other backward pass is left alone.

    Groups, states and with them checkpoints are the optimizer's own: a run may go on with or without. Its ``step`` is
    called at the end, without a gradient, for what belongs to a whole step: hooks, and counts that groups keep.

    Args:
        optimizer: of `thrifty.optim.build`.
        around: is entered while some parameters are stepped, whose gradients are there.

    >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> release = Release(torch.optim.SGD([weight], lr=1.0))
    >>> release.backward((weight**2).sum(), 1.0, rate=0.25).item(), weight.tolist(), weight.grad
    (10.0, [1.5, 2.0], None)
    """

    def __init__(self, optimizer: Optimizer, around: Around = lambda parameters: contextlib.nullcontext()) -> None:
        self.optimizer, self._around = optimizer, around
        self._units = units_of(optimizer)
        parameters = parameters_of(optimizer)
        self._order = {id(each): at for at, each in enumerate(parameters)}
        self._armed, self._stepping = False, True
        self._missing: list[int] = []
        # in one block: small ones that come between gradients would break the holes up that these leave in the heap
        wide = any(each.dtype == torch.float64 for each in parameters)
        dtype = torch.float64 if wide else torch.float32
        self._norms_N = torch.zeros(len(parameters), dtype=dtype, device=parameters[0].device)
        self._used: set[int] = set()
        self._handles = [
            each.register_post_accumulate_grad_hook(functools.partial(self._came, number))
            for number, (parameters, _) in enumerate(self._units)
            for each in parameters
        ]

    def backward(self, loss: Tensor, weight: float, rate: float) -> Tensor:
        """Take the backward pass of a loss with a whole step of the optimizer in it; return the norm of the gradient.

        Args:
            loss: a scalar.
            weight: by which it counts.
            rate: of the step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate_of(group, rate)
        self._missing, self._used = [len(parameters) for parameters, _ in self._units], set()
        self._armed = True
        try:
            loss.backward(loss.new_full((), weight))
        finally:
            self._armed = False
        for number, (parameters, _) in enumerate(self._units):
            # of some only a part was used
            if self._missing[number] and any(each.grad is not None for each in parameters):
                self._step(number)
        self.optimizer.step()
        # in the order in which the norm of kept gradients adds them up
        norms_N = self._norms_N if len(self._used) == len(self._norms_N) else self._norms_N[sorted(self._used)]
        return torch.linalg.vector_norm(norms_N)

    def rehearse(self, loss: Tensor) -> None:
        """Take the backward pass of a loss with gradients that come and go, and no step."""
        self._missing, self._used = [len(parameters) for parameters, _ in self._units], set()
        self._armed, self._stepping = True, False
        try:
            loss.backward()
        finally:
            self._armed, self._stepping = False, True
        self.optimizer.zero_grad(set_to_none=True)

    def remove(self) -> None:
        """Leave the parameters as they were."""
        for handle in self._handles:
            handle.remove()

    def _came(self, number: int, parameter: Tensor) -> None:
        """The gradient of a parameter is whole."""
        if not self._armed:
            return
        assert parameter.grad is not None
        dtype = torch.float32 if parameter.grad.dtype == torch.bfloat16 else None
        place = self._order[id(parameter)]
        self._norms_N[place] = torch._foreach_norm([parameter.grad], 2, dtype)[0]
        self._used.add(place)
        self._missing[number] -= 1
        if not self._missing[number]:
            self._step(number)

    def _step(self, number: int) -> None:
        parameters, step = self._units[number]
        if self._stepping:
            with self._around(parameters):
                step()
        for each in parameters:
            each.grad = None


@contextlib.contextmanager
def releasing(optimizer: Optimizer, wanted: bool) -> Iterator[Release | None]:
    """Give what releases gradients where that is wanted; parameters are as they were afterwards."""
    if not wanted:
        yield None
        return
    release = Release(optimizer)
    try:
        yield release
    finally:
        release.remove()


def units_of(optimizer: Optimizer) -> list[Unit]:
    """List what of an optimizer can be stepped apart: single parameters, but for one that says otherwise by ``units``.

    >>> one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    >>> units = units_of(torch.optim.SGD([one, other], lr=0.5))
    >>> one.grad = other.grad = torch.ones(2)
    >>> _ = units[1][1]()
    >>> one.tolist(), other.tolist()
    ([1.0, 1.0], [0.5, 0.5])
    """
    own: Callable[[], list[Unit]] | None = getattr(optimizer, "units", None)
    if own is not None:
        return own()
    if isinstance(optimizer, Together):
        return [unit for part in optimizer.parts for unit in units_of(part)]
    # without the hooks, which are for whole steps
    alone = copy.copy(optimizer)
    return [
        ([parameter], functools.partial(_step_alone, optimizer, alone, number, parameter))
        for number, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    ]


def _step_alone(optimizer: Optimizer, alone: Optimizer, number: int, parameter: Tensor) -> Any:
    """Step one parameter by its group as it is; what a group counts of steps is counted in a copy, and forgotten."""
    alone.state = optimizer.state
    alone.param_groups = [{**optimizer.param_groups[number], "params": [parameter]}]
    return alone.step()
