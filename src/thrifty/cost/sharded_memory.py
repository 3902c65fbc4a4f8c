"""Predict the memory each device needs to train a Transformer under a layout, in closed form: thousands a second.

Formulas with their sources, measured errors and known faults: ``docs/memory-formulas.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from thrifty.cost.device_overhead import context_bytes, hole_bytes
from thrifty.cost.moments import StageMoments, stage_moments
from thrifty.cost.stacks import compiled_stack, stack_of
from thrifty.errors import JobError
from thrifty.spec.cost import Interval
from thrifty.spec.device import Device
from thrifty.spec.layout import Layout
from thrifty.spec.transformer import TransformerShape

__all__ = ["FITS_SHARE", "MemoryBreakdown", "device_bytes", "fits"]

# A run needs room for what no count holds; above this share of a device it is not safe to say that it fits.
FITS_SHARE = 0.98
# Doubt of each part as a share of it: states are counted, the rest depends on the kernels used.
_STATES_DOUBT, _ACTIVATIONS_DOUBT, _TEMPORARIES_DOUBT, _STEP_DOUBT = 0.02, 0.10, 0.35, 0.5
# And of the whole, for what is not counted at all: the 90th percentile of the error on the half of bigscience_a100 that
# calibrations are fitted on.
_WHOLE_DOUBT = 0.07


@dataclass(frozen=True)
class MemoryBreakdown:
    """Bytes on the device that needs most, at the moment it needs most.

    Attributes:
        stage: pipeline stage of that device; 0 is the first.
        moment: as in `thrifty.cost.moments.Moment`: ``backward``, ``loss``, ``embedding`` or ``step``.
        stack: training stack assumed, of `thrifty.cost.stacks.STACKS`.
        parameters, gradients, optimizer: of the parameters the device holds; master copies count as optimizer.
        activations: kept for the backward of all micro-batches in flight.
        logits: with what the loss and its gradient need beside them.
        gathered: weights and gradients whole again, casts of weights, gradient buckets.
        working: activations of one block computed again, gradients of activations, weight gradients not yet added.
        step: temporaries of the gradient reduction, the norm and the optimizer's step.
        slack: holes in what the allocator holds.
        context: driver, CUDA context, kernels, communicators.
        host: in the node's memory, for this device, when states are offloaded.
        in_flight: micro-batches whose activations the stage holds at once.
        allocated: ``torch.cuda.max_memory_allocated``.
        reserved: ``torch.cuda.max_memory_reserved`` where nothing forces the allocator to give back.
        device_used: what nvidia-smi shows.
        total: needed to run at all: once the allocator has given back every segment it can.
    """

    stage: int
    moment: str
    stack: str
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gathered: float
    working: float
    step: float
    slack: float
    context: float
    host: float
    in_flight: float
    allocated: Interval
    reserved: Interval
    device_used: Interval
    total: Interval


def fits(memory: MemoryBreakdown, device: Device) -> bool:
    """Tell whether a run is expected to fit: its central total is within `FITS_SHARE` of what the device can give.

    That is the likelier answer. A promise is another matter: hold ``memory.total.high`` against the device's memory.
    """
    return memory.total.value <= FITS_SHARE * device.memory_bytes


def device_bytes(
    shape: TransformerShape,
    layout: Layout,
    device: Device,
    *,
    stage: int | None = None,
    stack: str | None = None,
    dropout: bool | None = None,
    logits: bool = True,
    shards: int | None = None,
    compiled: bool = False,
) -> MemoryBreakdown:
    """Predict the peak over a whole run on one device: of steps, the first included, validations and checkpoints.

    Validation at the training micro-batch keeps no activations and checkpoints are written from where the states lie,
    so neither is ever the peak; the optimizer's first step allocates the states that are counted here all along.

    Args:
        shape: of the model.
        layout: of the step.
        device: one of the cluster; its kind and memory are read.
        stage: pipeline stage; None for the one that needs most.
        stack: name in `thrifty.cost.stacks.STACKS`; None for the usual one of such a layout.
        dropout: whether the model trains with it; None for yes unless feed-forward layers are gated, as GPT-2, GPT-3
            and BERT do and Llama, PaLM and Mixtral do not.
        logits: whether the loss is over the vocabulary; False for a classifier's few labels.
        shards: devices that share states under ``zero``; None for all data- and context-parallel ones.
        compiled: whether ``torch.compile`` fuses the loss and gates, see `thrifty.cost.stacks.compiled_stack`.

    Raises:
        JobError: when the degrees do not divide the model, or ``stage`` or ``stack`` is not one there is.
    """
    _check(shape, layout, stage)
    found = compiled_stack(stack_of(layout, stack)) if compiled else stack_of(layout, stack)
    drops = not shape.gated if dropout is None else dropout
    # heaviest: the first (embedding, most in flight), the last (head, logits), or the second where the first is shorter
    stages = {0, min(1, layout.pipeline - 1), layout.pipeline - 1} if stage is None else {stage}
    counted = {
        each: stage_moments(
            shape,
            layout,
            found,
            stage=each,
            shards=shards or layout.data * layout.context,
            dropout=drops,
            logits=logits,
        )
        for each in sorted(stages)
    }
    worst = max(counted, key=lambda each: _needed(counted[each], layout, device))
    return _breakdown(counted[worst], layout, device, stage=worst, stack=found.name)


def _needed(held: StageMoments, layout: Layout, device: Device) -> float:
    peak = held.fullest
    holes = hole_bytes(
        device.kind, layout, swept=peak.total - peak.step, block=held.backward.beside, loss=held.loss.beside
    )
    return held.persistent + peak.total + (holes.value if peak.name != "step" else 0.0)


def _breakdown(held: StageMoments, layout: Layout, device: Device, *, stage: int, stack: str) -> MemoryBreakdown:
    peak, kind = held.fullest, device.kind
    context = context_bytes(kind, layout)
    # while flat buffers of the step fill it, no tensor is small enough to leave a hole
    swept = peak.total - peak.step
    holes = hole_bytes(kind, layout, swept=swept, block=held.backward.beside, loss=held.loss.beside)
    slack, slack_below, slack_above = holes.value, holes.value - holes.low, holes.high - holes.value
    if peak.name == "step":
        slack = slack_below = slack_above = 0.0
    allocated = held.persistent + peak.total
    doubt = hypot(
        _STATES_DOUBT * held.persistent,
        _ACTIVATIONS_DOUBT * peak.activations,
        _TEMPORARIES_DOUBT * (peak.logits + peak.gathered + peak.working),
        _STEP_DOUBT * peak.step,
        _WHOLE_DOUBT * allocated,
    )
    beside = held.beside_flat
    reserved = allocated + slack + beside
    needed = allocated + slack + context.value
    shown = min(max(reserved + context.value, needed), device.memory_bytes)
    below = hypot(doubt, slack_below, context.value - context.low)
    above = hypot(doubt, slack_above, context.high - context.value)
    how = f"stage {stage} of {layout.pipeline} at its {peak.name}, trained as {stack} does; docs/memory-formulas.md"
    return MemoryBreakdown(
        stage=stage,
        moment=peak.name,
        stack=stack,
        parameters=held.parameters,
        gradients=held.gradients,
        optimizer=held.optimizer,
        activations=peak.activations,
        logits=peak.logits,
        gathered=peak.gathered,
        working=peak.working,
        step=peak.step,
        slack=slack,
        context=context.value,
        host=held.host,
        in_flight=held.in_flight,
        allocated=_interval(allocated, doubt, doubt, how),
        reserved=_interval(reserved, hypot(doubt, slack_below, beside), hypot(doubt, slack_above), how),
        device_used=_interval(shown, hypot(below, beside), above, how),
        total=_interval(needed, below, above, how),
    )


def _interval(value: float, below: float, above: float, how: str) -> Interval:
    return Interval(low=max(0.0, value - below), value=value, high=value + above, method=how)


def _check(shape: TransformerShape, layout: Layout, stage: int | None) -> None:
    """Refuse degrees that cannot cut the model."""
    if stage is not None and not 0 <= stage < layout.pipeline:
        raise JobError(f"stage {stage} of a pipeline of {layout.pipeline}", mend=f"Say 0 to {layout.pipeline - 1}.")
    if layout.pipeline * layout.virtual_stages > shape.layers + 2:
        raise JobError(
            f"{layout.pipeline} stages of {layout.virtual_stages} chunks for {shape.layers} layers",
            mend="Each chunk needs a layer: fewer stages or chunks.",
        )
    if shape.heads % layout.tensor:
        raise JobError(
            f"tensor {layout.tensor} does not divide {shape.heads} attention heads", mend="Take a divisor of the heads."
        )
    if layout.expert > 1 and (not shape.experts or shape.experts % layout.expert):
        raise JobError(
            f"expert {layout.expert} does not divide {shape.experts} experts",
            mend="Take a divisor of the experts, or 1.",
        )
    if shape.length % layout.context:
        raise JobError(
            f"context {layout.context} does not divide {shape.length} tokens", mend="Take a divisor of the length."
        )
