"""What holds for a whole published table where its rows do not say, and how each source counts FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thrifty.spec import Checkpointing, Precision, TransformerShape


@dataclass(frozen=True)
class Rule:
    """What holds for a whole table where its rows do not say; each such use is noted with the row.

    Attributes:
        software: the stack it was measured with; with the device's family it names a calibration.
        vocabulary: of the head; a text of ``why`` says how it was found.
        checkpointing, flash, zero, precision, sequence_parallel: of every row that does not say.
        micro_batches: tried, and the fastest taken, where the source says only that it was tuned.
    """

    software: str
    vocabulary: int = 0
    checkpointing: Checkpointing = "none"
    flash: bool = True
    zero: Literal[0, 1, 2, 3] = 1
    precision: Precision = "bf16"
    sequence_parallel: bool = False
    heads: int = 0
    micro_batches: tuple[int, ...] = ()
    why: str = ""


# Vocabularies: Megatron pads GPT-2's 50,257 to 51,200 at 8-way tensor parallelism, as its papers say; BigScience's
# printed TFLOP/s agree with the formula of arXiv 2104.04473 at 250,880 to four digits.
_PADDED = "GPT-2's vocabulary, padded"
RULES: dict[str, Rule] = {
    "bigscience_a100": Rule(
        "megatron-deepspeed 2022-02", 250_880, "full", False, 1, "fp16", heads=96, micro_batches=(1,),
        why="vocabulary from the printed TFLOP/s; 96 heads and micro-batch 1 where not said, as of the 200B model",
    ),
    "bigscience_v100": Rule("megatron-deepspeed 2021", 51_200, "full", False, 0, "fp16", why=_PADDED),
    "vtrain_a100_multinode": Rule("megatron 2023", 51_200, "full", False, 0, "fp16", why=_PADDED),
    "vtrain_a100_singlenode_sample": Rule(
        "megatron 2023, one node", 51_200, "none", False, 0, "fp16", why=f"{_PADDED}; no recomputation"
    ),
    "megatron_seqpar_2205_05198": Rule(
        "megatron 2021, sequence parallel 2022-05", 51_200, "full", False, 0, "fp16", why="the paper's vocabulary"
    ),
    "megatron_lm": Rule(
        "megatron 2021", 51_200, "none", False, 0, "fp16", micro_batches=(1, 2, 4, 8),
        why="micro-batch tuned by its source"
    ),
    "llm_foundry": Rule("llm-foundry 2024", zero=3),
    "llm_foundry_2023_06_a100": Rule("llm-foundry 2023-06", zero=3),
    "nvidia_dgxc_h100": Rule("nemo 2024", sequence_parallel=True, why="no recomputation, sequence parallel"),
    "megatron_bridge": Rule(
        "megatron-bridge", sequence_parallel=True, precision="fp8", why="no recomputation, sequence parallel"
    ),
    "maxtext": Rule(
        "maxtext 2023-12", 32_768, zero=3, sequence_parallel=True, why="activations sharded over the tensor axis"
    ),
    "torchtitan_commits_h100": Rule("torchtitan", zero=3),
    "torchtune_finetune": Rule("torchtune 2024", checkpointing="full", zero=0, precision="bf16_weights"),
    "hf_deepspeed_docs": Rule("transformers 2022", flash=False, zero=0),
    "small_runs": Rule("by hand", zero=1),
    "modded_nanogpt": Rule("modded-nanogpt 2024", zero=1),
    "large_runs": Rule("megatron-deepspeed 2022-02", 250_880, "full", False, 1, "fp16"),
}  # fmt: skip


def flops_as_counted(table: str, kind: str, shape: TransformerShape) -> float:
    """FLOPs a token as the source counts them; 0 where it does not say."""
    layers, hidden, length = shape.layers, shape.hidden, shape.length
    if "older under-reporting" in kind:
        return 96 * layers * hidden**2
    if kind.startswith("hardware"):  # arXiv 2104.04473 equation 3, recomputation included
        return 96 * layers * hidden**2 * (1 + length / (6 * hidden) + shape.vocabulary / (16 * layers * hidden))
    if table == "megatron_lm" and kind == "model":  # its README: the same without recomputation
        return 72 * layers * hidden**2 * (1 + length / (6 * hidden) + shape.vocabulary / (12 * layers * hidden))
    if "non-causal attn" in kind:  # MaxText's maxtext_utils at the commit of the table
        attention = shape.heads * shape.head_dim
        per_layer = 4 * hidden * attention + (3 if shape.gated else 2) * hidden * shape.ffn
        return 6 * (layers * per_layer + shape.vocabulary * hidden) + 12 * attention * layers * length
    return 0.0
