"""Micro-benchmarks: how fast this machine multiplies matrices and moves memory, each with its shape and spread.

Units: rates in FLOP/s (a multiply-add counts two) and in bytes/s (read plus written).
"""

from __future__ import annotations

import datetime
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from thrifty.hardware.bench import SECONDS as KERNEL_SECONDS
from thrifty.hardware.bench import Bench, bench
from thrifty.hardware.gpu_bench import gpu_bench
from thrifty.spec.device import KernelPoint, Quantity
from thrifty.spec.plain import Plain

if TYPE_CHECKING:
    import torch

# Rows, inputs, outputs of a linear layer. The first is small enough for a precision that is emulated.
CPU_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (2048, 768, 3072))
CUDA_SHAPES = ((2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096))
REPEATS = 5
SECONDS_A_SHAPE = 0.7
_COPY_BYTES = (64 << 20, 2 << 30)
QUIET_SHARE = 0.1


class Measurement(Plain):
    """What was measured of one device, and what only its runtime could tell.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        torch: version that measured.
        threads: of the CPU; 0 for a GPU.
        processors: multiprocessors of a GPU; 0 for a CPU.
        flops_per_second: by precision, of the best shape.
        bytes_per_second: of a copy that no cache holds.
        cache_bytes: by level, of a GPU.
        measured_on: ISO date.
        seconds: that measuring took.
        disturbed: share of the processor's time that others took meanwhile; above `QUIET_SHARE` the rates are too low.
        kernels: operators timed one by one; what the doubt about all of them is, each figure's source says.
    """

    device: str
    torch: str
    threads: int
    processors: int
    flops_per_second: dict[str, Quantity]
    bytes_per_second: Quantity
    measured_on: str
    seconds: float
    disturbed: float = 0.0
    kernels: tuple[KernelPoint, ...] = ()
    cache_bytes: dict[str, int] = Field(default_factory=dict)


def measure_cpu(
    threads: int, *, last_cache_bytes: int, memory_bytes: int, kernel_seconds: float | None = None
) -> Measurement:
    """Measure the CPU with so many threads; takes under a minute, and restores torch's own number of threads.

    Args:
        threads: of the matrix products and the copy.
        last_cache_bytes: the copy is at least four times as large.
        memory_bytes: what may be used; the copy takes no more than a quarter of it.
        kernel_seconds: for timing operators one by one; 0 leaves them out. When not given, ``THRIFTY_MEASURE_SECONDS``
            of the environment, else 50.
    """
    import torch

    began, before = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(threads)
    timer = _CpuTimer()
    try:
        with torch.inference_mode():
            how = f"torch {torch.__version__}, {threads} threads"
            rates = {name: _products(timer, "cpu", dtype, how) for name, dtype in _dtypes("fp32", "bf16").items()}
            taken = timer.taken_by_others(threads)
            size = min(max(4 * last_cache_bytes, _COPY_BYTES[0]), _COPY_BYTES[1], max(memory_bytes // 8, 1 << 20))
            bandwidth = _copy(timer, "cpu", size, how)
    finally:
        torch.set_num_threads(before)
    kernels = Bench(kernels=(), disturbed=0.0)
    seconds = _kernel_seconds(kernel_seconds)
    if seconds:
        kernels = bench(threads, last_cache_bytes=last_cache_bytes, seconds=seconds)
    taken = max(taken, kernels.disturbed)
    if taken > QUIET_SHARE:
        doubt = f"; other processes took {taken:.0%} of the cores meanwhile, measure again when they rest"
        rates = {name: Quantity(value=rate.value, source=rate.source + doubt) for name, rate in rates.items()}
    return Measurement(
        device="cpu",
        torch=torch.__version__,
        threads=threads,
        processors=0,
        flops_per_second=rates,
        bytes_per_second=bandwidth,
        measured_on=_today(),
        seconds=time.perf_counter() - began,
        disturbed=taken,
        kernels=kernels.kernels,
    )


def measure_cuda(index: int = 0, *, uuid: str = "", kernel_seconds: float | None = None) -> Measurement | None:
    """Measure a GPU by CUDA events; None when this torch cannot use it.

    Args:
        index: of the GPU as the driver lists them.
        uuid: of the GPU; it goes before ``index``, since CUDA may count them in another order than the driver.
        kernel_seconds: for timing operators one by one; as of `measure_cpu`.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    count = torch.cuda.device_count()
    uuids = [f"GPU-{getattr(torch.cuda.get_device_properties(each), 'uuid', '')}" for each in range(count)]
    index = uuids.index(uuid) if uuid in uuids else index
    if index >= count:
        return None
    began, timer = time.perf_counter(), _CudaTimer()
    found = torch.cuda.get_device_properties(index)
    with torch.inference_mode(), torch.cuda.device(index):
        bf16 = ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        how = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
        dtypes = _dtypes("fp32", "fp16", *bf16)
        rates = {name: _products(timer, "cuda", dtype, how) for name, dtype in dtypes.items()}
        bandwidth = _copy(timer, "cuda", min(_COPY_BYTES[1], found.total_memory // 8), how)
        torch.cuda.empty_cache()
    seconds = _kernel_seconds(kernel_seconds)
    return Measurement(
        device=found.name,
        torch=torch.__version__,
        threads=0,
        processors=found.multi_processor_count,
        flops_per_second=rates,
        bytes_per_second=bandwidth,
        cache_bytes={"L2": found.L2_cache_size},
        measured_on=_today(),
        kernels=gpu_bench(index, seconds=seconds) if seconds else (),
        seconds=time.perf_counter() - began,
    )


def _kernel_seconds(asked: float | None) -> float:
    return float(os.environ.get("THRIFTY_MEASURE_SECONDS", KERNEL_SECONDS)) if asked is None else asked


def _dtypes(*names: str) -> dict[str, torch.dtype]:
    import torch

    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return {name: known[name] for name in names}


def _products(timer: _Timer, device: str, dtype: torch.dtype, how: str) -> Quantity:
    """Rate of the shape whose median is best, with the spread of that shape."""
    import torch

    best = Quantity(value=0.0, source="")
    seconds_per_flop = 0.0
    for rows, inputs, outputs in CUDA_SHAPES if device == "cuda" else CPU_SHAPES:
        flops = 2.0 * rows * inputs * outputs
        # A precision that the processor emulates can be a thousand times slower: what would take long is left out.
        if seconds_per_flop * flops > 2 * SECONDS_A_SHAPE:
            continue
        x = torch.rand(rows, inputs, device=device).to(dtype)
        weight = torch.rand(outputs, inputs, device=device).to(dtype)
        times = _times(timer, functools.partial(torch.nn.functional.linear, x, weight))
        rate = flops / statistics.median(times)
        seconds_per_flop = min(times) / flops
        if rate > best.value:
            spread = f"{flops / max(times) / 1e12:.3g} to {flops / min(times) / 1e12:.3g} T"
            said = f"{rows}x{inputs}x{outputs}, {len(times)} repeats, {spread}"
            best = Quantity(value=rate, source=f"measured {_today()}, {how}, {said}")
    return best


def _copy(timer: _Timer, device: str, size: int, how: str) -> Quantity:
    """Rate of a copy from one block of so many bytes to another: what is read plus what is written."""
    import torch

    # Not zeros: the system would map every page of them to one, and the copy would read from a cache.
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    times = _times(timer, functools.partial(target.copy_, source))
    rate = 2 * size / statistics.median(times)
    spread = f"{2 * size / max(times) / 1e9:.3g} to {2 * size / min(times) / 1e9:.3g} GB/s"
    said = f"copy of {size >> 20} MiB, {len(times)} repeats, {spread}"
    return Quantity(value=rate, source=f"measured {_today()}, {how}, {said}")


def _times(timer: _Timer, work: Callable[[], object]) -> list[float]:
    """Seconds of up to five repeats after warming up; fewer when they would exceed the time for a shape."""
    warm = timer.once(work)
    if warm < SECONDS_A_SHAPE:
        warm = timer.once(work)
    repeats = max(1, min(REPEATS, int(SECONDS_A_SHAPE / max(warm, 1e-9))))
    return [timer.once(work) for _ in range(repeats)]


class _CpuTimer:
    """Times work on the CPU, and notes how much processor time it got."""

    def __init__(self) -> None:
        self._wall_s = self._cpu_s = 0.0

    def once(self, work: Callable[[], object]) -> float:
        cpu, began = time.process_time(), time.perf_counter()
        work()
        wall_s = time.perf_counter() - began
        self._wall_s += wall_s
        self._cpu_s += time.process_time() - cpu
        return wall_s

    def taken_by_others(self, threads: int) -> float:
        """Share of the threads' time that they did not get. Threads that wait for each other do so spinning."""
        return max(0.0, 1 - self._cpu_s / (self._wall_s * threads))


class _CudaTimer:
    """Times work on the current GPU: mean over a few launches, so that a launch's own time hides behind the work."""

    launches = 4

    def once(self, work: Callable[[], object]) -> float:
        import torch

        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        began.record()
        for _ in range(self.launches):
            work()
        ended.record()
        torch.cuda.synchronize()
        return began.elapsed_time(ended) / 1e3 / self.launches


_Timer = _CpuTimer | _CudaTimer


def _today() -> str:
    return datetime.date.today().isoformat()
