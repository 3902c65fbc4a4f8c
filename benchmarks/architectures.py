"""Shapes of public models that the published tables name without giving their sizes, each with its source."""

from __future__ import annotations

from thrifty.spec import TransformerShape


def _llama(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocabulary: int) -> TransformerShape:
    return TransformerShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        ffn=ffn,
        vocabulary=vocabulary,
        length=8192,
        gated=True,
        learned_positions=False,
        biases=False,
        tied=False,
    )


def _mixture(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    experts: int,
    active: int,
    expert_ffn: int,
    vocabulary: int,
    *,
    ffn: int = 0,
    shared_ffn: int = 0,
    dense_layers: int = 0,
) -> TransformerShape:
    return TransformerShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn or expert_ffn,
        vocabulary=vocabulary,
        length=4096,
        gated=True,
        learned_positions=False,
        biases=False,
        tied=False,
        experts=experts,
        active_experts=active,
        expert_ffn=expert_ffn,
        shared_ffn=shared_ffn,
        dense_layers=dense_layers,
    )


def _nemotron4(layers: int, hidden: int, heads: int) -> TransformerShape:
    return _llama(layers, hidden, heads, 8, 4 * hidden, 256_000).model_copy(update={"gated": False})


# Multi-head latent attention has no field of its own: heads and head size are chosen so that its projections have the
# right number of parameters; DeepSeek-V3 has 187.1 M a layer (q 7168x1536 + 1536x128x192, kv 7168x576 + 512x128x256,
# output 128x128x7168), Kimi K2 half the heads, 101 M. The attention core is then counted a third too small.
# The extra layer of DeepSeek-V3 is its multi-token-prediction module, unless the table says "w/o MTP".
ARCHITECTURES: dict[str, tuple[TransformerShape, str]] = {
    "llama3_8b": (_llama(32, 4096, 32, 8, 14336, 128_256), "arXiv 2407.21783 table 3"),
    "llama3_70b": (_llama(80, 8192, 64, 8, 28672, 128_256), "arXiv 2407.21783 table 3"),
    "llama3.1_405b": (_llama(126, 16384, 128, 8, 53248, 128_256), "arXiv 2407.21783 table 3"),
    "llama2_7b": (_llama(32, 4096, 32, 32, 11008, 32_000), "arXiv 2307.09288"),
    "llama2_70b": (_llama(80, 8192, 64, 8, 28672, 32_000), "arXiv 2307.09288"),
    "mixtral_8x7b": (_mixture(32, 4096, 32, 8, 128, 8, 2, 14336, 32_000), "arXiv 2401.04088 table 1"),
    "deepseekv3": (
        _mixture(62, 7168, 48, 48, 136, 256, 8, 2048, 129_280, ffn=18432, shared_ffn=2048, dense_layers=3),
        "arXiv 2412.19437 section 4.2; latent attention by its projections, one layer for MTP",
    ),
    "deepseekv3 (w/o mtp)": (
        _mixture(61, 7168, 48, 48, 136, 256, 8, 2048, 129_280, ffn=18432, shared_ffn=2048, dense_layers=3),
        "arXiv 2412.19437 section 4.2; latent attention by its projections",
    ),
    "kimi_k2": (
        _mixture(61, 7168, 32, 32, 112, 384, 8, 2048, 163_840, ffn=18432, shared_ffn=2048, dense_layers=1),
        "arXiv 2507.20534; latent attention by its projections",
    ),
    "qwen3_30b_a3b": (_mixture(48, 2048, 32, 4, 128, 128, 8, 768, 151_936), "arXiv 2505.09388 table 2"),
    "qwen3_235b_a22b": (_mixture(94, 4096, 64, 4, 128, 128, 8, 1536, 151_936), "arXiv 2505.09388 table 2"),
    "gpt oss 120b": (_mixture(36, 2880, 64, 8, 64, 128, 4, 2880, 201_088), "arXiv 2508.10925; windows counted in full"),
    "nemotron-4 15b": (_nemotron4(32, 6144, 48), "arXiv 2402.16819 table 1"),
    "nemotron-4 340b": (_nemotron4(96, 18432, 96), "arXiv 2406.11704 table 1"),
    "grok-1 314b moe": (_mixture(64, 6144, 48, 8, 128, 8, 2, 32768, 131_072), "github.com/xai-org/grok-1 run.py"),
}


def architecture(model: str) -> tuple[TransformerShape, str] | None:
    """Return the shape of a public model and its source, or ``None`` for one that is not known.

    >>> architecture("LLAMA3_70B")[0].layers
    80
    """
    name = model.strip().lower().replace(" (dropless)", "").replace(" (tokendrop)", "").split(" proxy")[0]
    return ARCHITECTURES.get(name)
