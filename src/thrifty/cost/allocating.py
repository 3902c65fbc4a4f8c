"""Operators that allocate their results and compute nothing: blocks are really asked for, and no page is touched."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.cost.scratch import kept_bytes, scratch_bytes, workspace_bytes
from thrifty.cost.touched import Touched

SMALL_BYTES = 4096
# what the compiler of oneDNN's kernels asks for at once (Xbyak, CodeArray's default)
_CODE_BYTES, _PAGE_BYTES = 256 << 10, 4 << 10
_NAMED = (torch.layout, torch.device, torch.memory_format)


class Answer(NamedTuple):
    """What an operator with certain arguments asks for.

    Attributes:
        results: what it returns, with a `Spec` for each tensor.
        scratch: sizes of the blocks that live while it runs, in bytes.
        kept: bytes that a library keeps of the first call.
        first: what tells the first call from others.
    """

    results: Any
    scratch: tuple[int, ...]
    kept: int
    first: Any


# answers by the operator's name and what of its arguments decides sizes
Known = dict[Any, Answer]


@dataclass(frozen=True)
class Spec:
    """What allocates a tensor like another."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Spec:
        """Of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def make(self) -> Tensor:
        """Allocate such a tensor."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype)


class Allocating(TorchDispatchMode):
    """Operators allocate their results and do nothing else; views are taken, writes in place are left out.

    Attributes:
        known: what operators ask for, as far as fake tensors were asked.
        peak_bytes: the most that was resident beyond what was at the beginning.
        building: a model is built, and its constructor may look at small values.
        stepping: the optimizer works, and may look at single numbers.
    """

    def __init__(self, *, maps: bool = True) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.known: Known = {}
        self._kept: dict[Any, list[Tensor]] = {}
        self.peak_bytes = 0
        self.building = False
        self.stepping = False
        self._pages = Touched(maps=maps)

    @contextmanager
    def step(self, _: object = None) -> Iterator[None]:
        """The optimizer works."""
        self.stepping = True
        yield
        self.stepping = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._run(func, args, kwargs or {})
        if not _only_views(func) and not _writes(func):
            self._lie(*pytree.tree_leaves(out))
        return out

    def look(self) -> None:
        """Count what is resident beside the blocks of tensors."""
        self._pages.look()
        self._lie()

    def _lie(self, *made: Any) -> None:
        for each in made:
            if isinstance(each, Tensor):
                self._pages.lie(each)
        self.peak_bytes = max(self.peak_bytes, self._pages.grown_bytes)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if _is_let_through(func):
            return func(*args, **kwargs)
        if self.building and _is_small(args, kwargs):
            # constructors look at values: rates of dropout from a linspace, sizes from a product
            return func(*args, **kwargs)
        if self.stepping and _of_single_numbers(args, kwargs):
            # optimizers look at the count of their steps
            return func(*args, **kwargs)
        if _writes(func):
            return _written(func, args, kwargs)
        answer = self._answer(func, args, kwargs)
        made = _made(answer.results)
        if answer.kept and answer.first not in self._kept:
            self._kept[answer.first] = [torch.empty(part, dtype=torch.uint8) for part in _parts(answer.kept)]
            self._lie(*self._kept[answer.first])
        if answer.scratch:
            self._lie(*(torch.empty(size, dtype=torch.uint8) for size in answer.scratch))
        return made

    def _answer(self, func: Any, args: Any, kwargs: Any) -> Answer:
        """What an operator asks for, asked once of fake tensors for each set of arguments."""
        key: Any = (func.name(), _told(args), tuple((name, _told(value)) for name, value in kwargs.items()))
        try:
            if key in self.known:
                return self.known[key]
        except TypeError:
            key = None
        with _unwatched(), self._fake:
            leaves, tree = pytree.tree_flatten((args, kwargs))
            fakes = [Spec.of(leaf).make() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            fake_args, fake_kwargs = pytree.tree_unflatten(fakes, tree)
            answer = _needed(func, fake_args, func(*fake_args, **fake_kwargs))
        if key is not None:
            self.known[key] = answer
        return answer


def _told(value: Any) -> Any:
    """What of an argument decides sizes."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_told, value))
    # copies tell each other, and these cannot be pickled
    return str(value) if isinstance(value, _NAMED) else value


def _needed(func: Any, args: Any, results: Any) -> Answer:
    """What an operator asks for, from its arguments and results on fake tensors."""
    name = func.overloadpacket.__name__
    specs = pytree.tree_map_only(Tensor, Spec.of, results)
    if name == "mkldnn_rnn_layer":
        # fake tensors say that the workspace is empty
        specs = (*specs[:-1], Spec((workspace_bytes(results[0]),), (1,), torch.uint8))
    first = next((leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)), None)
    result_bytes = first.numel() * first.element_size() if first is not None else 0
    given = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
    kept = kept_bytes(name, given[-1].dtype) if given else 0
    return Answer(specs, scratch_bytes(name, args, result_bytes), kept, (name, *map(_told, given)))


def _made(results: Any) -> Any:
    """Allocate an operator's results."""
    if isinstance(results, Spec):
        return results.make()
    if isinstance(results, list | tuple):
        return type(results)(map(_made, results))
    return results


def _parts(size: int) -> list[int]:
    """Blocks that so many bytes of kernels lie in: their code in large ones, what describes it in small ones around."""
    codes, rest = divmod(size, _CODE_BYTES)
    around = [_PAGE_BYTES] * (rest // _PAGE_BYTES // 2)
    return [*around, *[_CODE_BYTES] * codes, *around]


def _is_small(args: Any, kwargs: Any) -> bool:
    """Whether an operator reads, and by its whole-number arguments makes, less than a page or so."""
    leaves = pytree.tree_leaves((args, kwargs))
    read = sum(leaf.untyped_storage().nbytes() for leaf in leaves if isinstance(leaf, Tensor))
    makes = max((leaf for leaf in leaves if isinstance(leaf, int)), default=0)
    return read <= SMALL_BYTES and makes <= SMALL_BYTES


def _of_single_numbers(args: Any, kwargs: Any) -> bool:
    """Whether an operator takes tensors, each of one number, and by its whole-number arguments makes no more."""
    leaves = pytree.tree_leaves((args, kwargs))
    sizes = [leaf.numel() for leaf in leaves if isinstance(leaf, Tensor)]
    return sizes != [] and max(sizes) == 1 and max((leaf for leaf in leaves if isinstance(leaf, int)), default=0) <= 1


@functools.cache
def _only_views(func: Any) -> bool:
    return func.is_view or func.overloadpacket.__name__ in {"detach", "alias", "lift_fresh", "_unsafe_view"}


@functools.cache
def _is_let_through(func: Any) -> bool:
    """Whether an operator may do what it does: it only takes a view, or only allocates."""
    allocates = func.overloadpacket.__name__.startswith(("empty", "new_empty"))
    return func.namespace in {"prim", "profiler"} or _only_views(func) or allocates


@functools.cache
def _writes(func: Any) -> bool:
    return bool(func._schema.is_mutable)


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator that writes in place returns: the arguments it writes into."""
    found = [args[place] if 0 <= place < len(args) else kwargs.get(name) for place, name in _places_written(func)]
    return found[0] if len(found) == 1 else tuple(found) if found else None


@functools.cache
def _places_written(func: Any) -> tuple[tuple[int, str], ...]:
    """For each result of an operator that writes in place, the place and name of the argument that it is."""
    schema = func._schema
    places = {
        _alias(argument): (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    return tuple(places.get(_alias(result), (-1, "")) for result in schema.returns)


def _alias(place: Any) -> str:
    """Letter of an argument or result in a schema such as ``add_(Tensor(a!) self) -> Tensor(a!)``."""
    return next(iter(place.alias_info.before_set), "") if place.alias_info is not None else ""


@contextmanager
def _unwatched() -> Iterator[None]:
    with torch.utils._python_dispatch._disable_current_modes():
        yield
