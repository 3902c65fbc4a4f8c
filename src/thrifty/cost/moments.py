"""What one device of a pipeline stage holds at each moment of a step when its memory may be fullest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from thrifty.cost.activations import BlockBytes, block_bytes, in_flight
from thrifty.cost.stacks import SHARDED, Stack, parameter_bytes
from thrifty.cost.stage_parameters import StageParameters, padded_vocabulary, stage_parameters
from thrifty.spec.layout import Layout
from thrifty.spec.transformer import TransformerShape


@dataclass(frozen=True)
class Moment:
    """Bytes that live at one moment beside weights, gradients and states.

    Attributes:
        name: ``backward`` of a block, with all activations of the stage alive; ``loss``, with the logits beside them;
            ``embedding``, whose gradient is the last of a micro-batch; or ``step``, with no activations left.
        activations: kept for the backward of all micro-batches in flight.
        logits: with what the loss and its gradient need beside them.
        gathered: weights and gradients whole again, casts of weights, gradient buckets.
        working: activations of one block computed again, gradients of activations, weight gradients not yet added.
        step: temporaries of the gradient reduction, the norm and the optimizer's step.
    """

    name: str
    activations: float = 0.0
    logits: float = 0.0
    gathered: float = 0.0
    working: float = 0.0
    step: float = 0.0

    @property
    def beside(self) -> float:
        """All but the activations."""
        return self.logits + self.gathered + self.working + self.step

    @property
    def total(self) -> float:
        """All of it."""
        return self.activations + self.beside


@dataclass(frozen=True)
class StageMoments:
    """Bytes of one device.

    Attributes:
        parameters, gradients, optimizer: held all along.
        host: in the node's memory instead, for this device.
        in_flight: micro-batches whose activations the stage holds at once.
        backward, loss, embedding, step: the moments.
        flat: segments of the step that no other moment can use.
    """

    parameters: float
    gradients: float
    optimizer: float
    host: float
    in_flight: float
    backward: Moment
    loss: Moment
    embedding: Moment
    step: Moment
    flat: float

    @property
    def persistent(self) -> float:
        """Held all along."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def fullest(self) -> Moment:
        """The moment that needs most."""
        return max((self.backward, self.loss, self.embedding, self.step), key=lambda moment: moment.total)

    @property
    def beside_flat(self) -> float:
        """What the allocator holds, beside the fullest moment, because flat buffers cannot share its segments."""
        running = max(self.backward.total, self.loss.total, self.embedding.total)
        return running + self.flat - max(running, self.step.total) if self.flat else 0.0


@lru_cache(maxsize=16384)
def _blocks(
    shape: TransformerShape, layout: Layout, stack: Stack, dropout: bool
) -> tuple[BlockBytes, BlockBytes | None]:
    dense = block_bytes(shape, layout, stack, dropout=dropout, mixture=False)
    return dense, block_bytes(shape, layout, stack, dropout=dropout, mixture=True) if shape.experts else None


def stage_moments(
    shape: TransformerShape,
    layout: Layout,
    stack: Stack,
    *,
    stage: int,
    shards: int,
    dropout: bool,
    logits: bool,
) -> StageMoments:
    """Count what one device of a stage holds.

    Args:
        shape, layout, stack: what is trained, how it is spread, by which library.
        stage: of the pipeline; 0 is the first.
        shards: devices that share states under ``zero``.
        dropout: whether the model trains with it.
        logits: whether the loss is over the vocabulary.
    """
    held = stage_parameters(
        shape,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        expert=layout.expert,
        stage=stage,
        pad_vocabulary=stack.pad_vocabulary,
    )
    dense = parameter_bytes(stack, layout, shards)
    expert = parameter_bytes(stack, layout, max(1.0, shards / layout.expert)) if held.experts else dense
    plain, routed = held.total - held.experts, held.experts
    first, last = stage == 0, stage == layout.pipeline - 1
    tokens = shape.length * layout.micro_batch / layout.context
    wide = 4 if layout.precision == "fp32" else 2
    rows = padded_vocabulary(shape.vocabulary, layout.tensor, stack.pad_vocabulary) / layout.tensor
    head = rows * shape.hidden if last else 0.0

    activations, working, flights = _activations(shape, layout, stack, held, dropout=dropout, stage=stage)
    copies = plain * dense.copies + routed * expert.copies
    buckets = min(stack.bucket_parameters, held.total) * wide if layout.data > 1 else 0.0
    # a pipeline reduces once all micro-batches are done, others while the last backward runs
    early = buckets if layout.pipeline == 1 else 0.0
    # from the second micro-batch on, a new gradient lives beside the sum that it is added to
    adds = wide if layout.accumulation > 1 else 0
    score = tokens * rows * (wide + stack.logit_bytes) if last and logits else 0.0
    if not stack.fused_accumulation:
        working += adds * held.matrix
        score = max(score, tokens * rows * wide + adds * head) if score else 0.0
    gathered, gathered_head = _gathered(layout, stack, held, head) if shards > 1 else (0.0, 0.0)
    step = plain * dense.step + routed * expert.step + buckets
    norm = stack.norm_bytes * min(max(held.embedding, held.head, held.matrix), held.total / shards)
    return StageMoments(
        parameters=plain * dense.weights + routed * expert.weights,
        gradients=plain * dense.gradients + routed * expert.gradients,
        optimizer=plain * dense.states + routed * expert.states,
        host=plain * dense.host + routed * expert.host,
        in_flight=flights,
        backward=Moment("backward", activations, gathered=gathered + early + copies, working=working),
        loss=Moment("loss", activations, logits=score, gathered=gathered_head + copies),
        embedding=Moment(
            "embedding",
            activations * (1 - 1 / flights),
            gathered=early + copies,
            working=adds * held.embedding if first and layout.zero < 3 else 0.0,
        ),
        step=Moment("step", step=max(step, norm)),
        # buffers of the norm are taken again by the flat ones unless they are too small for the first of these
        flat=(step + norm if norm < step / 3 else max(step, norm)) if stack.flat_step else 0.0,
    )


def _activations(
    shape: TransformerShape, layout: Layout, stack: Stack, held: StageParameters, *, dropout: bool, stage: int
) -> tuple[float, float, float]:
    """Bytes kept for the backward by all micro-batches in flight, bytes of a block's backward, and how many are."""
    tokens = shape.length * layout.micro_batch / layout.context
    flights = in_flight(layout, stage, stack)
    block, mixed = _blocks(shape, layout, stack, dropout)
    ordinary = held.layers if mixed is None else min(held.layers, shape.dense_layers) if stage == 0 else 0
    kept = ordinary * block.kept + ((held.layers - ordinary) * mixed.kept if mixed else 0.0)
    last = stage == layout.pipeline - 1
    if stack.keeps_outputs and not last:
        kept += block.entering
    if stage == 0 and dropout:
        kept += shape.hidden / (layout.tensor if layout.sequence_parallel else 1)
    working = max(block.working if ordinary else 0.0, mixed.working if mixed else 0.0)
    # input and output of the last norm belong to one micro-batch at a time
    return tokens * (kept * flights + (2 * block.entering if last else 0.0)), tokens * working, flights


def _gathered(layout: Layout, stack: Stack, held: StageParameters, head: float) -> tuple[float, float]:
    """Bytes of weights and gradients that are whole for a while: while a block's backward runs, and the loss's."""
    if layout.zero < 3 and stack.name not in SHARDED:
        return 0.0, 0.0
    low = 4 if layout.precision == "fp32" else 2
    reduce = 2 if layout.precision == "bf16_weights" else 4
    # the block at hand and the next one prefetched; its gradient, and the same in the precision of the reduction
    weights = 2 * low if layout.zero == 3 else 0
    return held.layer * (weights + low + reduce) + head * low, head * (low + (low if layout.zero == 3 else 0))
