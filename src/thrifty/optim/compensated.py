"""Any optimizer over weights that are held in bf16: it steps float32 numbers, of which bf16 keeps the upper half.

A weight of 8 bits of mantissa stands still where its updates are under half of its last bit, which at usual rates most
are (Zamirai et al. 2020, arXiv 2010.06192). Two ways mend that:

- ``compensated``: what rounding took is kept beside the weight, and added again before the next step, as Kahan's sum
  does. Here it is the whole of it: a float32 number is a bf16 one and 16 bits, so the optimizer steps just what it
  would step with weights in float32, in as much memory (Split-SGD of Kalamkar et al. 2020, arXiv 2005.04680, which cuts
  the lower bits off where this rounds to the nearest). Products are with the upper half alone.
- ``stochastic``: the update is rounded up or down by chance, in proportion to where it lies, so that in the mean it is
  right (Gupta et al. 2015, arXiv 1502.02551); nothing is kept.

States are of float32 in either way. Weights are made float32 a bucket at a time, so that little memory is needed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.optim.gather import Closure, Unit, evaluated
from thrifty.optim.groups import Parameters
from thrifty.optim.lending import exchange, lent

# of a bucket, in parameters: its weights and gradients in float32 take 8 MiB, or as much as its one tensor needs
BUCKET = 1 << 20
# bits of a float32 number that bf16 has not
_LOW = 16


class Bf16Weights(Optimizer):
    """Steps weights in bf16 by an optimizer of each bucket of them; those of another type by one that knows no better.

    Groups are those of all these optimizers, over the weights themselves; states are theirs too, in float32.

    Args:
        parameters: what is trained, each in bf16 or float32.
        make: makes the optimizer of some of them.
        compensated: keep what rounding takes; else it is up to chance.
        seed: of that chance; its generator is part of the state.

    >>> weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    >>> parameters = Parameters({"vector": [weight]})
    >>> make = lambda part: torch.optim.SGD(part.by_kind["vector"], lr=0.001)
    >>> optimizer = Bf16Weights(parameters, make, compensated=True)
    >>> for _ in range(100):
    ...     weight.grad = torch.ones_like(weight)
    ...     optimizer.step()
    >>> round(weight.item(), 2)  # in bf16 alone 1 - 0.001 is 1
    0.9
    """

    def __init__(
        self, parameters: Parameters, make: Callable[[Parameters], Optimizer], *, compensated: bool, seed: int = 0
    ) -> None:
        self._draws = None if compensated else _Draws(seed)
        self.parts = [_Part(each, make, compensated) for each in _buckets(parameters)]
        self._apart: set[int] = set()
        super().__init__(self._groups(), {})
        self._show()
        if self.parts and hasattr(self.parts[0].inner, "eval"):
            self.eval, self.train = self._turning("eval"), self._turning("train")

    def step(self, closure: Closure = None) -> Any:
        """Step every bucket, one after the other, but for those that were stepped apart."""
        loss = evaluated(closure)
        for number, part in enumerate(self.parts):
            if number not in self._apart:
                part.step(self._draws)
        self._apart.clear()
        self._show()
        return loss

    def units(self) -> list[Unit]:
        """Each bucket, and what steps it apart; the next `step` leaves it out."""
        return [(part.held, functools.partial(self._step_apart, number)) for number, part in enumerate(self.parts)]

    def _step_apart(self, number: int) -> None:
        self.parts[number].step(self._draws)
        self._apart.add(number)

    def state_dict(self) -> dict[str, Any]:
        """States of the buckets, what rounding took, and the generator: all that goes on from here."""
        return {
            "parts": [part.inner.state_dict() for part in self.parts],
            "compensation": [part.low for part in self.parts],
            "generator": None if self._draws is None else self._draws.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        for part, state, low in zip(self.parts, state_dict["parts"], state_dict["compensation"], strict=True):
            part.load(state, low)
        if self._draws is not None:
            self._draws.load(state_dict["generator"])
        self.param_groups = self._groups()
        self._show()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.inner.param_groups]

    def _show(self) -> None:
        """Show as ``state`` what is held for each weight, as other optimizers do."""
        self.state.clear()
        for part in self.parts:
            self.state.update(part.states())

    def _turning(self, name: str) -> Callable[[], None]:
        def turn() -> None:
            for part in self.parts:
                part.wide(getattr(part.inner, name), self._draws)

        return turn


class _Part:
    """A bucket of weights of one type, and its optimizer, which is lent float32 tensors in their places."""

    def __init__(self, parameters: Parameters, make: Callable[[Parameters], Optimizer], compensated: bool) -> None:
        self.held = [each for kind in parameters.by_kind.values() for each in kind]
        self.narrow = self.held[0].dtype == torch.bfloat16
        self.low: Tensor | None = None
        if not self.narrow:
            self.inner = make(parameters)
            return
        wide = {id(each): each.detach().float().contiguous() for each in self.held}
        self.inner = make(parameters.instead(wide))
        exchange(self.inner, [wide[id(each)] for each in self.held], self.held)
        if compensated:
            count = sum(each.numel() for each in self.held)
            self.low = torch.zeros(count, dtype=torch.int16, device=self.held[0].device)

    def step(self, draws: _Draws | None) -> None:
        self.wide(self.inner.step, draws)

    @torch.no_grad()
    def wide(self, work: Callable[[], Any], draws: _Draws | None) -> None:
        """Have the optimizer work on the weights as float32 numbers, and keep these as the bucket does."""
        if not self.narrow:
            work()
            return
        bits, places = self._bits()
        _copy(places, [each.view(torch.int16) for each in self.held])
        bits.bitwise_left_shift_(_LOW)
        if self.low is not None:
            bits.add_(self.low)
        wide = [place.view(torch.float32) for place in places]
        for tensor, parameter in zip(wide, self.held, strict=True):
            if parameter.grad is not None:
                # fused kernels go through memory: gradients lie as the lent tensors do, whatever the weight's format
                tensor.grad = parameter.grad.float().contiguous()
        with lent(self.inner, self.held, wide):
            work()
        for tensor in wide:
            tensor.grad = None
        if self.low is not None:
            self.low.copy_(bits)  # the lower half, as a number from -2^15 to 2^15 - 1
            bits.add_(1 << (_LOW - 1))
        elif draws is not None:
            draws.add_to(bits)
        bits.bitwise_right_shift_(_LOW)
        _copy([each.view(torch.int16) for each in self.held], places)

    def load(self, state: dict[str, Any], low: Tensor | None) -> None:
        # torch takes what it loads to the type of the parameter it is of
        wide = [torch.empty(0, device=each.device) for each in self.held]
        with lent(self.inner, self.held, wide) if self.narrow else contextlib.nullcontext():
            self.inner.load_state_dict(state)
        if self.low is not None:
            assert low is not None
            self.low.copy_(low)

    def states(self) -> dict[Tensor, dict[str, Any]]:
        """What is held for each weight."""
        lows = [None] * len(self.held) if self.low is None else self.low.split([each.numel() for each in self.held])
        return {
            each: {**self.inner.state.get(each, {}), **({} if low is None else {"compensation": low})}
            for each, low in zip(self.held, lows, strict=True)
        }

    def _bits(self) -> tuple[Tensor, list[Tensor]]:
        """Memory for the bucket in 32 bits, and the place of each weight in it."""
        sizes = [each.numel() for each in self.held]
        bits = torch.empty(sum(sizes), dtype=torch.int32, device=self.held[0].device)
        return bits, [flat.view(each.shape) for flat, each in zip(bits.split(sizes), self.held, strict=True)]


class _Draws:
    """Random bits for rounding, of a generator on the weights' device."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._loaded: Tensor | None = None

    def add_to(self, bits: Tensor) -> None:
        """Add to each number of 32 bits one of 16, all alike likely."""
        count = bits.numel()
        # 64 random bits are as quickly had as fewer
        drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=bits.device)
        drawn.random_(-(2**63), None, generator=self._of(bits.device))
        bits.add_(drawn.view(torch.int16)[:count]).add_(1 << (_LOW - 1))

    def state(self) -> Tensor | None:
        """Where the generator stands; None before it was first used."""
        return self._loaded if self._generator is None else self._generator.get_state()

    def load(self, state: Tensor | None) -> None:
        self._generator, self._loaded = None, state

    def _of(self, device: torch.device) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self._seed)
            if self._loaded is not None:
                self._generator.set_state(self._loaded.cpu())
        return self._generator


def _copy(into: list[Tensor], from_: list[Tensor]) -> None:
    """Copy many tensors, from one type to another."""
    torch._foreach_copy_(into, from_)


def _buckets(parameters: Parameters) -> Iterator[Parameters]:
    """Share parameters out over buckets, each of one type and device, in the order of the kinds."""
    filling: dict[tuple[torch.dtype, torch.device], tuple[dict[str, list[nn.Parameter]], int]] = {}
    for name, kind in parameters.by_kind.items():
        for each in kind:
            place = (each.dtype, each.device)
            bucket, held = filling.get(place, ({}, 0))
            if held and held + each.numel() > BUCKET and each.dtype == torch.bfloat16:
                yield _filled(bucket, parameters)
                bucket, held = {}, 0
            bucket.setdefault(name, []).append(each)
            filling[place] = bucket, held + each.numel()
    for bucket, _ in filling.values():
        yield _filled(bucket, parameters)


def _filled(bucket: dict[str, list[nn.Parameter]], parameters: Parameters) -> Parameters:
    return Parameters({name: bucket.get(name, []) for name in parameters.by_kind}, parameters.shares)
