"""How an operator call is written down: shapes such as ``8x4,4x2->8x2``, memory order, dtype, and bytes touched."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# of arguments, and of results, that are written down; optimizers take hundreds
MOST = 4
# only the rows asked for are read, however large the table
_READS_ROWS = frozenset(["embedding", "index", "index_select", "gather", "take"])
# the target is overwritten unseen
_WRITES_ONLY = frozenset(["copy_", "fill_", "zero_", "bernoulli_", "uniform_", "normal_"])
# reserve memory and do nothing with it
ALLOCATIONS = frozenset(["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"])
# arguments that are no tensors, and change which kernel runs or how much it does
_TELLING = ("is_causal", "approximate", "exponent")


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors of nested arguments, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def shapes_of(inputs: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    """Write sizes of arguments and results; a scalar is ``1``.

    >>> shapes_of([torch.zeros(8, 4), torch.zeros(4, 2)], [torch.zeros(8, 2)])
    '8x4,4x2->8x2'
    """
    return f"{_sizes(inputs)}->{_sizes(results)}"


def layouts_of(inputs: Sequence[Tensor], results: Sequence[Tensor], note: str = "") -> str:
    """Write a letter for each tensor of `shapes_of`, arguments first, then ``>``, results, and what else tells.

    ``c`` contiguous, ``l`` channels last, ``t`` last two dimensions swapped, ``r`` rows in one piece but not in order,
    ``e`` expanded, ``s`` any other strides.

    >>> layouts_of([torch.zeros(8, 4), torch.zeros(2, 4).t()], [torch.zeros(8, 2)])
    'ct>c'
    """
    letters = f"{''.join(map(_letter, inputs[:MOST]))}>{''.join(map(_letter, results[:MOST]))}"
    return f"{letters} {note}" if note else letters


def note_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Write those arguments that are no tensors and that change what an operator costs.

    >>> note_of(torch.ops.aten.pow.Tensor_Scalar, (torch.ones(2), 3), {}), note_of(torch.ops.aten.relu.default, (), {})
    ('exponent=3', '')
    """
    said = []
    for index, name, otherwise in _telling(func):
        value = kwargs.get(name, args[index] if index < len(args) else otherwise)
        if isinstance(value, bool | int | float | str) and value not in (False, "none"):
            said.append(f"{name}={value}")
    return " ".join(said)


@functools.cache
def _telling(func: Any) -> tuple[tuple[int, str, Any], ...]:
    """Place, name and default of those arguments: a schema is slow to read."""
    arguments = enumerate(func._schema.arguments)
    return tuple((index, each.name, each.default_value) for index, each in arguments if each.name in _TELLING)


def dtype_of(inputs: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    """Name the dtype an operator computes in: of its first floating tensor, else of its first.

    >>> dtype_of([torch.zeros(2, dtype=torch.int64)], [torch.zeros(2)])
    'float32'
    """
    tensors = [*inputs, *results]
    computed = next((tensor for tensor in tensors if tensor.is_floating_point()), tensors[0])
    return str(computed.dtype).removeprefix("torch.")


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of the elements a tensor really has: what `expand` repeats counts once.

    >>> touched_bytes(torch.zeros(1, 8).expand(100, 8))
    32
    """
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0]
    return (math.prod(sizes) if tensor.numel() else 0) * tensor.element_size()


def written_in_place(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operator writes into."""
    written: list[Tensor] = []
    for index, name in _places_written(func):
        written += tensors_in(kwargs.get(name) if name in kwargs else args[index] if index < len(args) else None)
    return written


@functools.cache
def _places_written(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operator writes into."""
    arguments = enumerate(func._schema.arguments) if func._schema.is_mutable else ()
    return tuple(
        (index, each.name) for index, each in arguments if each.alias_info is not None and each.alias_info.is_write
    )


def traffic(name: str, inputs: list[Tensor], written: list[Tensor], fresh: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes an operator must read and must write, each element once.

    Args:
        name: of the operator, such as ``embedding``.
        inputs: every tensor among its arguments.
        written: those of them that it writes into.
        fresh: results in storage of their own; results that alias an argument cost nothing.
    """
    made = sum(touched_bytes(tensor) for tensor in fresh)
    unread = {id(tensor) for tensor in written} if name in _WRITES_ONLY else set()
    distinct = {id(tensor): tensor for tensor in inputs if id(tensor) not in unread}
    sizes = [touched_bytes(tensor) for tensor in distinct.values()]
    if name in _READS_ROWS and sizes:
        sizes[0] = min(sizes[0], made)
    return sum(sizes), made + sum(touched_bytes(tensor) for tensor in written)


def _sizes(tensors: Sequence[Tensor]) -> str:
    return ",".join("x".join(map(str, tensor.shape)) or "1" for tensor in tensors[:MOST])


def _letter(tensor: Tensor) -> str:
    if tensor.is_contiguous():
        return "c"
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return "l"
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    if 0 in strides:
        return "e"
    if strides[-1] == 1:
        return "r"
    return "t" if len(strides) > 1 and strides[-2] == 1 else "s"
