"""A network for rows of tables: piecewise-linear embeddings of numbers, lookups of codes, several members in one trunk.

Numbers are embedded piece by piece between quantiles (Gorishniy et al. 2022, arXiv 2203.05556, "PLE"). Each member sees
the row through scales of its own, all pass the same layers, and each has its own head: an ensemble for little more than
the weights of one ("TabM-mini", Gorishniy et al. 2024, arXiv 2410.24210).

Shapes: B rows, N numbers and C codes of a row, P pieces, E width of an embedding, D = (N + C) E, K members, H hidden
width, O outputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIECE_STD, LINE_STD, VIEW_STD = 0.05, 0.6, 0.5


class Pieces(nn.Module):
    """Numbers [B, N] in 0..1 to [B, N, E]: a line of many pieces and a straight one, of each number its own.

    The numbers say where a value stands among quantiles, so that a piece lies between two of them. No ReLU follows, as
    in "PLE" without one (Gorishniy et al. 2022, section 3.1).
    """

    def __init__(self, numbers: int, pieces: int, width: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.pieces_NPE = nn.Parameter(PIECE_STD * torch.randn(numbers, pieces, width))
        self.line_NE = nn.Parameter(LINE_STD * torch.randn(numbers, width))
        self.bias_NE = nn.Parameter(torch.zeros(numbers, width))

    def forward(self, x_BN: Tensor) -> Tensor:
        starts_P = torch.arange(self.pieces, device=x_BN.device, dtype=x_BN.dtype)
        passed_NBP = (self.pieces * x_BN.t()[..., None] - starts_P).clamp(0, 1)
        pieces_BNE = torch.bmm(passed_NBP, self.pieces_NPE).transpose(0, 1)
        # of unit variance where quantiles are
        line_BNE = math.sqrt(12) * (x_BN - 0.5)[..., None] * self.line_NE
        return pieces_BNE + line_BNE + self.bias_NE


class TableMLP(nn.Module):
    """Rows float32 [B, N + C], as `thrifty.spec.Table` has them, to [B, O]: logits, or one number.

    While training the answers of all members are returned, [B, K, O], for each to learn by itself; else the logits of
    their mean probabilities, or their mean.

    Args:
        numbers, codes: of a row, N and C.
        vocabulary: values of all codes; 0, of what is not known, has an embedding of zeros.
        outputs: classes, or 1 for a number.
        members: K.
        pieces, embedding: P and E.
        widths: of the hidden layers.
        dropout: rate after each of them.
    """

    def __init__(
        self,
        *,
        numbers: int,
        codes: int,
        vocabulary: int,
        outputs: int,
        members: int,
        pieces: int,
        embedding: int,
        widths: list[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.numbers = numbers
        self.numbers_in = Pieces(numbers, pieces, embedding) if numbers else None
        self.lookup = nn.Embedding(vocabulary, embedding, padding_idx=0) if codes else None
        width = (numbers + codes) * embedding
        self.views_KD = nn.Parameter(1 + VIEW_STD * torch.randn(members, width))
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.dropout = nn.Dropout(dropout)
        self.head_KHO = nn.Parameter(torch.randn(members, widths[-1], outputs) / math.sqrt(3 * widths[-1]))
        self.head_bias_KO = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x_BF: Tensor) -> Tensor:
        parts = []
        if self.numbers_in is not None:
            parts.append(self.numbers_in(x_BF[:, : self.numbers]).flatten(1))
        if self.lookup is not None:
            parts.append(self.lookup(x_BF[:, self.numbers :].long()).flatten(1))
        x_BKD = torch.cat(parts, 1)[:, None] * self.views_KD
        for layer in self.hidden:
            x_BKD = self.dropout(F.relu(layer(x_BKD)))
        out_KBO = torch.baddbmm(self.head_bias_KO[:, None], x_BKD.transpose(0, 1), self.head_KHO)
        out_BKO = out_KBO.transpose(0, 1)
        return out_BKO if self.training else _together(out_BKO.float())


def _together(out_BKO: Tensor) -> Tensor:
    """What the members say together."""
    if out_BKO.shape[-1] == 1:
        return out_BKO.mean(1)
    return out_BKO.log_softmax(-1).logsumexp(1) - math.log(out_BKO.shape[1])
