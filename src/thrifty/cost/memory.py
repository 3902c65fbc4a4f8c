"""Predict the peak memory of a whole run from a trace, and the largest micro-batch that fits a limit."""

from __future__ import annotations

from collections.abc import Callable

from thrifty.cost.trace import Trace
from thrifty.spec import DeviceKind, Interval
from thrifty.spec.units import format_bytes

MIB = 1 << 20
# Resident memory above a bare interpreter before the first weight: torch with a first convolution, product and
# optimizer step takes 302 MiB, what the rest of a run imports (OpenCV, SQLAlchemy, safetensors, rich) 45 MiB more, and
# tracing itself up to 40. Measured with torch 2.13.0 (CPU) and Python 3.11 on Linux.
RUNTIME_MIB = {"low": 285, "value": 335, "high": 400}

# What the process holds over what lives at once. Beside each aligned block glibc (2.36) leaves a sliver; once something
# small lives in it, the hole of a freed block is too small for the next block of the same size, and the heap grows past
# what lives. Measured: 1.68 to 2.7 with convolutions (resnet8 and resnet20, fp32 and bf16, both layouts), 1.0 to 1.76
# without (GPTs and an MLP). With MALLOC_MMAP_THRESHOLD_=65536 the same steps took 0.99 to 1.04.
_HEAP = {"convolutions": (1.0, 1.85, 2.8), "no convolutions": (0.97, 1.35, 1.9)}
# torch's caching allocator rounds and splits: what it calls allocated is what lives, and cuBLAS's workspace. Assumed.
_CUDA_ALLOCATOR = (0.95, 1.05, 1.3)
_CUDA_BASE_MIB = {"low": 0, "value": 16, "high": 100}


def peak_bytes(
    trace: Trace,
    *,
    evaluation_batch_ratio: float = 1.0,
    loader_bytes: int = 0,
    accumulation: int = 1,
    device_kind: DeviceKind = "cpu",
) -> Interval:
    """Predict the peak of a whole run: on a CPU resident memory above the bare interpreter, else memory of the GPU.

    The largest of four moments: a training step, the optimizer's first step, a validation, a checkpoint with the best
    weights copied; over weights, optimizer states, the runtime's own base and what loads the data.

    Args:
        trace: of one micro-batch.
        evaluation_batch_ratio: samples of a validation batch over samples of the traced one.
        loader_bytes: held by loading data; counted on the host alone.
        accumulation: micro-batches in a step; from the second on, gradients live beside the activations.
        device_kind: ``cpu`` or ``cuda``.
    """
    steady = trace.parameter_bytes + trace.buffer_bytes + trace.optimizer_bytes + trace.input_bytes
    kept_gradients = trace.gradient_bytes if accumulation > 1 else 0
    evaluation = evaluation_batch_ratio * (trace.evaluation_bytes + trace.input_bytes)
    # safetensors copies the weights into bytes, then those into one block
    checkpoint = 2 * trace.parameter_bytes if device_kind == "cpu" else 0
    moments = {
        "a training step": float(kept_gradients + trace.live_peak_bytes),
        "the optimizer's step": float(trace.gradient_bytes),
        "a validation": evaluation,
        "a checkpoint": float(checkpoint),
    }
    held_by = max(moments, key=lambda moment: moments[moment])
    if device_kind == "cpu":
        convolves = any(op.kind == "convolution" for op in trace.ops)
        factors = _HEAP["convolutions" if convolves else "no convolutions"]
        base, outside = RUNTIME_MIB, steady + loader_bytes
        how = f"times {factors[1]} for the heap's holes ({factors[0]} to {factors[2]}), {base['value']} MiB of torch"
    else:
        factors, base, outside = _CUDA_ALLOCATOR, _CUDA_BASE_MIB, steady
        how = f"times {factors[1]} for the allocator (assumed)"
    low, value, high = (
        base[name] * MIB + outside + moments[held_by] * factor
        for name, factor in zip(("low", "value", "high"), factors, strict=True)
    )
    said = f"{format_bytes(moments[held_by])} live at the peak, in {held_by}, by replay of the traced step, {how}"
    return Interval(
        low=low, value=value, high=high, method=f"{said}, and {format_bytes(outside)} of weights and states"
    )


def largest_micro_batch(
    trace_at: Callable[[int], Trace],
    limit_bytes: float,
    wanted: int,
    *,
    device_kind: DeviceKind = "cpu",
    loader_bytes: int = 0,
) -> int:
    """Return the most samples at once, at most ``wanted``, whose peak stays within a limit nine times in ten.

    The upper bound of `peak_bytes` is held against the limit, for a wrong "it fits" costs the run. 0 when not even one
    sample fits. Sizes tried are ``wanted`` over 1, 2, 3, …, so that the micro-batches of a step are as equal as can be.

    Args:
        trace_at: traces one micro-batch of a size; called about twice the logarithm of the parts needed.
        limit_bytes: of memory, on the same footing as `peak_bytes`.
        wanted: samples of a step.
        device_kind, loader_bytes: as for `peak_bytes`.
    """
    assert wanted >= 1, wanted

    def fits(parts: int) -> bool:
        micro = -(-wanted // parts)
        peak = peak_bytes(
            trace_at(micro), accumulation=-(-wanted // micro), device_kind=device_kind, loader_bytes=loader_bytes
        )
        return peak.high <= limit_bytes

    too_few, parts = 0, 1
    while not fits(parts):
        if parts == wanted:
            return 0
        too_few, parts = parts, min(2 * parts, wanted)
    while parts - too_few > 1:
        middle = (too_few + parts) // 2
        too_few, parts = (too_few, middle) if fits(middle) else (middle, parts)
    return -(-wanted // parts)
