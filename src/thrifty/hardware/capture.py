"""Catch the operator calls that eager code makes, with their arguments, so that each can be timed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Key(NamedTuple):
    """What tells one call from another, written as `thrifty.hardware.signature` does."""

    name: str
    dtype: str
    shapes: str
    layouts: str


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
