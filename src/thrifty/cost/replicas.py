"""Seconds of a step of any traced model on a cluster: copies of it over data-parallel devices, ZeRO 0 to 3."""

from __future__ import annotations

import math

from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for
from thrifty.cost.cluster import Breakdown, StepCost
from thrifty.cost.network import gather_seconds, links_of, reduce_seconds
from thrifty.cost.op_kernels import BACKWARD, FORWARD, UPDATE, trace_seconds
from thrifty.cost.trace import Trace
from thrifty.errors import JobError
from thrifty.spec import Cluster, Interval

# A device that was measured prices a trace of unlike operators less well than the Transformers it was fitted to: no
# table tells by how much. Assumed, as a standard deviation of the logarithm.
OTHER_MODELS = 0.2


def replicas_cost(
    trace: Trace,
    cluster: Cluster,
    *,
    data: int,
    accumulation: int = 1,
    zero: int = 0,
    calibration: Calibration | None = None,
) -> StepCost:
    """Predict the seconds of one optimizer step, each device computing ``accumulation`` traced micro-batches.

    Step = accumulation x (forward + backward) + communication that nothing hides + update. With ``G`` bytes of
    gradients and ``W`` of weights over ``n`` devices, a fraction ``data_overlap`` of the communication can hide:

    - ZeRO 0: an all-reduce of ``G`` behind the last backward.
    - ZeRO 1: a reduce-scatter of ``G`` and an all-gather of ``W``, once.
    - ZeRO 2: a reduce-scatter of ``G`` behind each backward, an all-gather of ``W`` once.
    - ZeRO 3: besides, an all-gather of ``W`` behind each forward and each backward.

    From ZeRO 1 on each device updates ``1 / n`` of the parameters.

    Args:
        trace: of one micro-batch, with its optimizer's step.
        cluster: what it runs on.
        data: devices that hold a copy, or their share of one.
        accumulation: micro-batches a step.
        zero: what the devices share out, 0 to 3.
        calibration: to price by; by default the one the device names.

    Raises:
        JobError: more devices than the cluster has, an unknown ``zero``, or a precision that the device lacks.
    """
    if data > cluster.devices:
        raise JobError(f"data {data} is more than the {cluster.devices} devices of {cluster.name}", mend="Lower data.")
    if zero not in (0, 1, 2, 3):
        raise JobError(f"unknown zero {zero}", mend="Known: 0, 1, 2, 3.")
    calibration = calibration or calibration_for(cluster.device)
    links = links_of(cluster, calibration)
    table = trace_seconds(trace.ops, cluster.device, calibration)
    forward, backward = sum(table[FORWARD]), sum(table[BACKWARD])

    scatter = gather_seconds(links, float(trace.gradient_bytes), data)
    gather = gather_seconds(links, float(trace.parameter_bytes), data)
    if zero == 0:
        exposed = _exposed(reduce_seconds(links, float(trace.gradient_bytes), data), backward, calibration)
    elif zero == 1:
        exposed = _exposed(scatter + gather, backward, calibration)
    elif zero == 2:
        exposed = accumulation * _exposed(scatter, backward, calibration) + _exposed(gather, forward, calibration)
    else:
        exposed = accumulation * (
            _exposed(gather, forward, calibration) + _exposed(gather + scatter, backward, calibration)
        )
    share = data if zero else 1
    update = table[UPDATE]
    breakdown = Breakdown(
        matmul=accumulation * (table[FORWARD][0] + table[BACKWARD][0]),
        attention=accumulation * (table[FORWARD][1] + table[BACKWARD][1]),
        other=accumulation * (table[FORWARD][2] + table[BACKWARD][2]),
        launch=accumulation * (table[FORWARD][3] + table[BACKWARD][3]) + update[3] + calibration.step_s,
        data=exposed,
        optimizer=sum(update[:3]) / share,
    )
    total = breakdown.seconds
    doubts = ("traced operator by operator, not among what its device was fitted on",)
    factor = math.exp(1.645 * math.hypot(calibration.spread, OTHER_MODELS))
    interval = Interval(low=total / factor, value=total, high=total * factor, method=f"{calibration.name}; {doubts[0]}")
    return StepCost(interval, breakdown, calibration.name, doubts)


def _exposed(seconds: float, behind: float, calibration: Calibration) -> float:
    overlap = calibration.data_overlap
    return (1 - overlap) * seconds + overlap * max(0.0, seconds - behind)
