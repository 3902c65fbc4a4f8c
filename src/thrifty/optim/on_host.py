"""Any optimizer with its states in the processor's memory, where it steps copies of the weights (Ren et al. 2021).

Gradients go down, the step is taken there, weights come up: a GPU then holds no states, and waits for all three. After
ZeRO-Offload (arXiv 2101.06840), without its delayed update: what is learned is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, evaluated
from thrifty.optim.groups import Parameters
from thrifty.optim.lending import exchange, lent

HOST = torch.device("cpu")


class OnHost(Optimizer):
    """Steps copies of weights in the processor's memory; groups and states are those of the optimizer that does.

    Weights that others have changed, say by loading a checkpoint, are copied down before the next step.

    Args:
        parameters: what is trained, on any device.
        make: makes the optimizer of their copies.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> parameters = Parameters({"vector": [weight]})
    >>> optimizer = OnHost(parameters, lambda part: torch.optim.SGD(part.by_kind["vector"], lr=0.5))
    >>> weight.grad = torch.ones(2)
    >>> optimizer.step()
    >>> weight.tolist()
    [0.5, 0.5]
    """

    def __init__(self, parameters: Parameters, make: Callable[[Parameters], Optimizer]) -> None:
        self._held = [each for kind in parameters.by_kind.values() for each in kind]
        self._copies = [_like(each).copy_(each.detach()) for each in self._held]
        self._gradients = [_like(each) for each in self._held]
        self._seen = [_stand(each) for each in self._held]
        self._inner = make(
            parameters.instead({id(one): other for one, other in zip(self._held, self._copies, strict=True)})
        )
        exchange(self._inner, self._copies, self._held)
        super().__init__(self._inner.param_groups, {})
        self._share()
        if hasattr(self._inner, "eval"):
            self.eval, self.train = self._turning("eval"), self._turning("train")

    def step(self, closure: Closure = None) -> Any:
        """Take the gradients down, step, and bring the weights up."""
        loss = evaluated(closure)
        for held, copy, gradient in zip(self._held, self._copies, self._gradients, strict=True):
            copy.grad = gradient.copy_(held.grad, non_blocking=True) if held.grad is not None else None
        self._work(self._inner.step)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer would save without copies: either goes on from the other's."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; states lie in the processor's memory again."""
        with lent(self._inner, self._held, self._copies):
            self._inner.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self._inner.param_groups, self._inner.state

    @torch.no_grad()
    def _work(self, work: Callable[[], Any]) -> None:
        """Have the optimizer work on the copies, and the weights follow."""
        for number, (held, copy) in enumerate(zip(self._held, self._copies, strict=True)):
            if _stand(held) != self._seen[number]:
                copy.copy_(held, non_blocking=True)
        for device in {each.device for each in self._held}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        with lent(self._inner, self._held, self._copies):
            work()
        for number, (held, copy) in enumerate(zip(self._held, self._copies, strict=True)):
            held.copy_(copy, non_blocking=True)
            self._seen[number] = _stand(held)

    def _turning(self, name: str) -> Callable[[], None]:
        return lambda: self._work(getattr(self._inner, name))


def _like(tensor: Tensor) -> Tensor:
    """Memory of the processor for a tensor, in its order; from a GPU's, pinned, so that copies need not wait."""
    pinned = tensor.device.type == "cuda"
    return torch.empty_like(tensor, device=HOST, pin_memory=pinned, requires_grad=False)


def _stand(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written to."""
    return tensor.data_ptr(), tensor._version
