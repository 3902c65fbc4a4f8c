"""LAMB: Adam whose step on each tensor is measured by the tensor's own size, for large batches."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated, gather, zeros


class Lamb(Optimizer):
    """Step by Adam's direction at the length of the weights (You et al. 2020, algorithm 2).

    With Adam's moments ``m`` and ``s``, each over its bias, rate ``r``, decay ``d``::

        u = m / (sqrt(s) + eps) + d w
        w <- w - r |w| / |u| u

    The ratio is 1 where either norm is 0, and for tensors of one dimension: the authors' code leaves norms and biases
    out of it.

    Args:
        params: parameters, or groups of them.
        lr: rate, as a share of each tensor's norm.
        betas: of the two moments.
        eps: beside the root.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters, gradients, states = gather(
                self, group, lambda each: {"first": zeros(each), "second": zeros(each)}
            )
            if not parameters:
                continue
            beta1, beta2 = group["betas"]
            first, second = ([state[name] for state in states] for name in ("first", "second"))
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            updates = torch._foreach_sqrt(second)
            torch._foreach_div_(updates, [math.sqrt(1 - beta2 ** state["step"]) for state in states])
            torch._foreach_add_(updates, group["eps"])
            torch._foreach_mul_(updates, [1 - beta1 ** state["step"] for state in states])
            updates = torch._foreach_div(first, updates)
            if group["weight_decay"]:
                torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            _measure(parameters, list(updates))
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss


def _measure(parameters: list[Tensor], updates: list[Tensor]) -> None:
    """Give each update of a matrix the norm of the matrix."""
    places = [index for index, each in enumerate(parameters) if each.dim() >= 2]
    if not places:
        return
    matrices = [updates[index] for index in places]
    # norms stay on the device: a number read from there would hold the step up
    weight = torch.stack(torch._foreach_norm([parameters[index] for index in places]))
    update = torch.stack(torch._foreach_norm(matrices))
    ratio = torch.where((weight > 0) & (update > 0), weight / update, torch.ones_like(weight))
    torch._foreach_mul_(matrices, list(ratio.unbind()))
