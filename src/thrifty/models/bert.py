"""BERT: a Transformer encoder that reads a whole text at once and tells its class, or the words that are hidden in it.

Devlin et al. 2019, with two changes that let it learn from scratch on little data: norms before the blocks' insides
rather than after (Xiong et al. 2020), and the mean of all tokens in place of the first one's. Dropout, where it is
asked for, is of the embedding and of what each half of a block adds. No second kind of segment.

Shapes: B batch, T tokens, C width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.layers import attend
from thrifty.models.packed import Packed, Rows
from thrifty.models.words import Words

PADDING_ID = 0


class Attention(nn.Module):
    """Self-attention with queries, keys and values from one product; every token sees those that ``bias`` allows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} does not divide into {heads} heads"
        self.heads = heads
        self.ways: dict[str, str] = {}
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor, bias_B11T: Tensor | Rows) -> Tensor:
        qkv_BTKHD = self.qkv(x_BTC).unflatten(-1, (3, self.heads, -1))
        if isinstance(bias_B11T, Rows):
            packed_BTC: Tensor = self.proj(bias_B11T.attend(qkv_BTKHD.flatten(2, 3), self.heads, self.ways))
            return packed_BTC
        q_BHTD, k_BHTD, v_BHTD = qkv_BTKHD.permute(2, 0, 3, 1, 4).unbind(0)
        seen_BHTD = attend(q_BHTD, k_BHTD, v_BHTD, False, bias_B11T, ways=self.ways)
        out_BTC: Tensor = self.proj(seen_BHTD.transpose(1, 2).flatten(2))
        return out_BTC


class FeedForward(nn.Module):
    """Two products with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.proj(F.gelu(self.up(x_BTC)))
        return out_BTC


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, bias_B11T: Tensor | Rows) -> Tensor:
        x_BTC = x_BTC + self.drop(self.attention(self.norm_1(x_BTC), bias_B11T))
        out_BTC: Tensor = x_BTC + self.drop(self.mlp(self.norm_2(x_BTC)))
        return out_BTC


class BERT(nn.Module):
    """A reader of texts: int64 tokens [B, T] to logits [B, classes], or of the word at each place, [B, T, V].

    T is at most ``length``. Token 0 is padding: no token sees it, and it does not count in the mean. The logits of a
    text do not depend on how much of it follows. In training it takes `Packed` texts too.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest text.
        layers, width, heads: of the blocks.
        classes: of the answer; when left out, words are told.
        dropout: share of elements that are dropped in training.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        layers: int,
        width: int,
        heads: int,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.norm_0 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.fc = None if classes is None else nn.Linear(width, classes)
        self.words = Words(vocabulary, width) if classes is None else None

    def forward(self, tokens_BT: Tensor | Packed) -> Tensor:
        if isinstance(tokens_BT, Packed):
            return self._packed(tokens_BT)
        padding_BT = tokens_BT == PADDING_ID
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self.drop(self.norm_0(self.tokens(tokens_BT) + self.positions(positions_T)))
        bias_B11T = torch.zeros(padding_BT.shape, dtype=x_BTC.dtype, device=x_BTC.device)
        bias_B11T = bias_B11T.masked_fill(padding_BT, -math.inf)[:, None, None]
        for block in self.blocks:
            x_BTC = block(x_BTC, bias_B11T)
        x_BTC = self.norm(x_BTC)
        if self.fc is None:
            return self._words(x_BTC)
        logits: Tensor = self.fc(_mean(x_BTC, padding_BT))
        return logits

    def _packed(self, texts: Packed) -> Tensor:
        rows = Rows(texts, self.positions.weight.dtype)
        x_1TC = self.drop(self.norm_0(self.tokens(texts.tokens) + self.positions(rows.positions_1T)))
        for block in self.blocks:
            x_1TC = block(x_1TC, rows)
        x_1TC = self.norm(x_1TC)
        if self.fc is None:
            return self._words(x_1TC)
        logits: Tensor = self.fc(torch.cat(list(map(_mean, rows.spread(x_1TC), rows.hidden))))
        return logits

    def _words(self, x_BTC: Tensor) -> Tensor:
        assert self.words is not None
        logits_BTV: Tensor = self.words(x_BTC, self.tokens.weight)
        return logits_BTV


def _mean(x_BTC: Tensor, padding_BT: Tensor) -> Tensor:
    real_BT1 = (~padding_BT).to(x_BTC.dtype).unsqueeze(-1)
    return (x_BTC * real_BT1).sum(1) / real_BT1.sum(1)
