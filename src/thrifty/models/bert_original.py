"""BERT as it was published: norms after the blocks' insides; the first token's pooled state tells the class.

Devlin et al. 2019 and their code: two kinds of segment, a norm after each sum (epsilon 1e-12), exact GELU, a pooler
with a tanh. It takes the weights that others trained; from scratch on little data `thrifty.models.bert.BERT` learns
more.

Shapes: B batch, T tokens, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from thrifty.models.bert import PADDING_ID, Attention, FeedForward
from thrifty.models.packed import Packed, Rows
from thrifty.models.words import Words

EPSILON = 1e-12
SEGMENTS = 2


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream, which is normalised after."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = FeedForward(width)
        self.norm_2 = nn.LayerNorm(width, eps=EPSILON)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, bias_B11T: Tensor | Rows) -> Tensor:
        x_BTC = self.norm_1(x_BTC + self.drop(self.attention(x_BTC, bias_B11T)))
        out_BTC: Tensor = self.norm_2(x_BTC + self.drop(self.mlp(x_BTC)))
        return out_BTC


class OriginalBERT(nn.Module):
    """A reader of texts: int64 tokens [B, T] to logits [B, classes], or of the word at each place, [B, T, V].

    T is at most ``length``. Token 0 is padding, which no token sees. Of a pair, what follows the first separator is of
    the second segment; all other tokens are of the first. In training it takes `Packed` texts too.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest text.
        layers, width, heads: of the blocks.
        classes: of the answer; when left out, words are told.
        dropout: share of elements that are dropped in training.
        separator: the token that ends each text of a pair; all is of the first segment when left out.
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
        separator: int | None = None,
    ) -> None:
        super().__init__()
        self.length, self.vocabulary, self.separator = length, vocabulary, separator
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.segments = nn.Embedding(SEGMENTS, width)
        self.norm_0 = nn.LayerNorm(width, eps=EPSILON)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.pooler = None if classes is None else nn.Linear(width, width)
        self.fc = None if classes is None else nn.Linear(width, classes)
        self.words = Words(vocabulary, width, EPSILON) if classes is None else None

    def forward(self, tokens_BT: Tensor | Packed) -> Tensor:
        if isinstance(tokens_BT, Packed):
            return self._packed(tokens_BT)
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self._embedded(tokens_BT, positions_T, self._segments(tokens_BT))
        bias_BT = torch.zeros(tokens_BT.shape, dtype=x_BTC.dtype, device=x_BTC.device)
        bias_B11T = bias_BT.masked_fill(tokens_BT == PADDING_ID, -math.inf)[:, None, None]
        for block in self.blocks:
            x_BTC = block(x_BTC, bias_B11T)
        return self._words(x_BTC) if self.words is not None else self._classes(x_BTC[:, 0])

    def _packed(self, texts: Packed) -> Tensor:
        rows = Rows(texts, self.positions.weight.dtype)
        segments = self._segments(texts.tokens, rows.positions_1T)
        x_1TC = self._embedded(texts.tokens, rows.positions_1T, segments)
        for block in self.blocks:
            x_1TC = block(x_1TC, rows)
        if self.words is not None:
            return self._words(x_1TC)
        return self._classes(torch.cat([grid_NLC[:, 0] for grid_NLC in rows.spread(x_1TC)]))

    def _segments(self, tokens_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor:
        """What the segment of each token adds; ``positions_BT`` in its text where several are in a row."""
        if self.separator is None:
            return self.segments.weight[0]
        ends_BT = (tokens_BT == self.separator).long()
        before_BT = ends_BT.cumsum(1) - ends_BT
        if positions_BT is not None:
            places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
            before_BT = before_BT - before_BT.gather(1, places_T - positions_BT)
        segments_BTC: Tensor = self.segments(before_BT.clamp(max=1))
        return segments_BTC

    def _embedded(self, tokens_BT: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        x_BTC = self.tokens(tokens_BT) + self.positions(positions) + segments
        embedded_BTC: Tensor = self.drop(self.norm_0(x_BTC))
        return embedded_BTC

    def _classes(self, first_BC: Tensor) -> Tensor:
        assert self.pooler is not None and self.fc is not None
        logits_BK: Tensor = self.fc(self.drop(torch.tanh(self.pooler(first_BC))))
        return logits_BK

    def _words(self, x_BTC: Tensor) -> Tensor:
        assert self.words is not None
        logits_BTV: Tensor = self.words(x_BTC, self.tokens.weight)
        return logits_BTV
