"""The other end of `thrifty.hardware.asking`: makes operator calls on noise and says what each took.

Messages to the asker: a `Key` before its first call, a `KernelPoint` of it, and None when all is said.
"""

from __future__ import annotations

import contextlib
import functools
import math
import pickle
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from thrifty.hardware.capture import Call, Key
from thrifty.hardware.pages import keep_pages
from thrifty.hardware.stopwatch import Work, once, repeated
from thrifty.spec.device import KernelPoint

Answer = Iterator[Key | KernelPoint]
# of an operator: a few calls in a row, after others have had the caches, in so many rounds; fewer of one that is slow
_ROUNDS, _SLOW_S, _SLOWER_S = 3, 5e-3, 2e-2
_WARM_SECONDS, _MOST_CALLS = 3e-3, 3
_TRIES, _FEW_PAGES = 3, 16
# calls whose tensors lie in memory together, so that what one has in the caches the next ones push out
_TOGETHER_BYTES = 512 << 20


def main(handle: int, device: str, threads: int, flush_bytes: int, most_bytes: int) -> None:
    """Answer until the asker hangs up.

    Args:
        handle: of the connection.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU.
        flush_bytes: written to empty the caches.
        most_bytes: that the tensors of calls may take together; of larger calls nothing is said.
    """
    torch.set_num_threads(threads)
    keep_pages("all")
    answer: Callable[[Sequence[tuple[Key, Call]], float], Answer] = on_gpu
    if device == "cpu":
        answer = functools.partial(on_cpu, flush_bytes=flush_bytes, most_bytes=most_bytes)
    with Connection(handle) as asker, torch.no_grad():
        while True:
            try:
                asked, seconds = asker.recv()
            except EOFError:
                return
            for said in answer(list(_found(asked)), seconds):
                asker.send(said)
            asker.send(None)


def _found(asked: Sequence[bytes]) -> Iterator[tuple[Key, Call]]:
    """Unpack calls; those of operators that only code not imported here knows are left out."""
    for each in asked:
        key, name, call = pickle.loads(each)
        with contextlib.suppress(AttributeError):
            yield key, call.with_func(_operator(name))


def _operator(name: str) -> Any:
    """Find an operator by the name that it says itself, such as ``aten::add.Tensor``."""
    space, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, space), packet), overload or "default")


def on_gpu(asked: Sequence[tuple[Key, Call]], seconds: float) -> Answer:
    """Time calls on the current GPU; see `thrifty.hardware.gpu_bench.time_call`."""
    from thrifty.hardware.gpu_bench import time_call

    began = time.perf_counter()
    for key, call in asked:
        if time.perf_counter() - began > seconds:
            break
        yield key
        try:
            yield time_call(key, call.filled("cuda"))
        except RuntimeError:
            torch.cuda.empty_cache()
    torch.cuda.empty_cache()


def on_cpu(asked: Sequence[tuple[Key, Call]], seconds: float, *, flush_bytes: int, most_bytes: int) -> Answer:
    """Time calls on the CPU, in the order given, with their data in the caches and without."""
    began = time.perf_counter()
    other = torch.ones(max(flush_bytes // 4, 1))
    flush: Work = functools.partial(other.mul_, 1.0)
    for group in _groups(asked, most_bytes):
        if time.perf_counter() - began > seconds:
            return
        ready: list[_Timed] = []
        for key, call in group:
            yield key
            try:
                ready.append(_Timed(key, call.filled("cpu")))
            except RuntimeError:
                continue
        crowded = sum(each.call.moved_bytes for each in ready) > flush_bytes
        for count in range(_ROUNDS):
            if not crowded:
                flush()
            for each in ready:
                each.add(count)
        yield from (each.point() for each in ready)


def _groups(asked: Sequence[tuple[Key, Call]], most_bytes: int) -> Iterator[list[tuple[Key, Call]]]:
    """Gather calls whose tensors may lie in memory together."""
    group: list[tuple[Key, Call]] = []
    total = 0
    for key, call in asked:
        size = call.moved_bytes
        if size > most_bytes:
            continue
        if group and total + size > min(_TOGETHER_BYTES, most_bytes):
            yield group
            group, total = [], 0
        group.append((key, call))
        total += size
    if group:
        yield group


class _Timed:
    """A call that was made once, to have libraries prepare for it, and what it took since."""

    def __init__(self, key: Key, call: Call) -> None:
        self.key, self.call = key, call
        self.cold: list[float] = []
        self.warm: list[float] = []
        once_s, _ = once(call.again)
        if once_s < _SLOWER_S:
            # the first had libraries prepare
            once_s, _ = once(call.again)
        self.rounds = _ROUNDS if once_s < _SLOW_S else 2 if once_s < _SLOWER_S else 1
        self.burst = max(1, min(10, int(2e-5 / once_s)))
        self.calls = max(1, min(_MOST_CALLS, int(_WARM_SECONDS / (once_s * self.burst))))

    def add(self, count: int) -> None:
        """Time it first as it is, then again, unless it had its rounds."""
        if count >= self.rounds:
            return
        self.cold.append(self._settled())
        self.warm.append(repeated(self.call.again, self.calls, burst=self.burst).median_s)

    def _settled(self) -> float:
        """Seconds of one call for which the kernel cleared no pages; of the last of a few where there is none."""
        for _ in range(_TRIES):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            once_s, _ = once(self.call.again)
            if resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before <= _FEW_PAGES:
                break
        return once_s

    def point(self) -> KernelPoint:
        warm_s = statistics.median(self.warm)
        spread = statistics.fmean(abs(each - warm_s) for each in self.warm) / warm_s
        return KernelPoint(
            **self.key._asdict(),
            tensors=self.call.tensors,
            moved_bytes=self.call.moved_bytes,
            warm_s=warm_s,
            cold_s=max(statistics.median(self.cold), warm_s),
            spread=spread if math.isfinite(spread) else 0.0,
        )
