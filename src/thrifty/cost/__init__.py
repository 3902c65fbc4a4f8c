"""Predict what a plan costs before it runs: trace one step, then memory, time, energy and money, each an `Interval`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from thrifty.cost.heap import HeapPeak, heap_peak
from thrifty.cost.memory import largest_micro_batch, peak_bytes
from thrifty.cost.price import UTILISATION, Use, joules, power_share, usd
from thrifty.cost.recorder import Op
from thrifty.cost.time import phase_seconds, step_seconds
from thrifty.cost.trace import Trace, trace_step
from thrifty.hardware.pages import Keeping
from thrifty.spec import Cost, Device, Interval, LoopPrecision, arithmetic_of
from thrifty.spec.units import format_seconds

__all__ = [
    "HeapPeak",
    "Op",
    "Trace",
    "heap_peak",
    "joules",
    "largest_micro_batch",
    "peak_bytes",
    "predict",
    "step_seconds",
    "trace_step",
    "usd",
]

# a few steps show less than a whole run meets: bounds are at least this far from the median
_PROBE_DOUBT = 0.1
# of a probe of one or two steps, whose spread says nothing
_SHORT_PROBE_DOUBT = 0.25
# a smaller last batch of an epoch does less
_FLOPS_DOUBT = 0.05


def predict(
    *,
    micro: Trace,
    samples_per_micro: int,
    accumulation: int,
    steps: int,
    evaluations: int | Callable[[float, float], int],
    evaluation_samples: int,
    device: Device,
    precision: LoopPrecision,
    probe_step_seconds: tuple[float, ...] = (),
    save_seconds: float = 0.0,
    evaluation_batch_ratio: float = 1.0,
    evaluation_work: float = 1.0,
    loader_bytes: int = 0,
    heap: HeapPeak | None = None,
    runtime: Mapping[str, int] | None = None,
    copied: bool = False,
    keeping: Keeping = "default",
    largest: Trace | None = None,
    waits: Interval | None = None,
) -> Cost:
    """Predict what a training run costs, validations included.

    Args:
        micro: trace of one micro-batch.
        samples_per_micro: samples in it.
        accumulation: micro-batches in an optimizer step.
        steps: optimizer steps.
        evaluations: validations during the run, or how many by the seconds of a step and of a validation.
        evaluation_samples: samples of one validation.
        device: what it runs on.
        precision: that the model computes in.
        probe_step_seconds: seconds of real optimizer steps after warming up, when some were timed on the device: their
            median is then taken as the step.
        save_seconds: to write the weights once, at each validation; 0 where it was not timed.
        evaluation_work: of a sample that is validated, in that of one that is trained on.
        evaluation_batch_ratio, loader_bytes, heap, runtime, copied: as for `peak_bytes`.
        keeping: as for `step_seconds`.
        largest: trace of the largest micro-batch, which memory goes by; ``micro`` where all are alike.
        waits: seconds of a step that come to the device's own: for messages between ranks, or states elsewhere.
    """
    if probe_step_seconds:
        step = _probed(probe_step_seconds)
    else:
        step = step_seconds(micro, accumulation, device, precision, keeping=keeping)
    forward_s, backward_s = (phase_seconds(micro, phase, device) for phase in ("forward", "backward"))
    forward_share = forward_s / (forward_s + backward_s)
    samples_per_step = samples_per_micro * accumulation
    validation_steps = evaluation_samples * evaluation_work / samples_per_step * forward_share
    if callable(evaluations):
        waits_s = waits.value if waits is not None else 0.0
        evaluations = evaluations(step.value + waits_s, validation_steps * step.value + save_seconds)
    evaluation_steps = evaluations * validation_steps
    seconds = _plus(_times(step, steps + evaluation_steps), evaluations * save_seconds)
    if waits is not None:
        step, seconds = _sum(step, waits), _sum(seconds, _times(waits, steps))
    method = f"{steps:,} steps of {format_seconds(step.value)}: {step.method}"
    if evaluations:
        share = f"the forward pass's {forward_share:.0%} of a step"
        several = "s" if evaluations != 1 else ""
        method += f"; {evaluations:,} validation{several} of {evaluation_samples:,} samples at {share}"
    if evaluations and save_seconds:
        method += f", each with {format_seconds(save_seconds)} to keep the weights, timed once"
    seconds = seconds.model_copy(update={"method": method})
    flops = float(steps * accumulation * (micro.forward_flops + micro.backward_flops))
    return Cost(
        seconds=seconds,
        peak_bytes=peak_bytes(
            largest or micro,
            evaluation_batch_ratio=evaluation_batch_ratio,
            loader_bytes=loader_bytes,
            accumulation=accumulation,
            device_kind=device.kind,
            heap=heap,
            runtime=runtime,
            copied=copied,
        ),
        joules=joules(seconds, device, _utilisation(micro, accumulation, step.value, device, precision)),
        usd=usd(seconds, device),
        flops=Interval(
            low=flops * (1 - _FLOPS_DOUBT),
            value=flops,
            high=flops,
            method="products, convolutions and attention of the traced step x steps; a smaller last batch does less",
        ),
    )


def _utilisation(micro: Trace, accumulation: int, step_s: float, device: Device, precision: str) -> float:
    """How far a device is from idle to busy watts over steps of so many seconds.

    A CPU's threads work or spin whatever they reach; a GPU draws by the arithmetic and the traffic of its operators.
    """
    if device.kind == "cpu" or not step_s:
        return UTILISATION[device.kind]
    peaks = {**device.flops_per_second, **device.datasheet_flops_per_second}
    peak = peaks.get(arithmetic_of(precision), peaks["fp32"])
    bandwidth = device.datasheet_bytes_per_second.get("memory", device.bytes_per_second)
    flops = (micro.forward_flops + micro.backward_flops) * accumulation
    moved = sum(op.moved_bytes for op in micro.ops) * accumulation
    return power_share(Use(flops / (step_s * peak.value), moved / (step_s * bandwidth.value)))


def _probed(times: tuple[float, ...]) -> Interval:
    median = statistics.median(times)
    doubt = _PROBE_DOUBT if len(times) > 2 else _SHORT_PROBE_DOUBT
    spread = f"{format_seconds(min(times))} to {format_seconds(max(times))}"
    return Interval(
        low=min(*times, median * (1 - doubt)),
        value=median,
        high=max(*times, median * (1 + doubt)),
        method=f"median of {len(times)} real steps timed here, {spread}",
    )


def _plus(interval: Interval, seconds: float) -> Interval:
    """Add seconds that were timed once, on a disk that others use: from half to twice as long."""
    return Interval(
        low=interval.low + seconds / 2,
        value=interval.value + seconds,
        high=interval.high + seconds * 2,
        method=interval.method,
    )


def _sum(one: Interval, other: Interval) -> Interval:
    low, value, high = (getattr(one, name) + getattr(other, name) for name in ("low", "value", "high"))
    return Interval(low=low, value=value, high=high, method=f"{one.method}, and {other.method}")


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(
        low=interval.low * factor,
        value=interval.value * factor,
        high=interval.high * factor,
        method=interval.method,
    )
