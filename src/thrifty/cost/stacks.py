"""What each training stack keeps in memory: states of a parameter, copies of the logits, micro-batches, buffers.

The textbook count of a parameter's states is the same everywhere; what a library adds to it is not. Each row says where
its numbers come from; nothing here is fitted to a measured run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from thrifty.errors import unknown_name
from thrifty.spec.layout import Layout

# bitsandbytes keeps a fp32 scale for each 256 8-bit states (block-wise quantisation, arXiv 2110.02861: 2048 at first).
_SCALE_BYTES = 4 / 256


@dataclass(frozen=True)
class Stack:
    """How a library trains.

    Attributes:
        name: as in `STACKS`.
        logit_bytes: beside the logits themselves, of each logit while the loss and its gradient are computed.
        gated_tensors: tensors as wide as a gated feed-forward layer that its backward needs.
        fp32_residual: autocast keeps the residual stream in fp32, and casts the input of each linear layer anew.
        repeats_keys: grouped keys and values are saved once for each query head.
        extra_in_flight: micro-batches a pipeline stage holds beside those of 1F1B.
        keeps_outputs: the output of a pipeline stage lives until its backward.
        flat_step: the optimizer's temporaries are whole flat buffers; they get segments of their own, for no freed
            activation is as large.
        norm_bytes: of each number of one gradient at a time while the norm is computed.
        fused_accumulation: a block's weight gradients are added where they are computed, without a copy.
        pad_vocabulary: rows of the vocabulary on a device are a multiple of this.
        bucket_parameters: of one gradient bucket.
        source: of these.
    """

    name: str
    logit_bytes: float
    gated_tensors: int
    fp32_residual: bool
    repeats_keys: bool
    extra_in_flight: int
    keeps_outputs: bool
    flat_step: bool
    norm_bytes: int
    fused_accumulation: bool
    pad_vocabulary: int
    bucket_parameters: float
    source: str


STACKS = {
    "torch": Stack(
        name="torch",
        logit_bytes=12,
        gated_tensors=4,
        fp32_residual=True,
        repeats_keys=True,
        extra_in_flight=0,
        keeps_outputs=False,
        flat_step=False,
        norm_bytes=0,
        fused_accumulation=False,
        pad_vocabulary=1,
        bucket_parameters=25 * 2**20 / 4,
        source="autocast with fp32 weights, DistributedDataParallel; F.cross_entropy: fp32 copy, log-softmax, its "
        "gradient and that of the loss",
    ),
    "fsdp": Stack(
        name="fsdp",
        logit_bytes=12,
        gated_tensors=4,
        fp32_residual=False,
        repeats_keys=True,
        extra_in_flight=0,
        keeps_outputs=False,
        flat_step=False,
        norm_bytes=0,
        fused_accumulation=True,
        pad_vocabulary=1,
        bucket_parameters=0,
        source="FSDP2 with mixed precision, as torchtitan runs it: sharded fp32 weights, gathered in the compute "
        "precision, gradients reduced in fp32",
    ),
    "llm_foundry": Stack(
        name="llm_foundry",
        logit_bytes=2,
        gated_tensors=4,
        fp32_residual=False,
        repeats_keys=True,
        extra_in_flight=0,
        keeps_outputs=False,
        flat_step=False,
        norm_bytes=0,
        fused_accumulation=True,
        pad_vocabulary=1,
        bucket_parameters=0,
        source="MosaicML's llm-foundry: FSDP with bf16 weights gathered; flash-attn's fused cross entropy writes the "
        "gradient of bf16 logits alone",
    ),
    "megatron": Stack(
        name="megatron",
        logit_bytes=4,
        gated_tensors=3,
        fp32_residual=False,
        repeats_keys=False,
        extra_in_flight=0,
        keeps_outputs=False,
        flat_step=False,
        norm_bytes=0,
        fused_accumulation=True,
        pad_vocabulary=128,
        bucket_parameters=0,
        source="Megatron-LM: contiguous gradients, vocabulary-parallel cross entropy in place, fused SwiGLU; bytes a "
        "parameter takes as in its README",
    ),
    "nemo": Stack(
        name="nemo",
        logit_bytes=2,
        gated_tensors=3,
        fp32_residual=False,
        repeats_keys=False,
        extra_in_flight=0,
        keeps_outputs=False,
        flat_step=False,
        norm_bytes=0,
        fused_accumulation=True,
        pad_vocabulary=128,
        bucket_parameters=0,
        source="NVIDIA's performance recipes (NeMo, Megatron-Bridge): Megatron with grad_reduce_in_fp32 = False and "
        "Transformer Engine's cross entropy, which writes the gradient of bf16 logits alone",
    ),
    "megatron_deepspeed": Stack(
        name="megatron_deepspeed",
        logit_bytes=6,
        gated_tensors=3,
        fp32_residual=False,
        repeats_keys=False,
        extra_in_flight=1,
        keeps_outputs=True,
        flat_step=True,
        norm_bytes=8,
        fused_accumulation=False,
        pad_vocabulary=128,
        bucket_parameters=5e8,
        source="Megatron-DeepSpeed: pipe/schedule.py num_pipe_buffers = min(p - stage + 1, m), at least 2; "
        "zero/stage_1_and_2.py flattens the gradients, casts them to fp32, and takes norms in fp64; bf16_optimizer.py",
    ),
}


# those that gather weights for a block at a time
SHARDED = ("fsdp", "llm_foundry")


@dataclass(frozen=True)
class ParameterBytes:
    """Bytes a parameter takes on a device that holds it, data-parallel sharing applied.

    Attributes:
        weights: the arithmetic's own, or fp32 ones where they are the master copy.
        copies: weights in the precision of the arithmetic beside those, between forward and backward.
        gradients: while they are summed over the micro-batches.
        states: master copy and moments.
        step: temporaries of reduction and step, after the last backward, when activations are gone.
        host: what lies in the memory of the node instead.
    """

    weights: float
    copies: float
    gradients: float
    states: float
    step: float
    host: float


def stack_of(layout: Layout, name: str | None = None) -> Stack:
    """Return the stack called ``name``, or the one that such a layout is usually run with.

    Raises:
        JobError: for a name that is not in `STACKS`.

    >>> stack_of(Layout(data=8, zero=3)).name, stack_of(Layout(tensor=8)).name, stack_of(Layout()).name
    ('fsdp', 'megatron', 'torch')
    """
    if name is None:
        split = layout.tensor * layout.pipeline * layout.context * layout.expert > 1
        name = "megatron" if split else "fsdp" if layout.zero >= 2 else "torch"
    if name not in STACKS:
        raise unknown_name("training stack", name, STACKS)
    return STACKS[name]


@cache
def compiled_stack(stack: Stack) -> Stack:
    """Return what ``torch.compile`` makes of a stack: one pass from logits to loss, and gates computed again.

    Inductor fuses the cast, log-softmax and loss, so that beside the logits only their gradient is written; and its
    partitioner saves three of the four tensors of a gated feed-forward layer, for the rest are pointwise of these.
    torchtune's documentation measured both on a Llama 3.2 3B: 60.0 GiB without, 51.0 with; predicted 62.3 and 49.0.

    >>> compiled_stack(STACKS["fsdp"]).logit_bytes
    2
    """
    return replace(stack, logit_bytes=min(stack.logit_bytes, 2), gated_tensors=min(stack.gated_tensors, 3))


def parameter_bytes(stack: Stack, layout: Layout, shards: float) -> ParameterBytes:
    """Count the bytes of one parameter.

    Formulas, with d devices to share among: ZeRO-1 divides states and the step's temporaries, ZeRO-2 gradients too,
    ZeRO-3 weights too (arXiv 1910.02054, section 5). Undivided: fp32 4 + 4 + 8; bf16 2 + 4 + 12; fp16 2 + 2 + 12, and 4
    for fp32 gradients at the step (Megatron-LM's README: 16, 18, 20). With 2- or 1-byte moments, that instead of 8.

    Args:
        stack: how it is trained.
        layout: precision, ``zero``, ``state_bytes`` and ``offload`` are read.
        shards: devices that share, d above.

    >>> parameter_bytes(STACKS["megatron"], Layout(), 1)
    ParameterBytes(weights=2.0, copies=0.0, gradients=4.0, states=12.0, step=0.0, host=0.0)
    """
    moments = 2 * (layout.state_bytes + (_SCALE_BYTES if layout.state_bytes == 1 else 0.0))
    precision, zero = layout.precision, layout.zero
    copies = step = master = 0.0
    shares_states = zero >= 1
    weights = gradients = 4.0 if precision == "fp32" else 2.0
    if precision in ("fp32", "bf16_weights"):
        pass
    elif stack.name in SHARDED or stack.name == "torch":
        # fp32 weights are the master copy; the casts live until backward has used them
        weights, gradients, copies = 4.0, 4.0, 0.0 if zero == 3 else 2.0
    elif precision == "fp16":
        master, step = 4.0, 4.0
    else:
        gradients, master = 2.0 if stack.name == "nemo" else 4.0, 4.0
    if precision == "fp8" and stack.name != "nemo" and zero < 3:
        # Transformer Engine keeps each weight in fp8, and transposed, over the micro-batches; NVIDIA's recipes, which
        # set fp8_param_gather, keep no others
        copies += 2.0
    if stack.name == "torch" and layout.data > 1:
        # without gradient_as_bucket_view, the buckets are copies
        gradients *= 2
    elif stack.name == "megatron_deepspeed" and precision == "fp16":
        # ZeRO: flatten copies the fp16 gradients of the partition, .to(float32) makes that fp32. Without, all are made
        # fp32 one by one and then flattened.
        step = 6.0 if zero else 8.0
    elif stack.name == "megatron_deepspeed" and precision == "bf16" and zero <= 1:
        # BF16_Optimizer always shares its states, keeps bf16 gradients beside the flat fp32 ones, and reduces these
        # in one bf16 copy, which nobody shares
        shares_states, gradients, step = True, 6.0, 2.0 * shards
    if shares_states:
        step /= shards
    states = (master + moments) / (shards if shares_states else 1)
    return ParameterBytes(
        weights=weights / (shards if zero == 3 or (zero == 2 and stack.name in SHARDED) else 1),
        copies=copies,
        gradients=gradients / (shards if zero >= 2 else 1),
        states=0.0 if layout.offload else states,
        step=step,
        host=states if layout.offload else 0.0,
    )
