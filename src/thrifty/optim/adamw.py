"""AdamW as torch steps it, without what torch does around its fused kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thrifty.optim.gather import Closure, evaluated


class AdamW(torch.optim.AdamW):
    """torch's AdamW, bit for bit, over parameters of one type on one device, by its fused kernel alone.

    Before that kernel, torch's own step opens a range for profilers, asks whether it is being compiled, and sorts
    tensors by type and device: of a small model three quarters of its time. Hooks of a step are called as by torch's,
    save those that are registered for all optimizers at once.

    Args:
        params, settings: of torch's; it is fused.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.ones(1)
    >>> AdamW([weight], lr=0.5, weight_decay=0.0).step()
    >>> round(weight.item(), 4)
    0.5
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings, fused=True)

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, (), {})
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            means: list[Tensor] = []
            squares: list[Tensor] = []
            counts: list[Tensor] = []
            self._init_group(group, parameters, gradients, means, squares, [], counts)
            if not parameters:
                continue
            torch._foreach_add_(counts, 1)
            beta1, beta2 = group["betas"]
            torch._fused_adamw_(
                parameters,
                gradients,
                means,
                squares,
                [],
                counts,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})
        return loss

    # torch wraps a step that does not say so in a range for profilers, and calls the hooks there
    step.hooked = True  # type: ignore[attr-defined]
