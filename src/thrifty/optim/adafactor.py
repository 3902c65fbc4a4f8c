"""Adafactor: Adam's second moment as a row and a column, no first moment, steps measured by the tensor's own size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, State, evaluated, gather, zeros

# Shazeer and Stern 2018, section 9: the exponent of the growing memory, the least size of a tensor, the largest update
DECAY_EXPONENT, LEAST_SIZE, MOST_UPDATE = -0.8, 1e-3, 1.0


class Adafactor(Optimizer):
    """Step by the gradient over a factored root mean square (Shazeer and Stern 2018, algorithm 4).

    At step ``t``, with gradient ``g``, rate ``r``, decay ``d``, and rows and columns over the last two dimensions::

        b = 1 - t^-0.8
        R <- b R + (1 - b) mean of g^2 by row,   C likewise by column,   V = R C / mean(R)
        u = g / sqrt(V),   u <- u / max(1, rms(u))
        w <- w - r d w
        w <- w - min(r, 1 / sqrt(t)) max(0.001, rms(w)) u

    A tensor of one dimension keeps ``V`` whole. The steps are those of `torch.optim.Adafactor`, which reads two norms
    of each tensor back from the device before it goes on, so that no step could be traced without values; here they
    stay there.

    Args:
        params: parameters, or groups of them.
        lr: highest rate, as a share of each tensor's root mean square.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters, gradients, states = gather(self, group, _moments)
            if not parameters:
                continue
            rate = group["lr"]
            sizes = torch._foreach_norm(parameters)
            torch._foreach_div_(sizes, [math.sqrt(each.numel()) for each in parameters])
            torch._foreach_clamp_min_(sizes, LEAST_SIZE)
            torch._foreach_mul_(sizes, [-min(rate, 1 / math.sqrt(state["step"])) for state in states])
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            updates = [_direction(gradient, state) for gradient, state in zip(gradients, states, strict=True)]
            norms = torch._foreach_norm(updates)
            torch._foreach_div_(norms, [math.sqrt(each.numel()) * MOST_UPDATE for each in updates])
            torch._foreach_clamp_min_(norms, 1.0)
            torch._foreach_div_(sizes, norms)
            torch._foreach_mul_(updates, sizes)
            torch._foreach_add_(parameters, updates)
        return loss


def _moments(parameter: Tensor) -> State:
    if parameter.dim() < 2:
        return {"square": zeros(parameter)}
    *outer, rows, columns = parameter.shape
    return {"row": parameter.new_zeros((*outer, rows, 1)), "column": parameter.new_zeros((*outer, 1, columns))}


def _direction(gradient: Tensor, state: State) -> Tensor:
    """The gradient over its root mean square, whose moments are brought up to date."""
    fresh, least = float(state["step"]) ** DECAY_EXPONENT, torch.finfo(gradient.dtype).eps
    if "square" in state:
        mean = state["square"].lerp_(gradient.square(), fresh)
        return mean.clamp(min=least**2).rsqrt_().mul_(gradient)
    # a norm reads the gradient without writing its square down
    for name, dim in (("row", -1), ("column", -2)):
        norm = torch.linalg.vector_norm(gradient, dim=dim, keepdim=True)
        state[name].lerp_(norm.square_().div_(gradient.shape[dim]), fresh)
    row, column = state["row"], state["column"]
    mean = (row @ column).div_(row.mean(dim=-2, keepdim=True).clamp_(min=least))
    return mean.clamp_(min=least**2).rsqrt_().mul_(gradient)
