"""Seconds of one training step of a Transformer, spread over a cluster by a layout, term by term."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from thrifty.cost.calibrations import Calibration
from thrifty.cost.choose import calibration_for, doubts
from thrifty.cost.kernels import rates_of, segment_seconds
from thrifty.cost.network import (
    Links,
    exchange_seconds,
    gather_seconds,
    links_of,
    message_seconds,
    reduce_seconds,
)
from thrifty.cost.transformer import (
    DENSE_AGAIN,
    DENSE_BACKWARD,
    DENSE_FORWARD,
    ENDS_BACKWARD,
    ENDS_FORWARD,
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
        tensor, expert, context: communication of those dimensions that nothing hides.
        data: gathering weights and summing gradients, beyond what hides behind arithmetic.
        pipeline: messages between stages.
        bubble: waiting for the pipeline to fill and drain.
        optimizer: the update.
    """

    matmul: float = 0.0
    attention: float = 0.0
    other: float = 0.0
    launch: float = 0.0
    tensor: float = 0.0
    expert: float = 0.0
    context: float = 0.0
    data: float = 0.0
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


class _Block(NamedTuple):
    """Seconds of one block in one micro-batch, or of the two ends of the model."""

    matmul: float = 0.0
    attention: float = 0.0
    other: float = 0.0
    launch: float = 0.0
    tensor: float = 0.0
    expert: float = 0.0
    context: float = 0.0
    data: float = 0.0

    def times(self, count: float) -> _Block:
        return _Block(*(value * count for value in self))

    def plus(self, other: _Block) -> _Block:
        return _Block(*(a + b for a, b in zip(self, other, strict=True)))


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
    - optimizer: ``optimizer_passes`` bytes for each parameter that a device updates.

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
    work = _Work(shape, layout, links, calibration, width, shard or layout.data * layout.context)
    total = _Block()
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
    optimizer = updated * calibration.optimizer_passes / rates.bytes_per_second
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


class _Work(NamedTuple):
    """What the communication of a block depends on."""

    shape: TransformerShape
    layout: Layout
    links: Links
    calibration: Calibration
    width: int
    shard: int

    @property
    def tokens(self) -> float:
        return self.layout.micro_batch * self.shape.length / self.layout.context

    def block(
        self, table: list[list[float]], forward: int, backward: int, again: int, shared: float, experts: float
    ) -> _Block:
        """One block in one micro-batch, its communication included; ``shared`` and ``experts`` count parameters."""
        shape, layout, links = self.shape, self.layout, self.links
        matmul, attention, other, launch = (table[forward][i] + table[backward][i] + table[again][i] for i in range(4))
        repeats = layout.checkpointing == "full"
        activation = self.tokens * shape.hidden * self.width
        tensor = 0.0
        if layout.tensor > 1:
            rounds = 6 if repeats else 4
            tensor = rounds * reduce_seconds(links, activation, layout.tensor)
            if layout.sequence_parallel:
                tensor += 2 * gather_seconds(links, activation, layout.tensor)
            tensor *= 1 - self.calibration.tensor_overlap
        context = 0.0
        if layout.context > 1:
            heads = shape.kv_heads / min(layout.tensor, shape.kv_heads)
            turn = 2 * self.tokens * heads * shape.head_dim * self.width
            rings = layout.context - 1
            once = rings * message_seconds(links, turn, layout.tensor)
            spent = table[forward][1]
            context = max(0.1 * once, once - spent) + max(0.2 * once, 2 * once - table[backward][1])
        expert = 0.0
        if experts and layout.expert > 1:
            sent = self.tokens / layout.tensor * shape.active_experts * shape.hidden * self.width
            launch += (3 if repeats else 2) * self.calibration.routing_s
            expert = (6 if repeats else 4) * exchange_seconds(links, sent, layout.expert, layout.tensor)
        data = self._sharded(sum(table[forward]) + tensor / 3, sum(table[backward]) + sum(table[again]), shared)
        return _Block(matmul, attention, other, launch, tensor, expert, context, data)

    def ends(self, table: list[list[float]], held: float) -> _Block:
        """The two ends of the model in one micro-batch."""
        forward, backward = table[ENDS_FORWARD], table[ENDS_BACKWARD]
        tensor = 0.0
        if self.layout.tensor > 1:
            # The embedding's output, and of the loss the maximum, the sum and the target's logit of each token.
            tensor = 2 * reduce_seconds(self.links, self.tokens * self.shape.hidden * self.width, self.layout.tensor)
            tensor += 3 * reduce_seconds(self.links, self.tokens * 4, self.layout.tensor)
        data = self._sharded(sum(forward), sum(backward), held)
        return _Block(*(forward[i] + backward[i] for i in range(4)), tensor, 0.0, 0.0, data)

    def _sharded(self, forward: float, backward: float, held: float) -> float:
        """Gathering a block's weights and scattering its gradients in every micro-batch, beyond what is hidden."""
        layout = self.layout
        if layout.zero < 2 or self.shard == 1:
            return 0.0
        stride = layout.tensor
        weights = held / layout.tensor * self.width
        gather = gather_seconds(self.links, weights, self.shard, stride)
        scatter = gather_seconds(self.links, weights * self.calibration.gradient_bytes / 2, self.shard, stride)
        overlap = self.calibration.data_overlap
        if layout.zero == 2:
            gather /= layout.accumulation
        behind = gather + scatter if layout.zero == 3 else scatter
        return (
            (1 - overlap) * (gather + behind)
            + overlap * max(0.0, gather - forward)
            + overlap * max(0.0, behind - backward)
        )

    def data_once(self, held: float, experts: float, backward: float) -> float:
        """Summing gradients over data-parallel ranks once a step, beyond what hides behind the last backward."""
        layout, links = self.layout, self.links
        ranks = layout.data * layout.context
        gradient = held * self.calibration.gradient_bytes
        if layout.zero >= 2:
            replicas = layout.data * layout.context // self.shard
            if replicas <= 1:
                return 0.0
            once = reduce_seconds(links, gradient / self.shard, replicas, layout.tensor * self.shard)
        elif layout.zero == 1:
            once = gather_seconds(links, gradient, ranks, layout.tensor) + gather_seconds(
                links, held * self.width, ranks, layout.tensor
            )
        else:
            once = reduce_seconds(links, gradient, ranks, layout.tensor)
        if experts:
            copies = max(1, ranks // layout.expert)
            moved = experts * self.calibration.gradient_bytes
            once += reduce_seconds(links, moved, copies, layout.tensor * layout.expert)
        overlap = self.calibration.data_overlap
        return (1 - overlap) * once + overlap * max(0.0, once - backward)
