"""Seconds of one training step of a Transformer, spread over a cluster by a layout, term by term."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from thrifty.cost.blocks import Block, Work
from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for, doubts
from thrifty.cost.kernels import rates_of, segment_seconds
from thrifty.cost.network import links_of, message_seconds
from thrifty.cost.transformer import (
    DENSE_AGAIN,
    DENSE_BACKWARD,
    DENSE_FORWARD,
    MIXTURE_AGAIN,
    MIXTURE_BACKWARD,
    MIXTURE_FORWARD,
    Spread,
    micro_batch_kernels,
    mixture_parameters,
    parameters,
)
from thrifty.errors import JobError
from thrifty.spec import Cluster, Interval, Layout, TransformerShape


@dataclass(frozen=True)
class Breakdown:
    """Seconds of a step by what the devices of the slowest stage do, or wait for; their sum is the step.

    Attributes:
        matmul, attention, other: kernels, recomputation included.
        launch: waiting for the host to launch kernels, and what every step costs whatever its size.
        copy: bringing batches to the devices.
        tensor, expert, context: communication of those dimensions that nothing hides.
        data: gathering weights and summing gradients, beyond what hides behind arithmetic.
        statistics: telling each other the statistics of batch norms.
        pipeline: messages between stages.
        bubble: waiting for the pipeline to fill and drain.
        optimizer: the update.
    """

    matmul: float = 0.0
    attention: float = 0.0
    other: float = 0.0
    launch: float = 0.0
    copy: float = 0.0
    tensor: float = 0.0
    expert: float = 0.0
    context: float = 0.0
    data: float = 0.0
    statistics: float = 0.0
    pipeline: float = 0.0
    bubble: float = 0.0
    optimizer: float = 0.0

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(getattr(self, field.name) for field in fields(self))


class StepCost(NamedTuple):
    """What a step takes.

    Attributes:
        seconds: nine times in ten within its bounds.
        breakdown: its terms.
        calibration: the name of what priced it.
        doubts: in what the layout, model or cluster lies outside what the calibration was fitted on.
    """

    seconds: Interval
    breakdown: Breakdown
    calibration: str
    doubts: tuple[str, ...]


def step_cost(
    shape: TransformerShape,
    layout: Layout,
    cluster: Cluster,
    *,
    calibration: Calibration | None = None,
    shard: int = 0,
    logits: bool = True,
) -> StepCost:
    """Predict the seconds of one step.

    With ``m`` micro-batches, ``p`` stages of ``v`` chunks, ``t_max`` the slowest stage's time for one micro-batch and
    ``t_all`` that of all stages together:

    - step = ``m t_max + (t_all - t_max) / v + messages + data + optimizer + fixed``; the second term is the bubble,
      ``(p - 1) / v`` micro-batches where stages are equal (arXiv 2104.04473 section 2.2).
    - tensor: 2 all-reduces of ``T H`` a block forward, 2 backward, 2 more when blocks are computed again (arXiv
      1909.08053); with sequence parallelism as many reduce-scatters and all-gathers, and 2 more all-gathers backward.
    - context: keys and values go round the ring, hidden behind the attention core.
    - expert: each chosen token's activation goes to its expert and back, forward and backward.
    - pipeline: ``2 v`` messages of ``T H`` a micro-batch, shared out over the tensor-parallel devices.
    - data: an all-reduce of the gradients (ZeRO 0), or a reduce-scatter and an all-gather of weights (1), hidden behind
      the last micro-batch's backward to the share ``data_overlap``; ZeRO 2 and 3 in every micro-batch, block by block.
    - optimizer: ``optimizer_passes`` bytes for each parameter that a device updates, fewer for states in 8 or 16 bits.

    Args:
        shape: of the model; ``length`` is that of the training sequences.
        layout: devices and micro-batches; its devices may be fewer than the cluster's.
        cluster: what it runs on.
        calibration: to price by; by default the one the device names.
        shard: devices that share the weights under ZeRO 3, each such group holding all; 0 for all data-parallel ranks.
        logits: whether the model predicts its vocabulary, or ends in a classifier of few classes.

    Raises:
        JobError: degrees that do not divide the model, more devices than there are, or a precision the device lacks.
    """
    _check(shape, layout, cluster)
    calibration = calibration or calibration_for(cluster.device)
    breakdown = step_breakdown(shape, layout, cluster, calibration, shard, logits)
    about = doubts(shape, layout, calibration)
    total = breakdown.seconds
    factor = 2.718281828459045 ** (1.645 * calibration.spread * (1 + 0.5 * len(about)))
    method = f"{calibration.name}; {'; '.join(about)}" if about else calibration.name
    interval = Interval.model_construct(low=total / factor, value=total, high=total * factor, method=method)
    return StepCost(interval, breakdown, calibration.name, about)


def _check(shape: TransformerShape, layout: Layout, cluster: Cluster) -> None:
    if layout.devices > cluster.devices:
        raise JobError(
            f"the layout needs {layout.devices} devices, {cluster.name} has {cluster.devices}",
            mend="Lower data, tensor, pipeline or context.",
        )
    if shape.heads % layout.tensor:
        raise JobError(
            f"{shape.heads} heads cannot be shared by tensor {layout.tensor}",
            mend="The tensor degree must divide the heads.",
        )
    # Some stacks place the embedding and the loss as if they were blocks (NeMo's Llama 405B: 126 + 2).
    if layout.pipeline * layout.virtual_stages > shape.layers + 2:
        raise JobError(
            f"{shape.layers} layers are fewer than pipeline {layout.pipeline} x virtual_stages {layout.virtual_stages}",
            mend="Every stage needs a layer.",
        )
    if layout.expert > 1 and (not shape.experts or shape.experts % layout.expert):
        raise JobError(
            f"{shape.experts} experts cannot be shared by expert {layout.expert}",
            mend="The expert degree must divide the experts.",
        )


def step_breakdown(
    shape: TransformerShape,
    layout: Layout,
    cluster: Cluster,
    calibration: Calibration,
    shard: int = 0,
    logits: bool = True,
) -> Breakdown:
    """The terms of `step_cost`, unchecked: what a search calls thousands of times."""
    spread = Spread.of(layout, logits)
    kernels = micro_batch_kernels(shape, spread)
    rates = rates_of(cluster.device, calibration, layout.precision)
    links = links_of(cluster, calibration)
    table = segment_seconds(kernels, rates).tolist()
    mixtures = shape.layers - shape.dense_layers if shape.experts else 0
    dense = shape.layers - mixtures

    held_dense, held_experts, held_ends = parameters(shape)
    width = 4 if layout.precision == "fp32" else 2
    work = Work(shape, layout, links, calibration, width, shard or layout.data * layout.context)
    total = Block()
    blocks = 0.0
    if dense:
        total = work.block(table, DENSE_FORWARD, DENSE_BACKWARD, DENSE_AGAIN, held_dense, 0.0).times(dense)
        blocks += dense * held_dense / layout.tensor
    expert_held = 0.0
    if mixtures:
        shared = mixture_parameters(shape)
        block = work.block(table, MIXTURE_FORWARD, MIXTURE_BACKWARD, MIXTURE_AGAIN, shared, held_experts)
        total = total.plus(block.times(mixtures))
        blocks += mixtures * shared / layout.tensor
        expert_held = mixtures * held_experts / layout.expert
    ends = work.ends(table, held_ends)

    stages, chunks, micro_batches = layout.pipeline, layout.virtual_stages, layout.accumulation
    even = shape.layers % stages == 0
    # Stages of unequal numbers of blocks count the model's ends as blocks, as BLOOM and NeMo place them.
    slowest = total.times(1 / stages).plus(ends.times(1.0 if even else 1 / stages))
    whole = sum(total) + sum(ends)
    bubble = (whole - sum(slowest)) / chunks if stages > 1 else 0.0

    message = work.tokens * shape.hidden * width / layout.tensor
    stride = layout.tensor * layout.context * layout.data
    pipeline = 0.0
    if stages > 1:
        once = message_seconds(links, message, stride)
        pipeline = 2 * once * (chunks * micro_batches + stages - 1)

    held = blocks / stages + held_ends / layout.tensor / (1 if even or stages == 1 else stages)
    held_experts_stage = expert_held / stages
    backward = 0.6 * (sum(slowest) - slowest.data)
    data = work.data_once(held, held_experts_stage, backward)
    updated = held + held_experts_stage
    if layout.zero >= 1:
        updated = (
            held / (shard or layout.data * layout.context) if layout.zero == 3 else held / layout.data / layout.context
        )
        updated += held_experts_stage / max(1, layout.data * layout.context // layout.expert)
    # Both states are read and written, in 4 bytes or fewer; without fp32 weights beside them these are not.
    passes = calibration.optimizer_passes - 4 * (4 - layout.state_bytes) - 8 * (layout.precision == "bf16_weights")
    optimizer = updated * max(8.0, passes) / rates.bytes_per_second
    compute = slowest.times(micro_batches)
    return Breakdown(
        matmul=compute.matmul,
        attention=compute.attention,
        other=compute.other,
        launch=compute.launch + calibration.step_s,
        tensor=compute.tensor,
        expert=compute.expert,
        context=compute.context,
        data=compute.data + data,
        pipeline=pipeline,
        bubble=bubble,
        optimizer=optimizer,
    )
