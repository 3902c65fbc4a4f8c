"""The kernels of one micro-batch of a Transformer on one device, in closed form, under any layout.

Shapes: T tokens of a device's micro-batch, H hidden, F feed-forward width, V vocabulary, S length; of a matrix product
``[m, k] @ [k, n]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from thrifty.cost.kernels import Kernel, Kernels
from thrifty.spec import Layout, TransformerShape

# Segments of `Kernels`: forward and backward of a dense block and of a block of experts, what a recomputation repeats
# of them, and the two ends of the model.
DENSE_FORWARD, DENSE_BACKWARD, DENSE_AGAIN = 0, 1, 2
MIXTURE_FORWARD, MIXTURE_BACKWARD, MIXTURE_AGAIN = 3, 4, 5
ENDS_FORWARD, ENDS_BACKWARD = 6, 7
SEGMENTS = 8
# Kernels that compute nothing worth counting, yet are launched: views made contiguous, casts, fills.
_SMALL_FORWARD, _SMALL_BACKWARD = 4, 8


@dataclass(frozen=True)
class Spread:
    """What of a `Layout` changes the kernels of one micro-batch: the key of their cache."""

    tensor: int
    context: int
    expert: int
    sequence_parallel: bool
    micro_batch: int
    checkpointing: str
    flash: bool
    precision: str
    logits: bool = True

    @classmethod
    def of(cls, layout: Layout, logits: bool = True) -> Spread:
        """Take it from a layout; ``logits`` unless the model ends in a classifier of few classes."""
        return cls(
            layout.tensor,
            layout.context,
            layout.expert,
            layout.sequence_parallel,
            layout.micro_batch,
            layout.checkpointing,
            layout.flash,
            layout.precision,
            logits,
        )


@lru_cache(maxsize=16_384)
def micro_batch_kernels(shape: TransformerShape, spread: Spread) -> Kernels:
    """Return the kernels of one micro-batch: one block of each sort, and both ends of the model.

    Closed forms, checked in the tests: the products of a dense block take ``2 T (2 H (heads + kv_heads) head_dim +
    (2 or 3) H F)`` FLOPs forward and twice that backward; attention ``4 T S heads head_dim``, half of it when causal
    and fused, 2.5 times that backward when fused and twice when not.
    """
    kernels: list[Kernel] = []
    if not shape.experts or shape.dense_layers:
        kernels += _block(shape, spread, DENSE_FORWARD, experts=False)
    if shape.experts:
        kernels += _block(shape, spread, MIXTURE_FORWARD, experts=True)
    kernels += _ends(shape, spread)
    return Kernels(kernels, SEGMENTS)


def _width(spread: Spread) -> float:
    return 4.0 if spread.precision == "fp32" else 2.0


def _product(
    segment: int,
    spread: Spread,
    batch: float,
    m: float,
    n: float,
    k: float,
    *,
    weights: bool = True,
    precision: str = "",
) -> Iterator[Kernel]:
    """A product forward, and its two backward: of its input, and of its weights (or other input)."""
    width = _width(spread)
    flops, moved = 2 * batch * m * n * k, width * batch * (m * k + k * n + m * n)
    yield Kernel(segment, "matmul", flops, moved, batch, m, n, k, 1, precision)
    yield Kernel(segment + 1, "matmul", flops, moved, batch, m, k, n, 1, precision)
    # The gradient of weights is added to what earlier micro-batches left, in fp32.
    added = (8.0 - width) * batch * k * n if weights else 0.0
    yield Kernel(segment + 1, "matmul", flops, moved + added, batch, k, n, m, 1, precision)


def _move(segment: int, moved: float, count: float = 1) -> Kernel:
    return Kernel(segment, "other", 0.0, moved / count, times=count)


def _block(shape: TransformerShape, spread: Spread, segment: int, *, experts: bool) -> Iterator[Kernel]:
    again: list[Kernel] = []
    core = list(_attention_core(shape, spread, segment))
    rest = list(_linear(shape, spread, segment, experts=experts))
    if spread.checkpointing == "full":
        again = [k._replace(segment=segment + 2) for k in core + rest if k.segment == segment]
    elif spread.checkpointing == "selective":
        again = [k._replace(segment=segment + 2) for k in core if k.segment == segment]
    yield from core
    yield from rest
    yield from again


def _linear(shape: TransformerShape, spread: Spread, segment: int, *, experts: bool) -> Iterator[Kernel]:
    tokens = spread.micro_batch * shape.length / spread.context
    hidden, width = shape.hidden, _width(spread)
    queries = shape.heads * shape.head_dim / spread.tensor
    keys = 2 * shape.kv_heads * shape.head_dim / min(spread.tensor, shape.kv_heads)
    yield from _product(segment, spread, 1, tokens, queries + keys, hidden)
    yield from _product(segment, spread, 1, tokens, hidden, queries)
    # Two norms (in, out) and two sums of a residual with bias and dropout (two in, one out, a mask of bytes); backward
    # one tensor more of each. Sequence parallelism shares them out.
    plain = tokens * hidden * width / (spread.tensor if spread.sequence_parallel else 1)
    yield _move(segment, 11 * plain, 4)
    yield _move(segment + 1, 17 * plain, 6)
    # Queries, keys and values are split and turned, or rotated.
    yield _move(segment, 2 * tokens * (queries + keys) * width, 2 if shape.learned_positions else 4)
    yield _move(segment + 1, 2 * tokens * (queries + keys) * width, 2 if shape.learned_positions else 4)
    yield _move(segment, 0.0, _SMALL_FORWARD)._replace(bytes=1.0)
    yield _move(segment + 1, 0.0, _SMALL_BACKWARD)._replace(bytes=1.0)
    if spread.precision == "fp8":  # inputs and gradients are scaled and cast: read in 16 bits, written in 8, twice
        cast = tokens * (2 * hidden + queries) * 4
        yield _move(segment, cast, 4)
        yield _move(segment + 1, cast, 4)
    if experts:
        yield from _experts(shape, spread, segment, tokens)
        if shape.shared_ffn:
            yield from _feed_forward(shape, spread, segment, 1, tokens, shape.shared_ffn / spread.tensor)
    else:
        yield from _feed_forward(shape, spread, segment, 1, tokens, shape.ffn / spread.tensor)


def _feed_forward(
    shape: TransformerShape, spread: Spread, segment: int, batch: float, rows: float, ffn: float
) -> Iterator[Kernel]:
    gates = 2 if shape.gated else 1
    width = _width(spread)
    yield from _product(segment, spread, batch, rows, gates * ffn, shape.hidden)
    yield from _product(segment, spread, batch, rows, shape.hidden, ffn)
    inner = batch * rows * ffn * width
    cast = 1.5 * (gates + 1) * inner if spread.precision == "fp8" else 0.0
    yield _move(segment, (gates + 1) * inner + cast / 2)
    yield _move(segment + 1, (2 * gates + 1) * inner + cast)


def _experts(shape: TransformerShape, spread: Spread, segment: int, tokens: float) -> Iterator[Kernel]:
    """Router, the sorting of tokens to experts and back, and the experts' products, evenly loaded."""
    tokens = tokens / spread.tensor
    local = shape.experts / spread.expert
    chosen = tokens * shape.active_experts
    width = _width(spread)
    yield from _product(segment, spread, 1, tokens, shape.experts, shape.hidden, precision="wide")
    yield _move(segment, 4 * chosen * shape.hidden * width + 12 * tokens * shape.experts, 12)
    yield _move(segment + 1, 5 * chosen * shape.hidden * width + 12 * tokens * shape.experts, 14)
    rows = math.ceil(chosen / local / 8) * 8  # padded, as the kernels need
    yield from _feed_forward(shape, spread, segment, local, rows, shape.expert_ffn)


def _attention_core(shape: TransformerShape, spread: Spread, segment: int) -> Iterator[Kernel]:
    tokens = spread.micro_batch * shape.length / spread.context
    heads = shape.heads / spread.tensor
    width = _width(spread)
    if spread.flash:
        flops = 4 * tokens * shape.length * heads * shape.head_dim * (0.5 if shape.causal else 1.0)
        moved = 4 * tokens * heads * shape.head_dim * width
        yield Kernel(segment, "attention", flops, moved)
        yield Kernel(segment + 1, "attention", 2.5 * flops, 2 * moved, times=1)
        yield _move(segment + 1, moved, 2)
        return
    batch, rows = spread.micro_batch * heads, shape.length / spread.context
    scores = batch * rows * shape.length
    yield from _product(segment, spread, batch, rows, shape.length, shape.head_dim, weights=False, precision="wide")
    yield from _product(segment, spread, batch, rows, shape.head_dim, shape.length, weights=False, precision="wide")
    # A fused, masked softmax reads and writes the scores; dropout too, and writes a mask of bytes.
    yield _move(segment, scores * (4 * width + 1), 3)
    yield _move(segment + 1, scores * (5 * width + 1), 3)


def _ends(shape: TransformerShape, spread: Spread) -> Iterator[Kernel]:
    """Embedding, final norm, head and cross-entropy."""
    tokens = spread.micro_batch * shape.length / spread.context
    hidden, width = shape.hidden, _width(spread)
    yield _move(ENDS_FORWARD, 8 * tokens * hidden * width, 6)
    yield _move(ENDS_BACKWARD, 8 * tokens * hidden * width, 8)
    if not spread.logits:
        return
    vocabulary = shape.vocabulary / spread.tensor
    yield from _product(ENDS_FORWARD, spread, 1, tokens, vocabulary, hidden, precision="wide")
    # Logits are cast to fp32, their maximum, exponentials and sum taken; backward the probabilities are written twice.
    yield _move(ENDS_FORWARD, tokens * vocabulary * (width + 16), 8)
    yield _move(ENDS_BACKWARD, tokens * vocabulary * (width + 8), 3)


def parameters(shape: TransformerShape) -> tuple[float, float, float]:
    """Return the parameters of a dense block, of a block's experts alone, and of the model's two ends.

    >>> from thrifty.spec import TransformerShape
    >>> gpt3 = TransformerShape(layers=96, hidden=12288, heads=96, kv_heads=96, head_dim=128, ffn=49152,
    ...                         vocabulary=51200, length=2048)
    >>> block, experts, ends = parameters(gpt3)
    >>> round((96 * block + ends) / 1e9, 1)
    174.6
    """
    hidden = shape.hidden
    attention = 2 * hidden * (shape.heads + shape.kv_heads) * shape.head_dim
    gates = 3 if shape.gated else 2
    dense = attention + gates * hidden * shape.ffn + 4 * hidden
    if shape.biases:
        dense += (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 2 * hidden + (gates - 1) * shape.ffn
    experts = shape.experts * gates * hidden * shape.expert_ffn
    ends = shape.vocabulary * hidden * (1 if shape.tied else 2) + 2 * hidden
    if shape.learned_positions:
        ends += shape.length * hidden
    return float(dense), float(experts), float(ends)


def mixture_parameters(shape: TransformerShape) -> float:
    """Return the parameters of a block of experts that every rank holds: attention, router, shared experts."""
    dense, _, _ = parameters(shape)
    gates = 3 if shape.gated else 2
    return (
        dense
        - gates * shape.hidden * shape.ffn
        + gates * shape.hidden * shape.shared_ffn
        + shape.hidden * shape.experts
    )


def model_flops(shape: TransformerShape) -> float:
    """Return FLOPs of training on one token, without recomputation: ``6 N`` of products and causal attention halved."""
    whole = micro_batch_kernels(shape, Spread(1, 1, 1, False, 1, "none", True, "bf16"))
    by_segment = whole.segment_flops
    mixtures = shape.layers - shape.dense_layers if shape.experts else 0
    dense = shape.layers - mixtures
    total = dense * by_segment[:2].sum() + mixtures * by_segment[3:5].sum() + by_segment[6:].sum()
    return float(total) / shape.length
