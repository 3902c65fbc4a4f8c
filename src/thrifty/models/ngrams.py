"""A bag of n-grams: the vectors of all runs of tokens in a text are averaged, and the average tells its class.

Joulin et al. 2016 (fastText): runs are hashed into a table of fixed size, and those that meet in a row share it. Over
characters, runs of up to six hold parts of words, words and pairs of short ones, which tells feelings in small data
sets better than attention learns to, in a hundredth of the work. In training whole runs are dropped, so that no text is
known by one of them (Iyyer et al. 2015), and then elements of the average.

Shapes: B batch, T tokens, G runs of all lengths, C width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING_ID = 0
# a prime above any vocabulary's square root: runs of other tokens, or in another order, have other numbers
BASE = 1_000_003


class NGrams(nn.Module):
    """A classifier of texts: int64 tokens [B, T] to logits [B, classes].

    Token 0 is padding: no run holds it. The logits of a text do not depend on how much of it follows.

    Args:
        longest: tokens of the longest runs.
        buckets: rows of the table; a prime spreads the runs.
        width: of each row.
        power: of the number of runs that their sum is divided by: 1 for the mean; at 0.5 long texts weigh more.
        gain: how many times that counts. Adam moves each weight by its rate, and a run is seen in few steps: it learns
            as with a higher rate of its own.
        classes: of the answer.
        dropout: share of runs, and of elements of the average, that are dropped in training.
    """

    def __init__(
        self, *, longest: int, buckets: int, width: int, power: float, gain: float, classes: int, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.longest, self.buckets, self.power, self.gain = longest, buckets, power, gain
        self.runs = nn.Embedding(buckets, width)
        self.hide = nn.Dropout(dropout)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        rows_BG, real_BG = self._rows(tokens_BT)
        kept_BG1 = self.hide(real_BG.to(self.runs.weight.dtype)).unsqueeze(-1)
        sum_BC = (self.runs(rows_BG) * kept_BG1).sum(1)
        # where all are dropped the sum is zero
        average_BC = sum_BC * (self.gain / kept_BG1.sum(1).clamp_min(1) ** self.power)
        logits: Tensor = self.fc(self.drop(average_BC))
        return logits

    def _rows(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row of each run, by length and then by where it begins, and whether it is one."""
        length = tokens_BT.shape[1]
        padded = F.pad(tokens_BT, (0, self.longest - 1), value=PADDING_ID)
        hash_BT = torch.zeros_like(tokens_BT)
        rows, real = [], []
        for place in range(self.longest):
            next_BT = padded[:, place : place + length]
            hash_BT = self._appended(hash_BT, next_BT + 1)
            rows.append(hash_BT)
            real.append(next_BT != PADDING_ID)
        return torch.cat(rows, 1), torch.cat(real, 1)

    def _appended(self, hash_BT: Tensor, next_BT: Tensor) -> Tensor:
        """Return ``hash * BASE + next`` modulo ``buckets``.

        What is exported takes it in steps that stay right in 32 bits with a division that rounds as floats do, for so
        OpenVINO computes int64 (2026.4).
        """
        if not torch.compiler.is_exporting():
            return (hash_BT * BASE + next_BT) % self.buckets
        part = 1 << (self.buckets.bit_length() + 1) // 2
        high, low = divmod(BASE % self.buckets, part)
        return self._rest(self._rest(hash_BT * high) * part + hash_BT * low + next_BT)

    def _rest(self, number: Tensor) -> Tensor:
        """Return the remainder by ``buckets`` of a number whose quotient may come out one off."""
        rest = number - torch.div(number, self.buckets, rounding_mode="floor") * self.buckets
        rest = torch.where(rest < 0, rest + self.buckets, rest)
        return torch.where(rest >= self.buckets, rest - self.buckets, rest)
