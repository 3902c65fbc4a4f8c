"""Catch the operator calls that eager code makes, with their arguments, so that each can be timed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.hardware.signature import (
    ALLOCATIONS,
    dtype_of,
    layouts_of,
    note_of,
    shapes_of,
    tensors_in,
    traffic,
    written_in_place,
)

# numbers that are drawn before they repeat
_NOISE = 1 << 18


class Key(NamedTuple):
    """What tells one call from another, written as `thrifty.hardware.signature` does."""

    name: str
    dtype: str
    shapes: str
    layouts: str


@dataclass(frozen=True)
class Blank:
    """What makes a tensor like another."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def filled(self, device: str, below: int) -> Tensor:
        """Make it of noise between 0 and 1, or of whole numbers below one."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        block = torch.empty(last + 1 if math.prod(self.shape) else 0, dtype=self.dtype, device=device)
        if self.dtype.is_floating_point:
            _scatter(block)
        elif self.dtype == torch.bool or below < 2:
            block.zero_()
        else:
            block.random_(0, below)
        return block.as_strided(self.shape, self.stride)


def _scatter(block: Tensor) -> None:
    """Fill a block with noise; a large one with the same again and again, since drawing it takes long."""
    drawn = block[:_NOISE].uniform_(0.01, 1.0)
    for rest in block[_NOISE:].split(_NOISE):
        rest.copy_(drawn[: len(rest)])


def blank(tree: Any) -> Any:
    """Put blanks for all tensors of nested arguments."""
    return pytree.tree_map_only(Tensor, lambda t: Blank(tuple(t.shape), t.stride(), t.dtype), tree)


# what whole numbers among an operator's tensors count: rows of a table, classes
_BELOW: dict[str, Callable[[Any], int]] = {
    "embedding": lambda args: args[0].shape[0],
    "embedding_dense_backward": lambda args: args[2],
    "nll_loss_forward": lambda args: args[0].shape[-1],
    "nll_loss_backward": lambda args: args[1].shape[-1],
}
_SEEDED = "_scaled_dot_product_efficient_attention"


def _as_kept(name: str, args: Any) -> Any:
    """Arguments with the statistics of a batch norm in the dtype of its weights, which fake tensors do not know."""
    if name != "native_batch_norm_backward" or not isinstance(args[2], Blank):
        return args
    kept = (replace(each, dtype=args[2].dtype) if isinstance(each, Blank) else each for each in args[5:7])
    return (*args[:5], *kept, *args[7:])


@dataclass(frozen=True)
class Call:
    """A call that can be made again; ``tensors`` among its arguments, ``moved_bytes`` read and written."""

    func: Any
    args: Any
    kwargs: Any
    tensors: int
    moved_bytes: int

    def again(self) -> None:
        """Make the call once more."""
        self.func(*self.args, **self.kwargs)

    def with_func(self, func: Any) -> Call:
        """The same call of another operator; of None, which can go to another process."""
        return replace(self, func=func)

    def filled(self, device: str) -> Call:
        """Put tensors on a device for the call's blanks."""
        name = self.func.overloadpacket.__name__
        below = _BELOW.get(name, lambda args: 1)(self.args)

        def fill(leaf: Any) -> Any:
            if isinstance(leaf, torch.device):
                return torch.device(device)
            if not isinstance(leaf, Blank):
                return leaf
            # the state of dropout, which the host reads
            seed = name.startswith(_SEEDED) and not leaf.shape and leaf.dtype == torch.int64
            return leaf.filled("cpu" if seed else device, below)

        args, kwargs = pytree.tree_map(fill, (_as_kept(name, self.args), self.kwargs))
        return Call(self.func, args, kwargs, self.tensors, self.moved_bytes)


class Captured(TorchDispatchMode):
    """Keeps every operator call that does work; views and empty allocations do none.

    Attributes:
        calls: the first call of each kind.
        order: all of them as they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Key, Call] = {}
        self.order: list[Key] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        inputs, results = tensors_in((args, kwargs)), tensors_in(out)
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        fresh = [tensor for tensor in results if tensor.untyped_storage()._cdata not in known]
        written = written_in_place(func, args, kwargs)
        if name not in ALLOCATIONS and (fresh or written):
            layouts = layouts_of(inputs, results, note_of(func, args, kwargs))
            key = Key(name, dtype_of(inputs, results), shapes_of(inputs, results), layouts)
            moved = sum(traffic(name, inputs, written, fresh))
            self.calls.setdefault(key, Call(func, args, kwargs, len(inputs), moved))
            self.order.append(key)
        return out
