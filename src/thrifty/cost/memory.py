"""Predict the peak memory of a whole run from a trace, and the largest micro-batch that fits a limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from thrifty.cost.cuda_allocator import replay
from thrifty.cost.heap import HeapPeak
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
# Dry runs of the step (`thrifty.cost.heap`) against real ones. The heap is a chaotic thing: real runs of one step were
# up to 10 % apart, dry ones up to 19 %, of which the largest counts. Peaks of 36 cases in two sittings were 0.82 to
# 1.06 of what was foreseen of them, the runtime included (benchmarks.plan).
_DRY_RUN = (0.82, 1.0, 1.12)
# Beside tensors a CUDA step holds cuBLAS's workspace: 8 MiB, on Hopper 32 MiB (its default).
_CUDA_WORKSPACE_MIB = {"low": 8, "value": 8, "high": 40}
# Bounds over the value where the GPU itself was asked about every operator.
_ASKED = (0.97, 1.03)


def peak_bytes(
    trace: Trace,
    *,
    evaluation_batch_ratio: float = 1.0,
    loader_bytes: int = 0,
    accumulation: int = 1,
    device_kind: DeviceKind = "cpu",
    heap: HeapPeak | None = None,
    runtime: Mapping[str, int] | None = None,
    copied: bool = False,
) -> Interval:
    """Predict the peak of a whole run: on a CPU resident memory above what a run begins with, else memory of the GPU.

    The largest of three moments: a training step, the optimizer's first step, a validation; over weights, optimizer
    states, the copy of both that is being saved meanwhile, the runtime's own base and what loads the data.

    Args:
        trace: of one micro-batch.
        evaluation_batch_ratio: samples of a validation batch over samples of the traced one.
        loader_bytes: held by loading data; counted on the host alone.
        accumulation: micro-batches in a step; from the second on, gradients live beside the activations.
        device_kind: ``cpu``, or a device whose memory torch's caching allocator keeps.
        heap: of a dry run of the same plan, where there was one; without it the heap's holes are a rule's.
        runtime: bytes of each part of the runtime, by `thrifty.hardware.runtime`, and of ``polars`` where it read rows;
            a rule's where it is left out.
        copied: a run on a CPU copies its state to save it while it goes on (`Plan.saving`); the lower bound is of a run
            too short for that, the upper one of best weights that wait to be saved too.
    """
    steady = trace.parameter_bytes + trace.buffer_bytes + trace.optimizer_bytes + trace.input_bytes
    if device_kind != "cpu":
        return _device_peak(trace, accumulation, evaluation_batch_ratio)
    base, base_how = _base(trace, runtime)
    # what is frozen is neither saved nor kept as the best
    trained = trace.gradient_bytes
    copy = trained + trace.buffer_bytes + trace.optimizer_bytes if copied else 0
    copies = {"low": 0, "value": copy, "high": copy + (trained if copied else 0)}
    saved = f", and {format_bytes(copy)} of a copy that is being saved" if copied else ""
    if heap is not None:
        moments = {
            "a training step": float(heap.step),
            "a validation": float(heap.evaluation),
        }
        held_by = max(moments, key=lambda moment: moments[moment])
        low, value, high = (
            base[name] + loader_bytes + copies[name] + moments[held_by] * factor
            for name, factor in zip(("low", "value", "high"), _DRY_RUN, strict=True)
        )
        said = (
            f"the heap grows to {format_bytes(moments[held_by])} in {held_by}, by a dry run of real steps, {base_how}"
        )
        return Interval(low=low, value=value, high=high, method=said + saved)
    kept_gradients = trace.gradient_bytes if accumulation > 1 else 0
    moments = {
        "a training step": float(kept_gradients + trace.live_peak_bytes),
        "the optimizer's step": 0.0 if trace.releases else float(trace.gradient_bytes),
        "a validation": evaluation_batch_ratio * (trace.evaluation_bytes + trace.input_bytes),
    }
    held_by = max(moments, key=lambda moment: moments[moment])
    factors = _HEAP["convolutions" if _convolves(trace) else "no convolutions"]
    outside = steady + loader_bytes
    low, value, high = (
        base[name] + outside + copies[name] + moments[held_by] * factor
        for name, factor in zip(("low", "value", "high"), factors, strict=True)
    )
    how = f"times {factors[1]} for the heap's holes ({factors[0]} to {factors[2]}), {base_how}"
    said = f"{format_bytes(moments[held_by])} live at the peak, in {held_by}, by replay of the traced step, {how}"
    return Interval(
        low=low, value=value, high=high, method=f"{said}, and {format_bytes(outside)} of weights and states{saved}"
    )


def _convolves(trace: Trace) -> bool:
    return any(op.kind == "convolution" for op in trace.ops)


def _base(trace: Trace, runtime: Mapping[str, int] | None) -> tuple[dict[str, float], str]:
    """What the process holds beside tensors, in bytes; measured where ``runtime`` says, else a rule."""
    if runtime is None or not runtime.get("imports"):
        return {name: float(size * MIB) for name, size in RUNTIME_MIB.items()}, f"{RUNTIME_MIB['value']} MiB of torch"
    half = any(op.dtype == "bfloat16" for op in trace.ops)
    convolves = _convolves(trace)
    needed = {
        "imports": True,
        "products": True,
        "bf16": half,
        "convolutions": convolves,
        "bf16 convolutions": half and convolves,
        "recurrent layers": any("rnn" in op.name for op in trace.ops),
    }
    least = float(sum(runtime[part] for part, wanted in needed.items() if wanted))
    # what read the rows is there where they were prepared by the same process, which a later run of the plan is not
    total = least + runtime.get("polars", 0)
    return {"low": 0.9 * least, "value": total, "high": 1.15 * total}, f"{format_bytes(total)} of libraries, measured"


def _device_peak(trace: Trace, accumulation: int, evaluation_batch_ratio: float) -> Interval:
    """Peak that ``torch.cuda.max_memory_allocated`` would show, by replay through the caching allocator's rules."""
    found = replay(_device_events(trace, accumulation))
    steady = trace.parameter_bytes + trace.buffer_bytes + trace.optimizer_bytes + trace.workspace_bytes
    evaluation = int(steady + evaluation_batch_ratio * (trace.evaluation_bytes + trace.input_bytes))
    allocated = max(found.allocated, evaluation)
    said = f"{format_bytes(found.allocated)} allocated, {format_bytes(found.reserved)} reserved by replay of the "
    said += "traced step through the caching allocator's rules; "
    if trace.timed:
        low, high = (share * allocated for share in _ASKED)
        said += "what operators take beside their results, this GPU was asked"
        return Interval(low=low, value=allocated, high=max(high, found.reserved), method=said)
    low, value, high = (allocated + _CUDA_WORKSPACE_MIB[name] * MIB for name in ("low", "value", "high"))
    # the highest that may be asked of the device: what the allocator holds, and its context
    high = max(high, found.reserved + _CUDA_WORKSPACE_MIB["high"] * MIB)
    said += "operators as a CPU runs them, no GPU was asked"
    return Interval(low=0.95 * low, value=value, high=1.05 * high, method=said)


def _device_events(trace: Trace, accumulation: int) -> Iterator[tuple[int, int]]:
    """Weights, then three steps, as the allocator would see them: a block's number, and its bytes or 0 when freed."""
    number = itertools.count()
    for size in trace.parameter_sizes:
        yield next(number), max(size, 1)
    batch = next(number)
    kept: dict[int, int] = {}
    scratch = _scratch(trace)
    if trace.workspace_bytes:
        yield next(number), trace.workspace_bytes
    for step in range(3):
        if step:
            yield batch, 0
        batch = next(number)
        yield batch, max(trace.input_bytes, 1)
        for part in range(min(accumulation, 2)):
            yield from _pass_events(trace, scratch, number, kept, first=step == 0 and part == 0, adds=part > 0)
        for gradient in kept.values():
            yield gradient, 0
        kept.clear()


def _scratch(trace: Trace) -> list[int]:
    """Bytes that each operator takes while it runs, beside its results, as the GPU was seen to."""
    timed = (trace.timed.get(op.key) for op in trace.ops)
    return [point.scratch_bytes if point is not None else 0 for point in timed]


def _pass_events(
    trace: Trace, scratch: list[int], number: Iterator[int], kept: dict[int, int], *, first: bool, adds: bool
) -> Iterator[tuple[int, int]]:
    """One pass over a micro-batch: gradients are kept, or added to those kept and freed; states are made once."""
    alive: dict[int, int] = {}
    done = 0
    for block, event in trace.step.events:
        role, size = trace.step.blocks[block].role, trace.step.blocks[block].bytes
        # results are noted under the operator that made them, what is freed under the next one
        ready = -event - 1 if event < 0 else event
        while done < min(ready, len(scratch)):
            if scratch[done]:
                made = next(number)
                yield made, scratch[done]
                yield made, 0
            done += 1
        if event < 0:
            if block in alive:
                yield alive.pop(block), 0
        elif role != "state" or first:
            made = next(number)
            yield made, max(size, 1)
            if role == "working" or trace.releases:
                alive[block] = made
            elif role == "gradient" and adds:
                yield made, 0
            elif role == "gradient":
                kept[block] = made
    for made in alive.values():
        yield made, 0


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
