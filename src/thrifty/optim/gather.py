"""What a step of an optimizer works on: the parameters of a group that have a gradient, with gradients and states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]
Closure = Callable[[], float] | None
# parameters that can be stepped apart from all others, and what steps them
Unit = tuple[Sequence[Tensor], Callable[[], Any]]


def gather(
    optimizer: Optimizer, group: dict[str, Any], make: Callable[[Tensor], State]
) -> tuple[list[Tensor], list[Tensor], list[State]]:
    """Return parameters, gradients and states of a group, a parameter without a gradient left out.

    A state counts the steps of its parameter as ``step``, a plain number: reading one from a device would wait for it.

    Args:
        optimizer: that holds the states.
        group: one of its parameter groups.
        make: the rest of a parameter's state, before its first step.
    """
    parameters = [each for each in group["params"] if each.grad is not None]
    states = [optimizer.state[each] for each in parameters]
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state.update(step=0, **make(parameter))
        state["step"] += 1
    return parameters, [each.grad for each in parameters], states


def zeros(parameter: Tensor) -> Tensor:
    """A state of a parameter's own shape and memory order."""
    return torch.zeros_like(parameter, memory_format=torch.preserve_format)


def evaluated(closure: Closure) -> float | None:
    """Evaluate the loss again, as `torch.optim.Optimizer.step` may be asked to."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
