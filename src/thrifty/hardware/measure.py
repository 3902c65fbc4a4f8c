"""Micro-benchmarks: how fast this machine multiplies matrices and moves memory, each with its shape and spread.

Units: rates in FLOP/s (a multiply-add counts two) and in bytes/s (read plus written).
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain

if TYPE_CHECKING:
    import torch

# Rows, inputs, outputs of a linear layer. The first is small enough for precisions that are emulated.
CPU_SHAPES = ((256, 256, 256), (1024, 1024, 1024), (2048, 2048, 2048), (2048, 768, 3072))
CUDA_SHAPES = ((2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096))
REPEATS = 5
SECONDS_A_SHAPE = 0.7
_COPY_BYTES = (64 << 20, 2 << 30)


class Measurement(Plain):
    """What was measured of one device, and what only its runtime could tell.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        torch: version that measured.
        threads: of the CPU; 0 for a GPU.
        processors: multiprocessors of a GPU; 0 for a CPU.
        flops_per_second: by precision, of the best shape.
        bytes_per_second: of a copy that no cache holds.
        measured_on: ISO date.
        seconds: that measuring took.
    """

    device: str
    torch: str
    threads: int
    processors: int
    flops_per_second: dict[str, Quantity]
    bytes_per_second: Quantity
    measured_on: str
    seconds: float


def measure_cpu(threads: int, *, last_cache_bytes: int, memory_bytes: int) -> Measurement:
    """Measure the CPU with so many threads; takes a few seconds, and restores torch's own number of threads.

    Args:
        threads: of the matrix products and the copy.
        last_cache_bytes: the copy is at least four times as large.
        memory_bytes: what may be used; the copy takes no more than a quarter of it.
    """
    import torch

    began, before = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            how = f"torch {torch.__version__}, {threads} threads"
            rates = {name: _products("cpu", dtype, CPU_SHAPES, how) for name, dtype in _dtypes("fp32", "bf16").items()}
            size = min(max(4 * last_cache_bytes, _COPY_BYTES[0]), _COPY_BYTES[1], max(memory_bytes // 8, 1 << 20))
            bandwidth = _copy("cpu", size, how)
    finally:
        torch.set_num_threads(before)
    return Measurement(
        device="cpu",
        torch=torch.__version__,
        threads=threads,
        processors=0,
        flops_per_second=rates,
        bytes_per_second=bandwidth,
        measured_on=_today(),
        seconds=time.perf_counter() - began,
    )


def measure_cuda(index: int = 0) -> Measurement | None:
    """Measure a GPU by CUDA events; None when this torch cannot use one."""
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    began = time.perf_counter()
    found = torch.cuda.get_device_properties(index)
    with torch.inference_mode(), torch.cuda.device(index):
        bf16 = ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        how = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
        rates = {
            name: _products("cuda", dtype, CUDA_SHAPES, how) for name, dtype in _dtypes("fp32", "fp16", *bf16).items()
        }
        bandwidth = _copy("cuda", min(_COPY_BYTES[1], found.total_memory // 8), how)
        torch.cuda.empty_cache()
    return Measurement(
        device=found.name,
        torch=torch.__version__,
        threads=0,
        processors=found.multi_processor_count,
        flops_per_second=rates,
        bytes_per_second=bandwidth,
        measured_on=_today(),
        seconds=time.perf_counter() - began,
    )


def _dtypes(*names: str) -> dict[str, torch.dtype]:
    import torch

    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return {name: known[name] for name in names}


def _products(device: str, dtype: torch.dtype, shapes: tuple[tuple[int, int, int], ...], how: str) -> Quantity:
    """Rate of the shape whose median is best, with the spread of that shape."""
    import torch

    best: tuple[float, Quantity] | None = None
    seconds_per_flop = 0.0
    for rows, inputs, outputs in shapes:
        flops = 2.0 * rows * inputs * outputs
        # A precision that the processor emulates can be a thousand times slower: what would take long is left out.
        if seconds_per_flop * flops > 2 * SECONDS_A_SHAPE:
            continue
        x = torch.rand(rows, inputs, device=device).to(dtype)
        weight = torch.rand(outputs, inputs, device=device).to(dtype)
        times = _times(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), device)  # type: ignore[misc]
        median = statistics.median(times)
        seconds_per_flop = median / flops
        if best is None or flops / median > best[0]:
            rates = f"{flops / max(times) / 1e12:.3g} to {flops / min(times) / 1e12:.3g} T"
            said = f"{rows}x{inputs}x{outputs}, {len(times)} repeats, {rates}"
            best = (flops / median, Quantity(value=flops / median, source=f"measured {_today()}, {how}, {said}"))
    assert best is not None
    return best[1]


def _copy(device: str, size: int, how: str) -> Quantity:
    """Rate of a copy from one block of so many bytes to another: what is read plus what is written."""
    import torch

    # Not zeros: the system would map every page of them to one, and the copy would read from a cache.
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    times = _times(lambda: target.copy_(source), device)
    rate = 2 * size / statistics.median(times)
    spread = f"{2 * size / max(times) / 1e9:.3g} to {2 * size / min(times) / 1e9:.3g} GB/s"
    said = f"copy of {size >> 20} MiB, {len(times)} repeats, {spread}"
    return Quantity(value=rate, source=f"measured {_today()}, {how}, {said}")


def _times(work: Callable[[], Any], device: str) -> list[float]:
    """Seconds of up to five repeats after warming up; fewer when they would exceed the time for a shape."""
    once = _cuda_seconds if device == "cuda" else _cpu_seconds
    warm = once(work)
    if warm < SECONDS_A_SHAPE:
        warm = once(work)
    repeats = max(1, min(REPEATS, int(SECONDS_A_SHAPE / max(warm, 1e-9))))
    return [once(work) for _ in range(repeats)]


def _cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _cuda_seconds(work: Callable[[], Any]) -> float:
    """Mean over a few launches, so that the time of a launch itself hides behind the work."""
    import torch

    launches = 4
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began.record()
    for _ in range(launches):
        work()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1e3 / launches


def _today() -> str:
    return datetime.date.today().isoformat()
