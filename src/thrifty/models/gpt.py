"""GPT-2: a Transformer decoder that predicts the next token.

Radford et al. 2019: pre-layer-norm blocks, learned positions, GELU (its tanh form), the head tied to the embedding.
Dropout, where it is asked for, is of the embedding and of what each half of a block adds, not of attention's weights,
which fused kernels never make. By default there is none: a run that fits a small budget sees its data about once.

Shapes: B batch, T tokens, C width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.layers import Apart, Past, attend
from thrifty.models.packed import Packed, Rows


class Attention(nn.Module):
    """Causal self-attention with queries, keys and values from one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} does not divide into {heads} heads"
        self.heads = heads
        self.ways: dict[str, str] = {}
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor, past: Past | Apart | None = None) -> Tensor:
        if not (past is None or isinstance(past, Past)):
            qkv_BTJD = self.c_attn(x_BTC).unflatten(-1, (3 * self.heads, -1))
            apart_BTC: Tensor = self.c_proj(past.attend(qkv_BTJD, self.heads, self.ways))
            return apart_BTC
        qkv_BTKHD = self.c_attn(x_BTC).unflatten(-1, (3, self.heads, -1))
        q_BHTD, k_BHTD, v_BHTD = qkv_BTKHD.permute(2, 0, 3, 1, 4).unbind(0)
        causal = past is None or past.length == 0
        if past is not None:
            k_BHTD, v_BHTD = past.extend(k_BHTD, v_BHTD)
        seen_BHTD = attend(q_BHTD, k_BHTD, v_BHTD, causal, ways=self.ways)
        out_BTC: Tensor = self.c_proj(seen_BHTD.transpose(1, 2).flatten(2))
        return out_BTC


class FeedForward(nn.Module):
    """Two products with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.c_proj(F.gelu(self.c_fc(x_BTC), approximate="tanh"))
        return out_BTC


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, past: Past | Apart | None = None) -> Tensor:
        x_BTC = x_BTC + self.drop(self.attn(self.ln_1(x_BTC), past))
        out_BTC: Tensor = x_BTC + self.drop(self.mlp(self.ln_2(x_BTC)))
        return out_BTC


class GPT(nn.Module):
    """A language model: int64 tokens [B, T] to logits [B, T, V]; T is at most ``length``.

    It takes `Packed` documents too, each no longer than that.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest context.
        layers, width, heads: of the blocks.
        dropout: share of elements that are dropped in training.
    """

    def __init__(
        self, *, vocabulary: int, length: int, layers: int, width: int, heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(length, width)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    @property
    def head_weight(self) -> Tensor:
        """What turns the last hidden state into logits [V, C]."""
        return self.wte.weight

    def pasts(self, room: int) -> list[Past]:
        """Return what remembers up to so many tokens for the blocks, with nothing read yet."""
        return [Past(room) for _ in self.h]

    def forward(
        self, tokens_BT: Tensor | Packed, pasts: Sequence[Past | Apart] | None = None, *, hidden: bool = False
    ) -> Tensor:
        """Return logits; or, when ``hidden``, what the head is applied to [B, T, C]."""
        rows, first = None, pasts[0] if pasts else None
        if isinstance(tokens_BT, Packed):
            rows = Rows(tokens_BT, self.wpe.weight.dtype, causal=True)
            tokens_BT, positions = tokens_BT.tokens, rows.positions_1T
        elif not (first is None or isinstance(first, Past)):
            positions = first.positions_1T
        else:
            read = first.length if first is not None else 0
            positions = torch.arange(read, read + tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self.drop(self.wte(tokens_BT) + self.wpe(positions))
        for index, block in enumerate(self.h):
            x_BTC = block(x_BTC, pasts[index] if pasts else rows)
        x_BTC = self.ln_f(x_BTC)
        return x_BTC if hidden else F.linear(x_BTC, self.head_weight)
