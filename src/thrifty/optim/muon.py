"""Muon: momentum of a whole matrix, turned into the nearest orthogonal one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated, gather, zeros

# of the quintic iteration: the steepest at zero that stays bounded (Jordan et al. 2024)
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
# AdamW's steps have about this root mean square (Liu et al. 2025, section 2.2)
ADAMW_SIZE = 0.2


class Muon(Optimizer):
    """Step by the orthogonal matrix nearest to a Nesterov momentum (Jordan et al. 2024).

    With gradient ``g`` of ``m x n`` numbers, momentum ``v``, rate ``r``, decay ``d``::

        v <- u v + (1 - u) g
        w <- w - r d w
        w <- w - 0.2 sqrt(max(m, n)) r NS((1 - u) g + u v)

    ``NS`` takes singular values to about 1. Its factor makes the step as large as AdamW's, whose rate and decay then
    serve (Liu et al. 2025). A convolution is the matrix of its channels by all else (Jordan et al. 2024). The steps are
    those of `torch.optim.Muon` with ``match_rms_adamw``, which takes no convolutions and one matrix at a time; here
    those of one shape go together.

    Args:
        params: parameters of two or more dimensions, or groups of them.
        lr: rate.
        momentum: ``u``.
        weight_decay: for groups that do not say theirs.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters, gradients, states = gather(self, group, lambda each: {"momentum": zeros(each)})
            if not parameters:
                continue
            momenta, rate = [state["momentum"] for state in states], group["lr"]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            alike: dict[tuple[int, ...], list[int]] = {}
            for index, update in enumerate(updates):
                alike.setdefault(tuple(update.shape), []).append(index)
            for shape, places in alike.items():
                size = ADAMW_SIZE * math.sqrt(max(shape[0], math.prod(shape[1:])))
                whole = orthogonal(torch.stack([updates[index].flatten(1) for index in places]))
                for index, each in zip(places, whole.unbind(), strict=True):
                    parameters[index].add_(each.reshape(shape), alpha=-rate * size)
        return loss


def orthogonal(x_KMN: Tensor) -> Tensor:
    """Take the singular values of K matrices to about 1, between 0.7 and 1.2, their singular vectors left as they are.

    Five steps of the odd polynomial ``a x + b x^3 + c x^5`` after scaling; in bf16, which is enough for a direction, or
    in float64 where that comes in.
    """
    x_KMN = x_KMN if x_KMN.dtype == torch.float64 else x_KMN.bfloat16()
    tall = x_KMN.shape[-2] > x_KMN.shape[-1]
    x_KMN = x_KMN.mT if tall else x_KMN
    x_KMN = x_KMN / torch.linalg.vector_norm(x_KMN, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram_KMM = x_KMN @ x_KMN.mT
        x_KMN = torch.baddbmm(x_KMN, torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=B, alpha=C), x_KMN, beta=A)
    return x_KMN.mT if tall else x_KMN
