"""Time every operator of the micro-benchmarks, with its data in the caches and with them emptied.

They run in a process of their own, so that the allocator can be told to keep its pages, and the caller's memory stays
as it was.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from thrifty.hardware.stopwatch import Work, once, repeated
from thrifty.spec.device import KernelPoint
from thrifty.spec.plain import Plain

if TYPE_CHECKING:
    from thrifty.hardware.capture import Call, Key
    from thrifty.hardware.sizes import Sizes

# in all; the rates of `measure` come on top
SECONDS = 50.0
# the first and the last time everything, those between what is arithmetic: a shared machine's speed wanders
ROUNDS = 3
# of one operator in one round
_WARM_SECONDS, _MOST_CALLS = 3e-3, 3
# operators that touch less, or that a memory of this many bytes/s would hardly slow, are not timed with empty caches
_SMALL_BYTES, _SLOW_MEMORY, _HARDLY = 96 << 10, 1e10, 0.03
_FLUSH_BYTES = (32 << 20, 256 << 20)
# blocks stay on the heap, and the heap keeps what is freed (glibc; other allocators do not read these)
_KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Bench(Plain):
    """What was timed, and the share of it whose every try was disturbed by other processes."""

    kernels: tuple[KernelPoint, ...]
    disturbed: float


def bench(threads: int, *, last_cache_bytes: int, seconds: float = SECONDS) -> Bench:
    """Run the micro-benchmarks in a process of their own; empty when that process fails.

    Args:
        threads: of the CPU.
        last_cache_bytes: more than this is read between cold calls.
        seconds: for all; what they are too few for is left out.
    """
    program = f"from thrifty.hardware.bench import main; main({threads}, {last_cache_bytes}, {seconds})"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | _KEEP_PAGES, capture_output=True, check=False)
    if done.returncode:
        return Bench(kernels=(), disturbed=0.0)
    return Bench.model_validate_json(done.stdout.splitlines()[-1])


def merged(benches: Sequence[Bench]) -> Bench:
    """Average what was timed at several times: the speed of a shared machine wanders over minutes, too."""
    found: dict[tuple[str, str, str, str, int], list[KernelPoint]] = {}
    for bench_ in benches:
        for point in bench_.kernels:
            # of what stands for no operator there are several, by size
            size = 0 if point.shapes else point.moved_bytes
            found.setdefault((point.name, point.dtype, point.shapes, point.layouts, size), []).append(point)
    return Bench(
        kernels=tuple(_mean(points) for points in found.values()),
        disturbed=statistics.fmean(bench_.disturbed for bench_ in benches),
    )


def _mean(points: list[KernelPoint]) -> KernelPoint:
    warm_s = statistics.fmean(point.warm_s for point in points)
    apart = statistics.fmean(abs(point.warm_s - warm_s) for point in points) / max(warm_s, 1e-12)
    spread = math.hypot(statistics.fmean(point.spread for point in points), apart)
    cold_s = statistics.fmean(point.cold_s for point in points)
    return points[0].model_copy(update={"warm_s": warm_s, "cold_s": cold_s, "spread": spread})


class _Times:
    """What was timed of one operator, over all rounds."""

    def __init__(self, call: Call) -> None:
        self.tensors, self.moved_bytes = call.tensors, call.moved_bytes
        self.warm: list[float] = []
        self.cold: list[float] = []
        self.clean = False

    def add(self, call: Call, flush: Work | None) -> None:
        once_s, _ = once(call.again)
        burst = max(1, min(10, int(2e-5 / once_s)))
        calls = max(1, min(_MOST_CALLS, int(_WARM_SECONDS / (once_s * burst))))
        warm = repeated(call.again, calls, burst=burst)
        self.warm.append(warm.median_s)
        self.clean |= warm.clean
        if flush is not None and self.moved_bytes > max(_SMALL_BYTES, _HARDLY * once_s * _SLOW_MEMORY):
            self.cold.append(repeated(call.again, 1, before=flush).median_s)

    def point(self, key: Key) -> KernelPoint:
        warm_s = statistics.fmean(self.warm)
        return KernelPoint(
            **key._asdict(),
            tensors=self.tensors,
            moved_bytes=self.moved_bytes,
            warm_s=warm_s,
            cold_s=max(statistics.median(self.cold), warm_s) if self.cold else warm_s,
            spread=statistics.fmean(abs(each - warm_s) for each in self.warm) / warm_s,
        )


def flush_bytes(last_cache_bytes: int) -> int:
    """Bytes to write so that little else stays in the caches."""
    return min(max(2 * last_cache_bytes, _FLUSH_BYTES[0]), _FLUSH_BYTES[1])


def points(*, last_cache_bytes: int, seconds: float) -> Bench:
    """Time the operators of all families in fp32 and bf16, in this process.

    Families take turns, so that each is covered when time runs out.
    """
    import torch

    from thrifty.hardware.capture import Captured
    from thrifty.hardware.kernels import ARITHMETIC, FAMILIES
    from thrifty.hardware.overheads import host_overheads, overheads
    from thrifty.hardware.sizes import CPU

    began = time.perf_counter()
    other = torch.ones(flush_bytes(last_cache_bytes) // 4)

    def flush() -> None:
        # written, not only read: a step leaves caches full of what must go back to memory first
        other.mul_(1.0)

    aside = list(overheads(last_cache_bytes, flush))
    found: dict[Key, _Times] = {}
    for count in range(ROUNDS):
        between = 0 < count < ROUNDS - 1
        timed: set[Key] = set()
        aside += host_overheads() if count else ()
        for work in in_turn(ARITHMETIC if between else FAMILIES, CPU):
            if time.perf_counter() - began > seconds:
                break
            with Captured() as captured:
                work()
            with torch.no_grad():
                for key, call in captured.calls.items():
                    if key not in timed:
                        timed.add(key)
                        found.setdefault(key, _Times(call)).add(call, None if between else flush)
    disturbed = sum(not times.clean for times in found.values()) / max(len(found), 1)
    return Bench(kernels=(*_medians(aside), *(times.point(key) for key, times in found.items())), disturbed=disturbed)


def _medians(points: Sequence[KernelPoint]) -> list[KernelPoint]:
    """Of what was timed more than once, the one in the middle; how fast Python runs wanders by half."""
    found: dict[tuple[str, int], list[KernelPoint]] = {}
    for point in points:
        found.setdefault((point.name, point.moved_bytes), []).append(point)
    return [sorted(each, key=lambda point: point.warm_s)[len(each) // 2] for each in found.values()]


def in_turn(families: Collection[str], sizes: Sizes) -> Iterator[Work]:
    """Yield the works of families in fp32 and bf16; families take turns."""
    import torch

    from thrifty.hardware.kernels import FAMILIES

    both = (torch.float32, torch.bfloat16)
    waiting = [family(dtype, sizes) for name, family in FAMILIES.items() if name in families for dtype in both]
    while waiting:
        for each in list(waiting):
            work = next(each, None)
            if work is None:
                waiting.remove(each)
            else:
                yield work


def main(threads: int, last_cache_bytes: int, seconds: float) -> None:
    """Measure with so many threads, and print `Bench` as JSON."""
    import torch

    torch.set_num_threads(threads)
    found = points(last_cache_bytes=last_cache_bytes, seconds=seconds)
    print(json.dumps(found.model_dump(mode="json")))
