"""Lion: steps of one size, by the sign of the momentum alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated, gather, zeros


class Lion(Optimizer):
    """Step by the sign of a momentum, which is the only state (Chen et al. 2023, algorithm 2).

    With gradient ``g``, momentum ``m``, rate ``r``, decay ``d``::

        w <- w - r (sign(b1 m + (1 - b1) g) + d w)
        m <- b2 m + (1 - b2) g

    Args:
        params: parameters, or groups of them.
        lr: rate; every number moves by it in each step.
        betas: share of the momentum in a step, and in the next momentum.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters, gradients, states = gather(self, group, lambda each: {"momentum": zeros(each)})
            if not parameters:
                continue
            (beta1, beta2), rate = group["betas"], group["lr"]
            momenta = [state["momentum"] for state in states]
            updates = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-rate)
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
        return loss
