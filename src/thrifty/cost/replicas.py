"""Seconds of a step of any traced model on a cluster: copies of it over data-parallel devices, ZeRO 0 to 3."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Literal, NamedTuple

from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for
from thrifty.cost.cluster import Breakdown, StepCost
from thrifty.cost.network import Links, gather_seconds, links_of, reduce_seconds
from thrifty.cost.op_kernels import BACKWARD, FORWARD, HALVES, UPDATE, trace_seconds
from thrifty.cost.trace import Trace
from thrifty.errors import JobError
from thrifty.spec import Cluster, Device, Interval

MemoryFormat = Literal["contiguous", "channels_last"]

# A device that was measured prices a trace of unlike operators less well than the Transformers it was fitted to. As a
# standard deviation of the logarithm: half of 78 steps on an H200 and an H100 were off by more than 0.27
# (benchmarks/catalogue_gpu.py), two thirds of a deviation.
OTHER_MODELS = 0.4
# What a step costs whatever its size was fitted to language models' steps of seconds, with their logging and the waits
# of hundreds of devices (0.1 s on V100s): of one device no more than the host needs to begin the passes and the update
# (0.5 to 1.4 ms by the micro-benchmarks of `thrifty.hardware.gpu_bench` on an H200's host and an H100's).
MOST_STEP_S = 0.001
# At which a batch comes from the host's ordinary memory to a GPU, the host waiting, as the loop has it: 64 MiB in 7.2
# and 7.1 ms on an H200 and an H100 (`thrifty.hardware.gpu_bench`).
COPY_BYTES_PER_SECOND = 9.4e9
# Bytes that a batch norm's rank gives to the others forward, for each channel a mean, a deviation, and one count; and
# sums with them backward, two sums for each channel (torch.nn.SyncBatchNorm).
_GATHERED, _SUMMED = 8, 8
# Of a step of such a small message's tree. Fitted latencies hold whatever else delays a large one (0.2 ms on H100s);
# small ones take 23 to 28 us over eight GPUs of a node (simumax_comm_efficiency.csv), three steps.
_SMALL_LATENCY_S = 1e-5


def replicas_cost(
    trace: Trace,
    cluster: Cluster,
    *,
    data: int,
    accumulation: int = 1,
    zero: int = 0,
    state_bytes: int = 4,
    memory_format: MemoryFormat = "channels_last",
    synchronised: Sequence[int] = (),
    calibration: Calibration | None = None,
    table: list[list[float]] | None = None,
) -> StepCost:
    """Predict the seconds of one optimizer step, each device computing ``accumulation`` traced micro-batches.

    Step = accumulation x (copy + forward + backward) + communication that nothing hides + update. With ``G`` bytes of
    gradients and ``W`` of weights over ``n`` devices, a fraction ``data_overlap`` of the communication can hide:

    - ZeRO 0: an all-reduce of ``G`` behind the last backward.
    - ZeRO 1: a reduce-scatter of ``G`` and an all-gather of ``W``, once.
    - ZeRO 2: a reduce-scatter of ``G`` behind each backward, an all-gather of ``W`` once.
    - ZeRO 3: besides, an all-gather of ``W`` behind each forward and each backward.

    From ZeRO 1 on each device updates ``1 / n`` of the parameters. Optimizer states of fewer than 4 bytes save the
    update their share of traffic.

    Batch norms whose statistics are taken over all devices gather theirs in each forward pass and sum gradients of them
    in each backward pass; the next operator waits, so that nothing hides these messages.

    Tensor cores multiply images stored as rows of pixels. Where they are stored as channels of rows, each convolution
    in 16 bits on an NVIDIA GPU reads and writes its tensors once more on the way in and out
    (docs.mosaicml.com/projects/composer, "Channels Last": cuDNN transposes).

    Args:
        trace: of one micro-batch, with its optimizer's step.
        cluster: what it runs on.
        data: devices that hold a copy, or their share of one.
        accumulation: micro-batches a step.
        zero: what the devices share out, 0 to 3.
        state_bytes: of one number of the optimizer's states.
        memory_format: of images.
        synchronised: channels of each batch norm that takes its statistics over all devices.
        calibration: to price by; by default the one the device names.
        table: of `replica_seconds`, where it is known already.

    Raises:
        JobError: more devices than the cluster has, an unknown ``zero``, or a precision that the device lacks.
    """
    if data > cluster.devices:
        raise JobError(f"data {data} is more than the {cluster.devices} devices of {cluster.name}", mend="Lower data.")
    if zero not in (0, 1, 2, 3):
        raise JobError(f"unknown zero {zero}", mend="Known: 0, 1, 2, 3.")
    calibration = calibration or calibration_for(cluster.device)
    links = links_of(cluster, calibration)
    quick = _quick(cluster, links, calibration)
    table = table or replica_seconds(trace, cluster.device, calibration, memory_format)
    forward, backward = sum(table[FORWARD]), sum(table[BACKWARD])

    share = data if zero else 1
    update = table[UPDATE]
    bandwidth = cluster.device.bytes_per_second.value * calibration.memory
    lighter = 2 * trace.optimizer_bytes * (1 - state_bytes / 4) / bandwidth
    breakdown = Breakdown(
        matmul=accumulation * (table[FORWARD][0] + table[BACKWARD][0]),
        attention=accumulation * (table[FORWARD][1] + table[BACKWARD][1]),
        other=accumulation * (table[FORWARD][2] + table[BACKWARD][2]),
        launch=accumulation * (table[FORWARD][3] + table[BACKWARD][3])
        + update[3]
        + min(calibration.step_s, MOST_STEP_S),
        copy=accumulation * trace.input_bytes / COPY_BYTES_PER_SECOND if cluster.device.kind == "cuda" else 0.0,
        data=travel_seconds(
            Lanes(links, links, links),
            float(trace.gradient_bytes),
            float(trace.parameter_bytes),
            data=data,
            zero=zero,
            accumulation=accumulation,
            overlap=calibration.data_overlap,
            forward_s=forward,
            backward_s=backward,
        ),
        statistics=accumulation * statistics_seconds(synchronised, quick, quick, data),
        optimizer=max(0.0, sum(update[:3]) - lighter) / share,
    )
    total = breakdown.seconds
    doubts = ["traced operator by operator, not among what its device was fitted on"]
    if not calibration.fitted:
        doubts = [f"{calibration.family} was never measured: its efficiencies are assumed"]
    factor = math.exp(1.645 * math.hypot(calibration.spread, OTHER_MODELS))
    interval = Interval(low=total / factor, value=total, high=total * factor, method=f"{calibration.name}; {doubts[0]}")
    return StepCost(interval, breakdown, calibration.name, tuple(doubts))


class Lanes(NamedTuple):
    """Links by what goes over them: sums, what is gathered, and sums that are shared out."""

    reduce: Links
    gather: Links
    scatter: Links


def travel_seconds(
    lanes: Lanes,
    gradients: float,
    weights: float,
    *,
    data: int,
    zero: int,
    accumulation: int,
    overlap: float,
    forward_s: float = 0.0,
    backward_s: float = 0.0,
) -> float:
    """Seconds a step in which gradients and weights travel and nothing hides it; see `replicas_cost`.

    Args:
        lanes: between the devices.
        gradients, weights: bytes.
        data, zero, accumulation: as of `replicas_cost`.
        overlap: share of it that can hide.
        forward_s, backward_s: of a micro-batch, behind which it hides.
    """
    scatter = gather_seconds(lanes.scatter, gradients, data)
    gather = gather_seconds(lanes.gather, weights, data)
    if zero == 0:
        return _exposed(reduce_seconds(lanes.reduce, gradients, data), backward_s, overlap)
    if zero == 1:
        return _exposed(scatter + gather, backward_s, overlap)
    if zero == 2:
        return accumulation * _exposed(scatter, backward_s, overlap) + _exposed(gather, forward_s, overlap)
    return accumulation * (_exposed(gather, forward_s, overlap) + _exposed(gather + scatter, backward_s, overlap))


def statistics_seconds(channels: Sequence[int], gather: Links, reduce: Links, data: int) -> float:
    """Seconds in which batch norms of so many channels tell each other their statistics, forward and backward."""
    return sum(
        gather_seconds(gather, data * (_GATHERED * each + 4.0), data)
        + reduce_seconds(reduce, float(_SUMMED * each), data)
        for each in channels
    )


def _quick(cluster: Cluster, links: Links, calibration: Calibration) -> Links:
    """Links as the small messages of batch norms find them."""
    return replace(
        links,
        intra_latency_s=min(links.intra_latency_s, _SMALL_LATENCY_S),
        inter_latency_s=cluster.inter.latency_s.value + min(calibration.latency_s, _SMALL_LATENCY_S),
    )


def replica_seconds(
    trace: Trace, device: Device, calibration: Calibration, memory_format: MemoryFormat = "channels_last"
) -> list[list[float]]:
    """Return the seconds of one micro-batch on one device, as `trace_seconds`, transposing images where that is due."""
    table = trace_seconds(trace.ops, device, calibration)
    if memory_format == "contiguous" and device.kind == "cuda":
        bandwidth = device.bytes_per_second.value * calibration.memory
        for segment, phases in ((FORWARD, {"forward"}), (BACKWARD, {"backward", "recompute"})):
            table[segment][2] += 2 * _convolved_bytes(trace, phases) / bandwidth
    return table


def _convolved_bytes(trace: Trace, phases: Set[str]) -> int:
    """Bytes that convolutions in 16 bits read and write."""
    half = (op for op in trace.ops if op.kind == "convolution" and op.dtype in HALVES and op.phase in phases)
    return sum(op.moved_bytes for op in half)


def _exposed(seconds: float, behind: float, overlap: float) -> float:
    return (1 - overlap) * seconds + overlap * max(0.0, seconds - behind)
