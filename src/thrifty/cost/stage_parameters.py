"""Parameters of a Transformer that one device of a pipeline stage holds, before data-parallel ranks share them out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from thrifty.spec.transformer import TransformerShape


@dataclass(frozen=True)
class StageParameters:
    """Counts on one device, tensor and expert parallelism applied.

    Attributes:
        layers: blocks of the stage.
        dense: of the blocks and norms, experts left out.
        experts: of the experts that this device holds.
        embedding: of the token and position tables; 0 where the stage has none.
        head: of the output matrix where it is a tensor of its own: untied, or tied across two stages.
        layer: of the largest block, experts included.
        matrix: of the largest matrix of a block.
    """

    layers: int
    dense: float
    experts: float
    embedding: float
    head: float
    layer: float
    matrix: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.dense + self.experts + self.embedding + self.head


def stage_layers(layers: int, stages: int) -> tuple[int, int, int]:
    """Return the blocks of the first, a middle and the last stage.

    Where the stages do not divide the blocks but divide two more, the embedding and the head each stand for a block
    (BLOOM, Llama 3). Where they divide neither, the first stages take one more.

    >>> stage_layers(72, 12), stage_layers(70, 12), stage_layers(126, 16)
    ((6, 6, 6), (5, 6, 5), (7, 8, 7))
    """
    if layers % stages and stages > 1 and (layers + 2) % stages == 0 and layers + 2 > 2 * stages:
        middle = (layers + 2) // stages
        return middle - 1, middle if stages > 2 else middle - 1, middle - 1
    most = -(-layers // stages)
    return most, most, layers // stages


def padded_vocabulary(vocabulary: int, tensor: int, multiple: int) -> int:
    """Round a vocabulary up so that every tensor-parallel device holds a multiple of ``multiple`` rows.

    >>> padded_vocabulary(50257, 8, 128)
    51200
    """
    return -(-vocabulary // (multiple * tensor)) * multiple * tensor


@lru_cache(maxsize=4096)
def _block(shape: TransformerShape, tensor: int, expert: int) -> tuple[float, float, float]:
    """Parameters of a dense block, and of a mixture's block without its experts, and of its experts, on one device."""
    hidden = shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    kv_share = min(tensor, shape.kv_heads)
    matrices = 3 if shape.gated else 2
    attention = 2 * hidden * queries / tensor + 2 * hidden * keys / kv_share
    norms = 2 * hidden * (2 if shape.biases else 1)
    if shape.biases:
        attention += queries / tensor + 2 * keys / kv_share + hidden

    def feed_forward(width: float) -> float:
        biases = (matrices - 1) * width / tensor + hidden if shape.biases and width else 0.0
        return matrices * hidden * width / tensor + biases

    dense = attention + norms + feed_forward(shape.ffn)
    without = attention + norms + hidden * shape.experts + feed_forward(shape.shared_ffn)
    experts = shape.experts / expert * feed_forward(shape.expert_ffn)
    return dense, without, experts


@lru_cache(maxsize=65536)
def stage_parameters(
    shape: TransformerShape, *, tensor: int, pipeline: int, expert: int, stage: int, pad_vocabulary: int
) -> StageParameters:
    """Count what one device of pipeline stage ``stage`` (0 is the first) holds.

    Formula per block: attention ``2 h q + 2 h k`` with ``q = heads x head_dim`` and ``k = kv_heads x head_dim``, feed
    forward ``2 h f`` or, gated, ``3 h f``; all over ``tensor`` but the norms. Keys and values are cut by at most
    ``kv_heads``. Experts are cut by ``expert`` and ``tensor``.

    Args:
        pad_vocabulary: rows of the vocabulary a tensor-parallel device are a multiple of this.
    """
    first, middle, last = stage_layers(shape.layers, pipeline)
    layers = first if stage == 0 else last if stage == pipeline - 1 else middle
    dense, without, experts = _block(shape, tensor, expert)
    plain = layers if not shape.experts else min(layers, shape.dense_layers) if stage == 0 else 0
    mixed = layers - plain
    table = padded_vocabulary(shape.vocabulary, tensor, pad_vocabulary) / tensor * shape.hidden
    positions = shape.length * shape.hidden if shape.learned_positions else 0
    is_first, is_last = stage == 0, stage == pipeline - 1
    return StageParameters(
        layers=layers,
        dense=plain * dense + mixed * without + (shape.hidden * (2 if shape.biases else 1) if is_last else 0),
        experts=mixed * experts,
        embedding=table + positions if is_first else 0.0,
        head=table if is_last and not (shape.tied and is_first) else 0.0,
        layer=max(dense if plain else 0.0, without + experts if mixed else 0.0),
        matrix=shape.hidden * max(shape.ffn if plain else shape.expert_ffn, shape.heads * shape.head_dim) / tensor,
    )
