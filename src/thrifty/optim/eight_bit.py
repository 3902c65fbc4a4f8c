"""AdamW with states of one byte a number: codes of a table of 256 levels, and a scale for each block."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, State, evaluated, gather, zeros

BLOCK = 256
# smaller tensors keep fp32 states, as in bitsandbytes: they weigh nothing
LEAST = 4096


def levels(signed: bool) -> list[float]:
    """List the 256 numbers in [-1, 1], or in [0, 1], that a code may stand for, rising.

    Dynamic tree quantization (Dettmers 2016; Dettmers et al. 2022, section 1.3): each decade down to 1e-7 has half as
    many levels as the one above it.

    >>> signed, unsigned = levels(True), levels(False)
    >>> len(set(signed)), len(set(unsigned)), signed[-1], 0.0 in signed, min(level for level in unsigned if level)
    (256, 256, 1.0, True, 3.25e-07)
    """
    found = [0.0, 1.0]
    for decade in range(7):
        count = 2 ** (6 - decade) * (1 if signed else 2)
        for place in range(count):
            level = 10.0**-decade * (0.1 + 0.9 * (place + 0.5) / count)
            found += [level, -level] if signed else [level]
    return sorted(found)


class AdamW8bit(Optimizer):
    """AdamW whose moments are kept in 8 bits, a scale for each 256 numbers (Dettmers et al. 2022).

    The step is AdamW's, on moments read from their codes; the new moments are written as the nearest codes, each block
    over its largest magnitude. A tensor of under 4,096 numbers, or of no whole number of blocks, keeps fp32 moments.

    torchao's optimizer of that name needs ``torch.compile`` for every step, which takes a compiler, costs seconds to
    minutes before the first step, and hides the step from a trace; this one is plain torch, and slower on a GPU.

    Args:
        params: parameters, or groups of them.
        lr: rate.
        betas: of the two moments.
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
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load states; torch takes all of them to the type of their parameter, and codes are none of it."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in [name for name in state if name.endswith("_codes")]:
                state[name] = state[name].to(torch.uint8)

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Take a step."""
        loss = evaluated(closure)
        tables: dict[tuple[bool, torch.device], Tensor] = {}
        for group in self.param_groups:
            parameters, gradients, states = gather(self, group, _moments)
            if not parameters:
                continue
            (beta1, beta2), rate = group["betas"], group["lr"]
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            # one by one: only one tensor's moments are ever whole
            for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
                first, second = (_read(state, name, tables) for name in ("first", "second"))
                flat = gradient.reshape(first.shape)
                first.lerp_(flat, 1 - beta1)
                second.mul_(beta2).addcmul_(flat, flat, value=1 - beta2)
                _write(state, "first", first, tables)
                _write(state, "second", second, tables)
                root = second.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
                update = first.div(root).reshape(parameter.shape)
                parameter.add_(update, alpha=-rate / (1 - beta1 ** state["step"]))
        return loss


def _moments(parameter: Tensor) -> State:
    blocks, rest = divmod(parameter.numel(), BLOCK)
    if parameter.numel() < LEAST or rest:
        return {"first": zeros(parameter), "second": zeros(parameter)}
    state: State = {}
    for name, zero in (("first", levels(True).index(0.0)), ("second", levels(False).index(0.0))):
        state[f"{name}_codes"] = parameter.new_full((blocks, BLOCK), zero, dtype=torch.uint8)
        state[f"{name}_scale"] = parameter.new_zeros((blocks, 1))
    return state


def _read(state: State, name: str, tables: dict[tuple[bool, torch.device], Tensor]) -> Tensor:
    """A moment in full: as it is kept, or [blocks, 256] from its codes."""
    if name in state:
        kept: Tensor = state[name]
        return kept
    codes, scale = state[f"{name}_codes"], state[f"{name}_scale"]
    return _table(name, codes.device, tables).to(scale.dtype)[codes.int()].mul_(scale)


def _write(state: State, name: str, moment: Tensor, tables: dict[tuple[bool, torch.device], Tensor]) -> None:
    """Keep a moment that was read: nothing to do where it is kept in full, else codes and scales anew."""
    if name in state:
        return
    scale = moment.abs().amax(dim=1, keepdim=True)
    table = _table(name, moment.device, tables).to(moment.dtype)
    between = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(moment / scale.clamp(min=torch.finfo(moment.dtype).tiny), between, out_int32=True)
    state[f"{name}_codes"].copy_(codes)
    state[f"{name}_scale"].copy_(scale)


def _table(name: str, device: torch.device, tables: dict[tuple[bool, torch.device], Tensor]) -> Tensor:
    """The levels of a moment on a device; the second is never negative."""
    signed = name == "first"
    if (signed, device) not in tables:
        tables[signed, device] = torch.tensor(levels(signed)).to(device)
    return tables[signed, device]
