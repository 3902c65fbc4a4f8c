"""BERT as it was published: norms after the blocks' insides, and the first token's pooled state tells the class.

Devlin et al. 2019 and their code: two kinds of segment, a norm after each sum (epsilon 1e-12), exact GELU, a pooler
with a tanh. It takes the weights that others trained; from scratch on little data `thrifty.models.bert.BERT` learns
more. No dropout.

Shapes: B batch, T tokens, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from thrifty.models.bert import PADDING_ID, Attention, FeedForward
from thrifty.models.packed import Packed, Rows

EPSILON = 1e-12
SEGMENTS = 2


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream, which is normalised after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = FeedForward(width)
        self.norm_2 = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x_BTC: Tensor, bias_B11T: Tensor | Rows) -> Tensor:
        x_BTC = self.norm_1(x_BTC + self.attention(x_BTC, bias_B11T))
        out_BTC: Tensor = self.norm_2(x_BTC + self.mlp(x_BTC))
        return out_BTC


class OriginalBERT(nn.Module):
    """A classifier of texts: int64 tokens [B, T] to logits [B, classes]; T is at most ``length``.

    Token 0 is padding, which no token sees. All tokens are of the first segment. In training it takes `Packed` texts
    too.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest text.
        layers, width, heads: of the blocks.
        classes: of the answer.
    """

    def __init__(self, *, vocabulary: int, length: int, layers: int, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.segments = nn.Embedding(SEGMENTS, width)
        self.norm_0 = nn.LayerNorm(width, eps=EPSILON)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.pooler = nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens_BT: Tensor | Packed) -> Tensor:
        if isinstance(tokens_BT, Packed):
            return self._packed(tokens_BT)
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self._embedded(tokens_BT, positions_T)
        bias_BT = torch.zeros(tokens_BT.shape, dtype=x_BTC.dtype, device=x_BTC.device)
        bias_B11T = bias_BT.masked_fill(tokens_BT == PADDING_ID, -math.inf)[:, None, None]
        for block in self.blocks:
            x_BTC = block(x_BTC, bias_B11T)
        return self._classes(x_BTC[:, 0])

    def _packed(self, texts: Packed) -> Tensor:
        rows = Rows(texts, self.positions.weight.dtype)
        x_1TC = self._embedded(texts.tokens, rows.positions_1T)
        for block in self.blocks:
            x_1TC = block(x_1TC, rows)
        return self._classes(torch.cat([grid_NLC[:, 0] for grid_NLC in rows.spread(x_1TC)]))

    def _embedded(self, tokens_BT: Tensor, positions: Tensor) -> Tensor:
        x_BTC: Tensor = self.norm_0(self.tokens(tokens_BT) + self.positions(positions) + self.segments.weight[0])
        return x_BTC

    def _classes(self, first_BC: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.tanh(self.pooler(first_BC)))
        return logits
