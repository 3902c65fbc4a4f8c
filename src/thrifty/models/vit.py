"""ViT: an image cut into patches, read as tokens by a Transformer encoder; one more token tells the class.

Dosovitskiy et al. 2021, "An image is worth 16x16 words": norms before the blocks' insides, learned positions, exact
GELU, the class read from a learned first token by one linear layer. Norms add 1e-12 to the variance, as those of
`transformers` do, whose weights fit. No dropout.

Shapes: B batch, C channels, S side, T tokens, W width, K one of query, key and value, H heads, D width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.layers import attend

NORM_EPS = 1e-12


class Attention(nn.Module):
    """Self-attention with queries, keys and values from one product; every token sees every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} does not divide into {heads} heads"
        self.heads = heads
        self.ways: dict[str, str] = {}
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        qkv_BTKHD = self.qkv(x_BTW).unflatten(-1, (3, self.heads, -1))
        q_BHTD, k_BHTD, v_BHTD = qkv_BTKHD.permute(2, 0, 3, 1, 4).unbind(0)
        seen_BHTD = attend(q_BHTD, k_BHTD, v_BHTD, False, ways=self.ways)
        out_BTW: Tensor = self.proj(seen_BHTD.transpose(1, 2).flatten(2))
        return out_BTW


class FeedForward(nn.Module):
    """Two products with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        out_BTW: Tensor = self.proj(F.gelu(self.up(x_BTW)))
        return out_BTW


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = FeedForward(width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_BTW = x_BTW + self.attention(self.norm_1(x_BTW))
        return x_BTW + self.mlp(self.norm_2(x_BTW))


class ViT(nn.Module):
    """Float images [B, C, S, S] to logits [B, classes].

    Args:
        patch: side of a patch in pixels; it divides ``side``.
        layers, width, heads: of the blocks.
        channels, side: of the images.
        classes: of the answer.
    """

    def __init__(
        self, *, patch: int, layers: int, width: int, heads: int, channels: int, side: int, classes: int
    ) -> None:
        super().__init__()
        assert side % patch == 0, f"a side of {side} does not divide into patches of {patch}"
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.first = nn.Embedding(1, width)
        self.positions = nn.Embedding((side // patch) ** 2 + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc = nn.Linear(width, classes)

    def forward(self, x_BCSS: Tensor) -> Tensor:
        x_BTW = self.patches(x_BCSS).flatten(2).transpose(1, 2)
        first_B1W = self.first.weight.expand(x_BTW.shape[0], 1, -1)
        x_BTW = torch.cat((first_B1W, x_BTW), dim=1) + self.positions.weight
        for block in self.blocks:
            x_BTW = block(x_BTW)
        logits: Tensor = self.fc(self.norm(x_BTW[:, 0]))
        return logits
