"""Price the time of a step, operator by operator: by what was timed on the device, else by its two rates.

Of a device with timed operators (`Device.kernels`), an operator takes what its like took (`curves`), between the times
with its data in the caches and without, by what a replay of the step's memory finds there (`residency`); beside it come
dispatch and autograd, each parameter's share of the update, and memory that the kernel must first clear.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from thrifty.cost.curves import Curves, Estimate
from thrifty.cost.features import parse, place
from thrifty.cost.queue import Host, queue_seconds
from thrifty.cost.rates import clearing_seconds, rate_seconds
from thrifty.cost.recorder import Op, Phase
from thrifty.cost.residency import LARGEST_THRESHOLD, cold_shares, fresh_bytes
from thrifty.cost.trace import Trace
from thrifty.hardware.overheads import BACKWARD, FORGOTTEN, FORWARD, PAGES, PARAMETER, WATCHED
from thrifty.hardware.pages import Keeping
from thrifty.spec import Device, Interval, LoopPrecision, arithmetic_of
from thrifty.spec.device import KernelPoint

# phases that a step has once, after its passes
UPDATE = frozenset(["clip", "optimizer"])
# of the standard normal distribution: nine in ten lie within
_NINE_IN_TEN = 1.645
# how much of what caches save may be wrong: a replay knows neither their ways nor who shares them. Assumed.
_RESIDENCY_DOUBT = 0.3
# Share of an operator's variance that is wrong alike at all sizes of its group: the fit takes out what is alike, the
# machine's own speed wanders. Assumed: with 1 all of 36 bounds of nine in ten held, with 0.25 three quarters did.
_TOGETHER = 0.4
# One standard deviation of what was timed alone beside what it takes within a step. Assumed.
_ASKED_DOUBT = {"cpu": 0.12, "cuda": 0.02}
# Of a GPU, likewise: of copies, and of its own clock. Assumed.
_COPY_DOUBT, _GPU_DOUBT = 0.15, 0.02
# How much less and more the host may take than it was foreseen to: bounds. The host of a GPU shares its processors, and
# its speed wanders. Assumed.
_HOST_SLOW = (0.8, 1.7)
# standard deviation of the uniform distribution over its width
_UNIFORM = 1 / math.sqrt(12)
# bounds over the value where only the two rates are known: residuals over models were 0.55 to 1.8 on one CPU
_RATES_BOUNDS = {"cpu": (0.55, 1.8), "other": (0.4, 2.5)}
# seconds of a parameter in an update where none were timed
_SECONDS_A_PARAMETER = {"cpu": 40e-6, "other": 10e-6}


class Priced(NamedTuple):
    """An operator of a trace, its seconds, the share in doubt (one standard deviation), and what it is like."""

    op: Op
    seconds: float
    doubt: float
    group: str


class Times:
    """Prices traces on one device; makes its curves once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._aside = {point.name: point.warm_s for point in device.kernels if not point.shapes}
        self._pages = next((point for point in device.kernels if point.name == PAGES), None)
        self._forgotten = _forgetting(device.kernels)
        self.spread = float(np.median([point.spread for point in device.kernels] or [0.0]))
        self.host = Host(device.kernels) if device.kind == "cuda" and device.kernels else None

    @functools.cached_property
    def curves(self) -> Curves | None:
        """Curves through what was timed of the device; made when first needed."""
        return Curves(self.device.kernels) if self.device.kernels else None

    def price(self, trace: Trace) -> list[Priced]:
        """Price each operator of a step; see `Priced`."""
        if not self.device.kernels:
            known = {op: rate_seconds(op, trace.memory_format, self.device) for op in set(trace.ops)}
            return [Priced(op, known[op], 0.0, op.kind) for op in trace.ops]
        shares = cold_shares(trace.ops, trace.step, self._forgotten)
        points = [trace.timed.get(op.key) for op in trace.ops]
        return [
            self.op(op, share) if point is None else self._as_timed(op, point, share)
            for op, point, share in zip(trace.ops, points, shares, strict=True)
        ]

    def op(self, op: Op, cold_share: float) -> Priced:
        """Price one operator of which a share of what it touches lies in no cache."""
        found = self.curves.estimate(op, op.dtype) if self.curves is not None else None
        if found is None:
            return Priced(op, rate_seconds(op, "contiguous", self.device), 1.0, op.kind)
        return self._between(op, found, cold_share)

    def _as_timed(self, op: Op, point: KernelPoint, cold_share: float) -> Priced:
        """Price an operator as the device was seen to run its kind."""
        if self.host is not None:
            return Priced(op, point.warm_s, _ASKED_DOUBT["cuda"], f"{op.kind} {op.dtype}")
        doubt = math.hypot(point.spread, _ASKED_DOUBT["cpu"])
        return self._between(op, Estimate(point.warm_s, point.cold_s, doubt), cold_share)

    def _between(self, op: Op, found: Estimate, cold_share: float) -> Priced:
        """Price an operator between its times with all in the caches and with nothing, and what lies beside it."""
        beside_s = self._aside.get(FORWARD if op.phase == "forward" else BACKWARD, 0.0)
        if op.phase in UPDATE or self.host is not None:
            beside_s = 0.0
        elif op.watched:
            beside_s += self._aside.get(f"{WATCHED} {op.watched}", 0.0)
        busy_s = found.warm_s + (found.cold_s - found.warm_s) * cold_share
        seconds = busy_s + beside_s
        doubt = math.hypot(found.doubt * busy_s, _RESIDENCY_DOUBT * (found.cold_s - found.warm_s)) / seconds
        return Priced(op, seconds, doubt, f"{place(op).group} {op.dtype}")

    def asked(self, trace: Trace, priced: Sequence[Priced], precision: str) -> list[tuple[float, float]]:
        """Seconds of the host and of the GPU for each of a row of operators, in order."""
        assert self.host is not None
        asked, phase = [], ""
        for each in priced:
            known = trace.timed.get(each.op.key)
            host_s = self.host.ask(each.op, known.host_s if known is not None else None, precision)
            now = "update" if each.op.phase in UPDATE else each.op.phase.replace("recompute", "backward")
            if now != phase:
                host_s += self.host.begin(now, precision, trace.parameter_tensors)
                phase = now
            asked.append((host_s, each.seconds))
        return asked

    def parameters_seconds(self, trace: Trace) -> float:
        """Seconds of an update beside its operators, by the number of tensors."""
        default = _SECONDS_A_PARAMETER["cpu" if self.device.kind == "cpu" else "other"]
        return trace.parameter_tensors * self._aside.get(PARAMETER, default)

    def pages_seconds(self, trace: Trace, keeping: Keeping) -> tuple[float, float]:
        """Seconds in which the kernel clears memory for a step, and their standard deviation.

        By default halfway between a heap that maps only large blocks anew and keeps all else, and one that gives back
        its free top whenever glibc may; which of the two depends on where a small block happens to lie.
        """
        if keeping == "all":
            return 0.0, 0.0
        if self.curves is None and self.device.kind == "cpu":
            return sum(map(clearing_seconds, trace.ops)), 0.0
        if self._pages is None:
            return 0.0, 0.0
        a_byte_s = self._pages.warm_s / self._pages.moved_bytes
        workspace = sum(self._workspace_bytes(op) for op in trace.ops)
        mapped = sum(b.bytes for b in trace.step.blocks if b.bytes >= LARGEST_THRESHOLD and b.role != "state")
        if keeping == "small":
            return (mapped + workspace) * a_byte_s, 0.0
        least, most = mapped + workspace, max(fresh_bytes(trace.step, True), mapped) + workspace
        return (least + most) / 2 * a_byte_s, (most - least) * a_byte_s * _UNIFORM

    def _workspace_bytes(self, op: Op) -> int:
        """Bytes that oneDNN keeps of a recurrent layer for its backward pass, which a fake step does not show."""
        if op.name != "mkldnn_rnn_layer":
            return 0
        known = [point for point in self.device.kernels if (point.name, point.dtype) == (op.name, op.dtype)]
        shares = [_workspace_share(point.shapes) for point in known] or [0.0]
        size = int(float(np.median(shares)) * math.prod(parse(op.shapes)[1][0]))
        return size if size >= LARGEST_THRESHOLD else 0


def _workspace_share(shapes: str) -> float:
    """Bytes of a recurrent layer's last result, its workspace, for each number of its first."""
    _, results = parse(shapes)
    return math.prod(results[-1]) / math.prod(results[0])


def _forgetting(points: Sequence[KernelPoint]) -> Callable[[float], float]:
    """Share of a block that caches have lost after so many bytes of others; from what was timed, never falling."""
    found = sorted((point.moved_bytes, point.warm_s) for point in points if point.name == FORGOTTEN)
    if not found:
        return lambda _: 0.5
    sizes = np.log2([size for size, _ in found])
    shares = np.maximum.accumulate([share for _, share in found])

    def share(distance: float) -> float:
        return float(np.interp(math.log2(max(distance, 1.0)), sizes, shares)) if math.isfinite(distance) else 1.0

    return share


_TIMES: dict[int, Times] = {}


def times_of(device: Device) -> Times:
    """Return the prices of a device; curves are made once for all devices that carry the same timed operators."""
    key = id(device.kernels)
    known = _TIMES.get(key)
    if known is None or known.device.kernels is not device.kernels or not device.kernels:
        known = Times(device)
        if device.kernels:
            _TIMES.clear()
            _TIMES[key] = known
    return known


def op_seconds(op: Op, device: Device, cold_share: float = 0.5) -> float:
    """Predict the seconds of one operator, dispatch included, of which a share of what it touches lies in no cache."""
    return times_of(device).op(op, cold_share).seconds


def step_seconds(
    trace: Trace,
    accumulation: int,
    device: Device,
    precision: LoopPrecision,
    *,
    keeping: Keeping = "default",
) -> Interval:
    """Predict the seconds of one optimizer step of ``accumulation`` micro-batches, without running anything.

    Args:
        trace: of one step of one micro-batch.
        accumulation: micro-batches in a step.
        device: its timed operators, or at least its two rates.
        precision: that the model computes in; names the rate where only rates are known.
        keeping: what the process keeps of freed memory (`thrifty.hardware.pages`): the kernel clears it once.
    """
    times = times_of(device)
    priced = times.price(trace)
    if times.host is not None:
        return _queued_step(times, trace, priced, accumulation, precision)
    passes = [each for each in priced if each.op.phase not in UPDATE]
    update = [each for each in priced if each.op.phase in UPDATE]
    adding_s = 3 * trace.gradient_bytes / device.bytes_per_second.value * (accumulation - 1)
    pages_s, pages_doubt_s = times.pages_seconds(trace, keeping)
    parameters_s = times.parameters_seconds(trace)
    counted = [(each, accumulation) for each in passes] + [(each, 1) for each in update]
    value = sum(each.seconds * times for each, times in counted) + adding_s + pages_s * accumulation + parameters_s
    if times.curves is None:
        kind = "cpu" if device.kind == "cpu" else "other"
        low, high = _RATES_BOUNDS[kind]
        arithmetic = arithmetic_of(precision)
        took = arithmetic if arithmetic in device.flops_per_second else "fp32"
        how = f"by arithmetic or traffic at this device's {took} and memory rates; "
        how += "no operator was timed" if kind == "cpu" else "shares of them assumed for GPUs"
    else:
        doubt = math.sqrt(_doubt_s(counted) ** 2 + (pages_doubt_s * accumulation) ** 2) / value
        doubt = math.hypot(doubt, times.spread)
        low, high = math.exp(-_NINE_IN_TEN * doubt), math.exp(_NINE_IN_TEN * doubt)
        known = sum(op.key in trace.timed for op in trace.ops)
        asked = f"{known} as this device ran their like alone, the rest" if known else "each"
        how = f"{asked} by those timed on it on {device.measured_on}; bounds by leaving timed ones out"
    method = f"{len(trace.ops)} traced operators, {how}; no step was timed"
    return Interval(low=value * low, value=value, high=value * high, method=method)


def _queued_step(
    times: Times, trace: Trace, priced: list[Priced], accumulation: int, precision: LoopPrecision
) -> Interval:
    """Predict a step of a GPU: each micro-batch begins with a copy that the host waits for."""
    assert times.host is not None
    adding_s = 3 * trace.gradient_bytes / times.device.bytes_per_second.value * (accumulation - 1)
    copy_s = times.host.copy(trace.input_bytes) * accumulation
    asked = times.asked(trace, priced, precision)
    passes = sum(each.op.phase not in UPDATE for each in priced)

    def seconds(slow: float) -> tuple[float, float]:
        """Of the step, and those in which the GPU waits; the host takes so many times as long."""
        row = [(slow * host_s, busy_s) for host_s, busy_s in asked]
        one_s, one_waits_s = queue_seconds(row[:passes])
        last_s, last_waits_s = queue_seconds(row)
        more = accumulation - 1
        return one_s * more + last_s + adding_s + copy_s, one_waits_s * more + last_waits_s

    value, waits_s = seconds(1.0)
    counted = [(each, 1 if each.op.phase in UPDATE else accumulation) for each in priced]
    doubt = math.hypot(_doubt_s(counted) / value, _COPY_DOUBT * copy_s / value, _GPU_DOUBT)
    wide = math.exp(_NINE_IN_TEN * doubt)
    low, high = seconds(_HOST_SLOW[0])[0] / wide, seconds(_HOST_SLOW[1])[0] * wide
    known = sum(each.op.key in trace.timed for each in priced)
    method = (
        f"{len(trace.ops)} traced operators, {known} as this GPU ran their like alone, the rest by those timed there "
        f"on {times.device.measured_on}; {waits_s / value:.0%} of the time it waits for the host; no step was timed"
    )
    return Interval(low=low, value=value, high=high, method=method)


def _doubt_s(counted: list[tuple[Priced, int]]) -> float:
    """Standard deviation of the sum: equal calls are wrong together, their group in part, groups each alone."""
    groups: dict[str, float] = defaultdict(float)
    calls: dict[tuple[str, str, str], float] = defaultdict(float)
    for each, times in counted:
        doubt_s = each.seconds * each.doubt * times
        groups[each.group] += doubt_s
        calls[each.group, each.op.name, each.op.shapes] += doubt_s
    together, alone = (sum(seconds**2 for seconds in found.values()) for found in (groups, calls))
    return math.sqrt(_TOGETHER * together + (1 - _TOGETHER) * alone)


def phase_seconds(trace: Trace, phase: Phase, device: Device) -> float:
    """Predict the seconds of a phase of one step; the backward pass includes what it computes again."""
    wanted = {phase, "recompute"} if phase == "backward" else {phase}
    return sum(each.seconds for each in times_of(device).price(trace) if each.op.phase in wanted)


def seconds_by(trace: Trace, device: Device, key: Callable[[Op], str]) -> dict[str, float]:
    """Split the seconds of a step's operators by what a function says of each, the largest share first.

    >>> from thrifty.cost import trace_step
    >>> from thrifty.spec import Quantity
    >>> rate = Quantity(value=1e9, source="declared")
    >>> device = Device.model_construct(
    ...     kind="cpu", isa=(), flops_per_second={"fp32": rate}, bytes_per_second=rate, kernels=(), measured_on=""
    ... )
    >>> import torch
    >>> step = trace_step(
    ...     lambda: torch.nn.Linear(64, 64),
    ...     lambda model, batch: (model(batch["x"]).sum(), 8),
    ...     {"x": ((8, 64), "float32")},
    ...     precision="fp32",
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters()),
    ... )
    >>> max(seconds_by(step, device, lambda op: op.kind)) in {"reduction", "pointwise", "matmul", "other"}
    True
    """
    found: dict[str, float] = defaultdict(float)
    for each in times_of(device).price(trace):
        found[key(each.op)] += each.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))
