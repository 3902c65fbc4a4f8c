"""Time every operator of the micro-benchmarks on a GPU: what keeps it busy, what the host takes, what memory it needs.

Calls are asked for behind a kernel that only waits, so that the GPU finds them all in its queue and runs them one after
another; meanwhile the clock of the host tells what asking takes. In a process of its own, as on a CPU.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from thrifty.hardware.stopwatch import Work
from thrifty.spec.device import KernelPoint

if TYPE_CHECKING:
    import torch

    from thrifty.hardware.capture import Call, Key
    from thrifty.hardware.overheads import Phases

DEVICE = "cuda"
SECONDS = 50.0
_TRIES, _MOST_CALLS, _TRY_SECONDS = 3, 12, 2e-3
# what a wait is asked for in; no GPU's clock is faster
_CYCLES_A_SECOND = 3e9
# operators that touch less, or more than so many times the last cache, take the same time with that cache emptied
_SMALL_BYTES, _LARGE = 96 << 10, 4.0
# what other data of so many times the last cache's size leaves of a small block
_DISTANCES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
_BATCH_BYTES = (1 << 18, 1 << 26)
# of the two sizes of a small model
_BLOCKS = (4, 32)


def gpu_bench(index: int, *, seconds: float = SECONDS) -> tuple[KernelPoint, ...]:
    """Run the micro-benchmarks in a process of their own; empty when that process fails.

    Args:
        index: of the GPU in CUDA's order.
        seconds: for all; what they are too few for is left out.
    """
    program = f"from thrifty.hardware.gpu_bench import main; main({index}, {seconds})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    if done.returncode:
        return ()
    return tuple(KernelPoint.model_validate(each) for each in json.loads(done.stdout.splitlines()[-1]))


class Asked(NamedTuple):
    """Seconds of one call: on the GPU and on the host that asks for it, each the median of a few tries."""

    busy_s: float
    host_s: float
    spread: float


def asked(work: Work, calls: int, host_s: float, *, between: Work | None = None) -> Asked:
    """Time so many calls in a row, ``between`` before each; it counts as theirs.

    Args:
        work: asks the GPU for something.
        calls: in one try.
        host_s: that one call takes of the host, about.
        between: asked for before each call.
    """
    import torch

    busy, host = [], []
    for _ in range(_TRIES):
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(int(min(1.5 * host_s * calls + 5e-5, 0.02) * _CYCLES_A_SECOND))
        began.record()
        at = time.perf_counter()
        for _ in range(calls):
            if between is not None:
                between()
            work()
        host.append((time.perf_counter() - at) / calls)
        ended.record()
        torch.cuda.synchronize()
        busy.append(began.elapsed_time(ended) / 1e3 / calls)
    busy_s = statistics.median(busy)
    apart = statistics.median(abs(each - busy_s) for each in busy)
    return Asked(busy_s, statistics.median(host), apart / max(busy_s, 1e-9))


class _Cache:
    """The last cache of the GPU, and what it costs to fill it with something else."""

    def __init__(self) -> None:
        import torch

        self.bytes = torch.cuda.get_device_properties(DEVICE).L2_cache_size
        other = torch.ones(2 * self.bytes // 4, device=DEVICE)
        self.flush: Work = functools.partial(other.mul_, 1.0)
        self.flush()
        self.seconds = asked(self.flush, 10, 2e-5).busy_s

    def holds_some(self, moved_bytes: int) -> bool:
        return _SMALL_BYTES < moved_bytes < _LARGE * self.bytes

    def forgotten(self) -> Iterator[KernelPoint]:
        """Time a copy of an eighth of the cache after more and more other data."""
        import torch

        from thrifty.hardware.overheads import FORGOTTEN, aside

        source = torch.ones(self.bytes // 8 // 4, device=DEVICE)
        target = torch.ones_like(source)
        sizes, seconds = [int(self.bytes * distance) for distance in _DISTANCES], []
        for size in sizes:
            other = torch.ones(size // 4, device=DEVICE)
            touch = functools.partial(other.mul_, 1.0)
            both = asked(functools.partial(target.copy_, source), 10, 4e-5, between=touch)
            seconds.append(both.busy_s - asked(touch, 10, 2e-5).busy_s)
        least, most = min(seconds), max(seconds)
        for size, each in zip(sizes, seconds, strict=True):
            yield aside(FORGOTTEN, (each - least) / max(most - least, 1e-9), 0.0, 1, size)


def points(seconds: float = SECONDS) -> list[KernelPoint]:
    """Time the operators of all families in fp32 and bf16 on the current GPU, in this process.

    Args:
        seconds: for the operators, beside some seconds for the host; what they are too few for is left out.
    """
    import torch

    from thrifty.hardware.bench import in_turn
    from thrifty.hardware.capture import Captured
    from thrifty.hardware.kernels import FAMILIES
    from thrifty.hardware.sizes import GPU

    found: dict[Key, KernelPoint] = {}
    cache = _Cache()
    aside = [*_host(), *_to_device(), *cache.forgotten()]
    began = time.perf_counter()
    works = in_turn(FAMILIES, GPU)
    while time.perf_counter() - began < seconds:
        with torch.device(DEVICE):
            work = next(works, None)
            if work is None:
                break
            try:
                with Captured() as captured:
                    work()
            except RuntimeError:
                # too large for this GPU, or nothing that it can do: others stand for it
                torch.cuda.empty_cache()
                continue
        with torch.no_grad():
            for key, call in captured.calls.items():
                if key not in found:
                    with contextlib.suppress(RuntimeError):
                        found[key] = time_call(key, call, cache)
    return [*aside, *found.values()]


def time_call(key: Key, call: Call, cache: _Cache | None = None) -> KernelPoint:
    """Time a call on the GPU, and see what memory it takes; with emptied caches, too, where ``cache`` is given.

    Raises:
        RuntimeError: it does not run there, or not with the memory there is.
    """
    import torch

    call.again()
    torch.cuda.synchronize()
    at = time.perf_counter()
    call.again()
    host_s = time.perf_counter() - at
    torch.cuda.synchronize()
    whole_s = time.perf_counter() - at
    calls = max(2, min(_MOST_CALLS, int(_TRY_SECONDS / whole_s)))
    warm = asked(call.again, calls, host_s)
    cold_s = warm.busy_s
    if cache is not None and cache.holds_some(call.moved_bytes):
        both = asked(call.again, calls, host_s + 2e-5, between=cache.flush)
        cold_s = max(both.busy_s - cache.seconds, warm.busy_s)
    return KernelPoint(
        **key._asdict(),
        tensors=call.tensors,
        moved_bytes=call.moved_bytes,
        warm_s=warm.busy_s,
        cold_s=cold_s,
        spread=warm.spread,
        host_s=warm.host_s,
        scratch_bytes=_scratch_bytes(call),
    )


def _scratch_bytes(call: Call) -> int:
    """What a call holds of the GPU's memory at most, over what it leaves or found."""
    import torch

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = call.func(*call.args, **call.kwargs)
    most = torch.cuda.max_memory_allocated() - max(torch.cuda.memory_allocated(), before)
    del out
    return max(most, 0)


def _host() -> Iterator[KernelPoint]:
    """What the host does beside asking for operators, by two sizes of small models of two kinds.

    In fp32 and under autocast: seconds of a module's forward, of an operator's backward, of a parameter in clipping and
    update, each beside the operators that are asked for; and as often as there is such a phase.
    """
    import torch

    from thrifty.hardware.overheads import (
        BACKWARD,
        MODULE,
        PARAMETER,
        START,
        SmallAttention,
        SmallConvolution,
        aside,
        watched,
    )

    kinds = ((SmallAttention, torch.randn(2, 4, 16)), (SmallConvolution, torch.randn(2, 8, 4, 4)))
    names = ((MODULE, "forward"), (BACKWARD, "backward"), (PARAMETER, "update"))
    for cast, dtype in ((False, "float32"), (True, "bfloat16")):
        sizes = [[_phases(block, count, x, cast) for count in _BLOCKS] for block, x in kinds]
        for name, phase in names:
            found = [_beside(few, many, phase) for few, many in sizes]
            yield aside(name, statistics.fmean(each for each, _ in found), 0.0, 1, 0, dtype)
            yield aside(f"{name} {START}", statistics.fmean(start for _, start in found), 0.0, 1, 0, dtype)
    small = torch.nn.Sequential(*(SmallAttention() for _ in range(_BLOCKS[0]))).to(DEVICE)
    yield from watched(small, kinds[0][1].to(DEVICE))


def _phases(block: type[torch.nn.Module], count: int, x: torch.Tensor, cast: bool) -> Phases:
    import torch

    from thrifty.hardware.overheads import Phases

    model = torch.nn.Sequential(*(block() for _ in range(count))).to(DEVICE)
    return Phases(model, x.to(DEVICE), cast, torch.optim.AdamW)


def _beside(few: Phases, many: Phases, phase: str) -> tuple[float, float]:
    """Seconds of one more of what a phase counts, and of none, through a small and a larger model."""
    least_s, most_s = few.beside(phase), many.beside(phase)
    each_s = max((most_s - least_s) / (many.parts(phase) - few.parts(phase)), 0.0)
    return each_s, max(least_s - each_s * few.parts(phase), 0.0)


def _to_device() -> Iterator[KernelPoint]:
    """Seconds to copy a batch of so many bytes from the host to the GPU."""
    import torch

    from thrifty.hardware.overheads import TO_DEVICE, aside
    from thrifty.hardware.stopwatch import repeated

    for size in _BATCH_BYTES:
        # each in its turn: a batch comes from memory, not from a cache
        batches = itertools.cycle([torch.ones(size // 4) for _ in range(8)])

        def copy(batches: Iterator[torch.Tensor] = batches) -> None:
            next(batches).to(DEVICE)

        timing = repeated(copy, 24)
        yield aside(TO_DEVICE, timing.median_s, timing.spread, 1, size)


def main(index: int, seconds: float) -> None:
    """Measure a GPU, by its number in CUDA's order, and print what was timed as JSON."""
    import torch

    torch.cuda.set_device(index)
    print(json.dumps([point.model_dump(mode="json") for point in points(seconds)]))
