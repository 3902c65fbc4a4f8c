"""The `TransformerShape` of a model, where it has one: then a step is priced in closed form instead of traced."""

from __future__ import annotations

from thrifty.spec import ModelPlan, TransformerShape


def shape_of(model: ModelPlan) -> TransformerShape | None:
    """Return the shape of a GPT or a Llama; None for a model of another family.

    >>> arguments = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50_257, "length": 1024}
    >>> shape_of(ModelPlan(name="gpt2", family="gpt", arguments=arguments)).ffn
    3072
    """
    if model.family not in {"gpt", "llama"}:
        return None
    sizes, llama = model.arguments, model.family == "llama"
    width, heads = int(sizes["width"]), int(sizes["heads"])
    return TransformerShape(
        layers=int(sizes["layers"]),
        hidden=width,
        heads=heads,
        kv_heads=int(sizes.get("kv_heads", heads)),
        head_dim=width // heads,
        ffn=int(sizes.get("ffn", 4 * width)),
        vocabulary=int(sizes["vocabulary"]),
        length=int(sizes["length"]),
        gated=llama,
        learned_positions=not llama,
        biases=not llama,
        tied=bool(sizes.get("tied", True)),
    )


def parameters_of(shape: TransformerShape) -> int:
    """Count the parameters of a dense shape: embeddings, blocks with their norms, the last norm, and a head of its own.

    >>> shape = TransformerShape(
    ...     layers=12, hidden=768, heads=12, kv_heads=12, head_dim=64, ffn=3072, vocabulary=50_257, length=1024
    ... )
    >>> parameters_of(shape)
    124439808
    """
    hidden, ffn = shape.hidden, shape.ffn
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    block = 2 * hidden * (queries + keys) + (3 if shape.gated else 2) * hidden * ffn + 2 * hidden
    last = hidden
    if shape.biases:
        # of the products, and each norm's: those of a gate would be as wide again
        block += queries + 2 * keys + 2 * hidden + (2 if shape.gated else 1) * ffn + 2 * hidden
        last += hidden
    positions = shape.length if shape.learned_positions else 0
    rows = shape.vocabulary * (1 if shape.tied else 2) + positions
    return shape.layers * block + rows * hidden + last


def least_flops(shape: TransformerShape, samples: int, *, again: bool) -> float:
    """Count the FLOPs that no way of computing a step can do without: the matrix products alone.

    Formula: 6 for each token and weight of the blocks and the head (forward, and twice that backward), and for causal
    attention 6 x layers x width x length per token; 8 in the blocks when they are computed again.

    Args:
        samples: in the step.
        again: blocks are computed again in the backward pass.
    """
    tokens = samples * shape.length
    width = shape.heads * shape.head_dim
    matrices = 3 if shape.gated else 2
    block = 2 * shape.hidden * (width + shape.kv_heads * shape.head_dim) + matrices * shape.hidden * shape.ffn
    attention = width * shape.length * (1 if shape.causal else 2)
    passes = 8 if again else 6
    return tokens * (passes * shape.layers * (block + attention) + 6 * shape.hidden * shape.vocabulary)
