"""The head that tells the word at each place of a text, by which a BERT learns from texts without labels.

Devlin et al. 2019, section 3.1, as their code has it: a layer, GELU and a norm, then the embedding, and a bias for each
word.

Shapes: C width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Words(nn.Module):
    """Hidden states [..., C] to logits [..., V] over the words of an embedding [V, C].

    Args:
        vocabulary, width: of the embedding.
        epsilon: of the norm.
    """

    def __init__(self, vocabulary: int, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, embedding_VC: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), embedding_VC, self.bias)
