"""Bytes that one Transformer block keeps for its backward, and works with, on one device of a layout.

Notation: h hidden, q heads x head_dim, k kv_heads x head_dim, f feed-forward width, a heads, s length, b micro-batch, t
tensor-parallel devices, c context-parallel devices, e bytes of a number in the arithmetic (2, or 4 in fp32). All of it
is per token, for the s b / c tokens a device has.
"""

from __future__ import annotations

from dataclasses import dataclass

from thrifty.cost.stacks import Stack
from thrifty.spec.layout import Layout
from thrifty.spec.transformer import TransformerShape


@dataclass(frozen=True)
class BlockBytes:
    """Bytes a token takes in one block.

    Attributes:
        kept: for the backward, by the layout's checkpointing.
        working: beside them while the block's backward runs: what is computed again, and gradients of activations.
        entering: of the residual stream between blocks.
    """

    kept: float
    working: float
    entering: float


def block_bytes(shape: TransformerShape, layout: Layout, stack: Stack, *, dropout: bool, mixture: bool) -> BlockBytes:
    """Count the bytes of a token in a block.

    Formulas. Norms and residual: 4 e h, and 2 h of dropout masks, whole on each tensor-parallel device unless
    ``sequence_parallel`` splits them. Attention: e (2 q + 2 k) / t. Scores, unless flash: e a s / t, and with dropout
    (1 + e) a s / t more. Feed forward: 2 e f / t, gated 3 e f / t fused or 4 e f / t. For f = 4 h, q = k = h, e = 2 and
    dropout that is ``10 h + 24 h / t + 5 a s / t``: equation 2 of Korthikanti et al. 2022 (arXiv 2205.05198), and all
    of it over t with sequence parallelism, equation 4. ``selective`` leaves out the scores (equation 6), ``full`` all
    but the block's input.

    Args:
        shape: of the model.
        layout: of the step.
        stack: how it is trained.
        dropout: after attention's scores, attention and feed forward.
        mixture: a block with experts.
    """
    tensor, hidden, heads = layout.tensor, shape.hidden, shape.heads
    single = layout.precision == "fp32"
    # fp8: what enters a linear layer is kept in fp8 alone
    wide, linear_in = (4, 4) if single else (2, 1 if layout.precision == "fp8" else 2)
    residual = 4 if stack.fp32_residual else wide
    undivided = 1 / tensor if layout.sequence_parallel else 1.0
    mask = 1 if dropout else 0
    autocast = stack.fp32_residual and layout.precision not in ("fp32", "bf16_weights")
    if not autocast:
        residual = wide

    queries = heads * shape.head_dim / tensor
    keys = shape.kv_heads * shape.head_dim / min(tensor, shape.kv_heads)
    kept_keys = queries if stack.repeats_keys else keys
    norms = hidden * undivided * (residual + (3 if autocast else 1) * linear_in + mask)
    attention = norms + wide * (queries + 2 * kept_keys) + max(linear_in, wide if layout.flash else 0) * queries
    if layout.flash:
        attention += 4 * heads / tensor
    score_count = heads / tensor * shape.length
    softmax = 4 if autocast else wide
    scores = 0.0 if layout.flash else score_count * (softmax + (mask + wide if dropout or autocast else 0))
    score_gradients = 0.0 if layout.flash else score_count * (softmax + wide)

    def feed_forward(width: float) -> float:
        tensors = stack.gated_tensors if shape.gated else 2
        return ((tensors - 1) * wide + linear_in) * width / tensor

    casts = 2 if autocast and shape.gated else 1
    entering_ffn = hidden * undivided * (residual + casts * linear_in + mask)
    gradient_tensors = 3 if shape.gated else 2
    if mixture:
        # each of the active experts has its own copy of the token and its own output, weighted after (e h each)
        routed = (
            shape.active_experts * (hidden * undivided * (linear_in + wide) + feed_forward(shape.expert_ffn))
            + 4 * 2 * shape.experts
        )
        ffn = entering_ffn + routed + feed_forward(shape.shared_ffn)
        widest = shape.active_experts * shape.expert_ffn + shape.shared_ffn
    else:
        ffn = entering_ffn + feed_forward(shape.ffn)
        widest = shape.ffn
    gradients = 2 * hidden * undivided * residual + max(gradient_tensors * wide * widest / tensor, score_gradients)

    entering = hidden * undivided * residual
    if layout.checkpointing == "full":
        return BlockBytes(kept=entering, working=attention + scores + ffn + gradients, entering=entering)
    if layout.checkpointing == "selective":
        return BlockBytes(kept=attention + ffn, working=scores + gradients, entering=entering)
    return BlockBytes(kept=attention + scores + ffn, working=gradients, entering=entering)


def in_flight(layout: Layout, stage: int, stack: Stack) -> float:
    """Return how many micro-batches' activations a pipeline stage holds at most.

    Formulas: 1F1B ``min(p - stage, m)`` (arXiv 2104.04473, section 2.2.1). Interleaved, of chunks of a v-th of a stage:
    ``2 (p - stage - 1) + (v - 1) p + 1``, so at the first stage ``1 + (p - 1) / (p v)`` times 1F1B's.

    >>> from thrifty.cost.stacks import STACKS
    >>> in_flight(Layout(pipeline=4, accumulation=16, virtual_stages=2), 0, STACKS["megatron"])
    5.5
    """
    stages, chunks, batches = layout.pipeline, layout.virtual_stages, layout.accumulation
    if stages == 1:
        return 1.0
    if chunks > 1:
        return min(2 * (stages - stage - 1) + (chunks - 1) * stages + 1, batches * chunks) / chunks
    held = min(stages - stage + stack.extra_in_flight, batches)
    return float(min(max(held, 1 + stack.extra_in_flight), batches))
