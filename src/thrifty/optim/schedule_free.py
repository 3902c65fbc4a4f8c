"""Schedule-free AdamW: an average of the weights takes the place of a falling rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated, gather, zeros


class ScheduleFreeAdamW(Optimizer):
    """Step a fast sequence, average it, and take gradients between both (Defazio et al. 2024, algorithm 1).

    With the fast weights ``z``, their average ``x``, the gradient ``g`` at ``y``, Adam's second moment ``s``, decay
    ``d``, and at step ``t`` the rate ``r = lr sqrt(1 - b2^t)``, of which ``R`` is the largest so far::

        y = (1 - b1) z + b1 x
        s <- b2 s + (1 - b2) g^2
        z <- z - r (g / (sqrt(s) + eps) + d y)
        x <- (1 - c) x + c z,   c = R^2 / sum of all R^2

    The model holds ``y`` while it trains, and ``x`` between `eval` and `train`: ``x`` is what is measured and kept.
    A running statistic of a batch norm stays that of ``y``.

    Args:
        params: parameters, or groups of them.
        lr: rate; its warm-up weighs less in the average.
        betas: share of the average in the weights that train; of the second moment.
        eps: beside the root.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        progress = {"steps": 0, "highest": 0.0, "weight": 0.0, "training": True}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, **progress})

    def eval(self) -> None:
        """Put the average into the model."""
        self._turn(training=False)

    def train(self) -> None:
        """Put the weights that train into the model."""
        self._turn(training=True)

    @torch.no_grad()
    def _turn(self, *, training: bool) -> None:
        for group in self.param_groups:
            stepped = [each for each in group["params"] if self.state.get(each)]
            if group["training"] != training and stepped:
                beta1 = group["betas"][0]
                fast: list[Tensor] = [self.state[each]["fast"] for each in stepped]
                # x = y + (1 - 1 / b1) (z - y), and back
                torch._foreach_lerp_(stepped, fast, 1 - beta1 if training else 1 - 1 / beta1)
            group["training"] = training

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step; the model must hold the weights that train."""
        loss = evaluated(closure)
        for group in self.param_groups:
            assert group["training"], "the model holds the average: call train() first"
            parameters, gradients, states = gather(
                self, group, lambda each: {"fast": each.clone(), "second": zeros(each)}
            )
            group["steps"] += 1
            (beta1, beta2), decay = group["betas"], group["weight_decay"]
            rate = group["lr"] * math.sqrt(1 - beta2 ** group["steps"])
            group["highest"] = max(group["highest"], rate)
            group["weight"] += group["highest"] ** 2
            share = group["highest"] ** 2 / group["weight"] if group["weight"] else 0.0
            if not parameters:
                continue
            fast, second = ([state[name] for state in states] for name in ("fast", "second"))
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            roots = torch._foreach_sqrt(second)
            torch._foreach_add_(roots, group["eps"])
            updates = torch._foreach_div(gradients, roots)
            if decay:
                torch._foreach_add_(updates, parameters, alpha=decay)
            # y moves as x and z do: y <- y + c (z - y) - r (1 - b1 (1 - c)) u
            torch._foreach_lerp_(parameters, fast, share)
            torch._foreach_add_(parameters, updates, alpha=-rate * (1 - beta1 * (1 - share)))
            torch._foreach_add_(fast, updates, alpha=-rate)
        return loss
