"""Time every operator of the micro-benchmarks, with its data in the caches and with them emptied."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.hardware.kernels import FAMILIES, Work
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
from thrifty.spec.device import KernelPoint

# time for one operator on one set of shapes, warm and cold together
SECONDS_A_POINT = 0.04
_FLUSH_BYTES = (32 << 20, 256 << 20)


# name, dtype, shapes, layouts
_Key = tuple[str, str, str, str]


class _Call(NamedTuple):
    func: Any
    args: Any
    kwargs: Any
    tensors: int
    moved_bytes: int


class Captured(TorchDispatchMode):
    """Keeps every operator call that does work, with its arguments; views and empty allocations do none."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[_Key, _Call] = {}

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
            key = (name, dtype_of(inputs, results), shapes_of(inputs, results), layouts)
            moved = sum(traffic(name, inputs, written, fresh))
            self.calls.setdefault(key, _Call(func, args, kwargs, len(inputs), moved))
        return out


def points(*, last_cache_bytes: int, seconds: float) -> tuple[tuple[KernelPoint, ...], float]:
    """Time the operators of all families in fp32 and bf16; those that the time is too short for are left out.

    Args:
        last_cache_bytes: more than this is read between cold calls.
        seconds: in all. Families take turns, so that each is covered when time runs out.

    Returns:
        What was timed, and the share of it whose every try was disturbed by other processes.
    """
    began, disturbed = time.perf_counter(), 0
    size = min(max(2 * last_cache_bytes, _FLUSH_BYTES[0]), _FLUSH_BYTES[1])
    flush = torch.ones(size // 4)
    found: dict[_Key, KernelPoint] = {}
    for work in _in_turn():
        if time.perf_counter() - began > seconds:
            break
        with Captured() as captured:
            work()
        for key, call in captured.calls.items():
            if key not in found:
                found[key], clean = _point(key, call, flush)
                disturbed += not clean
    return tuple(found.values()), disturbed / max(len(found), 1)


def _in_turn() -> Iterator[Work]:
    waiting = [family(dtype) for family in FAMILIES.values() for dtype in (torch.float32, torch.bfloat16)]
    while waiting:
        for each in list(waiting):
            work = next(each, None)
            if work is None:
                waiting.remove(each)
            else:
                yield work


def _point(key: _Key, call: _Call, flush: Tensor) -> tuple[KernelPoint, bool]:
    def run() -> None:
        call.func(*call.args, **call.kwargs)

    with torch.no_grad():
        once_s = min(_timed(run, 1)[0] for _ in range(3))
        burst = max(1, min(10, int(2e-5 / once_s)))
        warm, clean = _undisturbed(run, burst, repeats=max(2, min(7, int(SECONDS_A_POINT / 2 / (once_s * burst)))))
        repeats = max(2, min(5, int(SECONDS_A_POINT / 2 / (once_s + 3e-3))))
        cold, _ = _undisturbed(run, 1, repeats=repeats, before=flush.sum)
    warm_s, cold_s = statistics.median(warm), statistics.median(cold)
    name, dtype, shapes, layouts = key
    return KernelPoint(
        name=name,
        dtype=dtype,
        shapes=shapes,
        layouts=layouts,
        tensors=call.tensors,
        moved_bytes=call.moved_bytes,
        warm_s=warm_s,
        cold_s=cold_s,
        spread=statistics.median(abs(each - warm_s) for each in warm) / warm_s,
    ), clean


def _undisturbed(
    run: Callable[[], object], burst: int, *, repeats: int, before: Callable[[], object] | None = None
) -> tuple[list[float], bool]:
    """Seconds of so many repeats in which no thread lost its core; after twice as many tries, the best there are.

    Returns whether it went well, too.

    Threads wait for each other spinning, so that one that loses its core costs them all a slice of the scheduler's.
    """
    clean: list[float] = []
    every: list[float] = []
    while len(clean) < repeats and len(every) < 2 * repeats:
        if before is not None:
            before()
        taken_s, switches = _timed(run, burst)
        every.append(taken_s)
        if not switches:
            clean.append(taken_s)
    return (clean, True) if 2 * len(clean) >= repeats else (sorted(every)[: max(repeats // 2, 1)], False)


def _timed(run: Callable[[], object], burst: int) -> tuple[float, int]:
    switched = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    began = time.perf_counter()
    for _ in range(burst):
        run()
    taken_s = (time.perf_counter() - began) / burst
    return taken_s, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switched
