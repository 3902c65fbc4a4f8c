"""Several optimizers, each over parameters of its own, as one optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated


class Together(Optimizer):
    """Steps its parts one after the other; groups, states, and with them checkpoints, are theirs together.

    >>> import torch
    >>> one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    >>> both = Together(torch.optim.SGD([one], lr=0.5), torch.optim.AdamW([other], lr=0.5))
    >>> (one + other).sum().backward()
    >>> both.step()
    >>> one.tolist(), len(both.param_groups), len(both.state_dict()["state"])
    ([0.5, 0.5], 2, 1)
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and states that are saved and loaded here."""
        begin = 0
        for part in self.parts:
            end = begin + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[begin:end], self.state
            begin = end

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def step(self, closure: Closure = None) -> Any:
        """Step every part."""
        loss = evaluated(closure)
        for part in self.parts:
            part.step()
        return loss
