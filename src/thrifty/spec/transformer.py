"""`TransformerShape`: the sizes that fix what a Transformer computes, for any number of layers, in closed form."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from thrifty.spec.plain import Plain


class TransformerShape(Plain):
    """A decoder or encoder of equal blocks.

    Attributes:
        layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, length: sizes; ``length`` in tokens.
        gated: the feed-forward layer has a gate (SwiGLU, three matrices), else two matrices.
        learned_positions: a table of ``length x hidden`` is added to the embedding.
        biases: on the linear layers.
        tied: the head shares the embedding's weights.
        causal: each token sees only those before it.
        experts: of a mixture in each block; 0 for a dense model.
        active_experts: of them, those that each token passes through.
        expert_ffn: width of one expert's hidden layer; 0 for a dense model.
        shared_ffn: width of the feed-forward layer that every token passes beside the experts.
        dense_layers: blocks at the start without experts, in a mixture.
    """

    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn: PositiveInt
    vocabulary: PositiveInt
    length: PositiveInt
    gated: bool = False
    learned_positions: bool = True
    biases: bool = True
    tied: bool = True
    causal: bool = True
    experts: NonNegativeInt = 0
    active_experts: NonNegativeInt = 0
    expert_ffn: NonNegativeInt = 0
    shared_ffn: NonNegativeInt = 0
    dense_layers: NonNegativeInt = 0
