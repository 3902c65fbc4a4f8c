"""Speech: convolutions over frames of sound, then blocks of attention and convolution; tells a class, or tokens.

A Conformer (Gulati et al. 2020) made small: convolutions of stride two bring four frames to one, a convolution along
time stands for positions (Mohamed et al. 2019), and a block has attention, a gated convolution and one feed-forward
rather than two. Norms look along the width alone, so a recording's answer depends neither on its batch nor on padding.

Shapes: B recordings, M numbers of a frame, T frames, U frames after the convolutions, C width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.bert import Attention, FeedForward
from thrifty.spec.sound import BANDS_STRIDE

# stands in every place of a frame that is none; frames of sound are within a few tens of zero
PADDING = -100.0
# the logit of all tokens but the blank where there is no sound: their probability is zero in float32
_NEVER = -1e4
BLANK = 0


class Mixing(nn.Module):
    """A gated convolution along time, a filter for each channel (Gulati et al. 2020, figure 2), with a layer norm."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.filter = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BUC: Tensor, real_BU1: Tensor) -> Tensor:
        gated_BUC = F.glu(self.gate(x_BUC), -1) * real_BU1
        mixed_BUC: Tensor = self.proj(F.silu(self.norm(_along(self.filter, gated_BUC))))
        return mixed_BUC


class Block(nn.Module):
    """Attention, convolution, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, kernel: int, drop: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mixing = Mixing(width, kernel)
        self.norm_3 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.drop = nn.Dropout(drop)

    def forward(self, x_BUC: Tensor, bias_B11U: Tensor, real_BU1: Tensor) -> Tensor:
        x_BUC = x_BUC + self.drop(self.attention(self.norm_1(x_BUC), bias_B11U))
        x_BUC = x_BUC + self.drop(self.mixing(self.norm_2(x_BUC), real_BU1))
        out_BUC: Tensor = x_BUC + self.drop(self.mlp(self.norm_3(x_BUC)))
        return out_BUC


class Speech(nn.Module):
    """A reader of sound: frames float [B, T, M], normalised, to logits.

    Frames of `PADDING` are none: no frame sees them. A classifier takes the mean of what is there, and returns
    [B, outputs]; a transcriber returns [B, U, outputs], U a quarter of T, where after the end only the blank, token 0,
    can be.

    Args:
        bands: numbers of a frame.
        channels: of the first convolutions.
        layers, width, heads: of the blocks.
        kernel: frames that the convolution of a block sees.
        outputs: classes, or tokens with the blank.
        transcribes: tokens by frame are wanted, not a class.
        drop: share of what blocks add that is left out in training (Srivastava et al. 2014).
    """

    def __init__(
        self,
        *,
        bands: int,
        channels: int,
        layers: int,
        width: int,
        heads: int,
        kernel: int,
        outputs: int,
        transcribes: bool,
        drop: float,
    ) -> None:
        super().__init__()
        self.transcribes = transcribes
        self.conv_1 = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.conv_2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.join = nn.Linear(channels * -(-bands // BANDS_STRIDE), width)
        self.norm_0 = nn.LayerNorm(width)
        self.positions = nn.Conv1d(width, width, 15, padding=7, groups=width)
        self.drop = nn.Dropout(drop)
        self.blocks = nn.ModuleList(Block(width, heads, kernel, drop) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, outputs)

    def forward(self, x_BTM: Tensor) -> Tensor:
        real_BT = x_BTM[..., 0] != PADDING
        x_BTM = x_BTM.masked_fill(~real_BT.unsqueeze(-1), 0.0)
        # a frame after a stride of two is centred on every second one, and is real where that is
        real_BT, real_BU = real_BT[:, ::2], real_BT[:, ::BANDS_STRIDE]
        maps_BCTM = F.gelu(self.conv_1(x_BTM.unsqueeze(1))) * real_BT[:, None, :, None]
        maps_BCUM = F.gelu(self.conv_2(maps_BCTM))
        real_BU1 = real_BU.to(maps_BCUM.dtype).unsqueeze(-1)
        x_BUC = self.norm_0(self.join(maps_BCUM.transpose(1, 2).flatten(2))) * real_BU1
        x_BUC = self.drop(x_BUC + F.gelu(_along(self.positions, x_BUC)))
        bias_B11U = torch.zeros(real_BU.shape, dtype=x_BUC.dtype, device=x_BUC.device)
        bias_B11U = bias_B11U.masked_fill(~real_BU, -math.inf)[:, None, None]
        for block in self.blocks:
            x_BUC = block(x_BUC, bias_B11U, real_BU1)
        x_BUC = self.norm(x_BUC)
        if self.transcribes:
            return ended(self.fc(x_BUC), real_BU)
        mean_BC = (x_BUC * real_BU1).sum(1) / real_BU1.sum(1)
        logits: Tensor = self.fc(self.drop(mean_BC))
        return logits


def _along(filters: nn.Module, x_BUC: Tensor) -> Tensor:
    """Apply filters along time."""
    filtered_BCU: Tensor = filters(x_BUC.transpose(1, 2))
    return filtered_BCU.transpose(1, 2)


def ended(logits_BUV: Tensor, real_BU: Tensor) -> Tensor:
    """After the end the blank alone: the probability of a transcript is that of its own frames, whatever follows."""
    never_V = torch.full_like(logits_BUV[0, 0], _NEVER)
    never_V = torch.where(torch.arange(len(never_V), device=never_V.device) == BLANK, 0.0, never_V)
    return torch.where(real_BU.unsqueeze(-1), logits_BUV, never_V.to(logits_BUV.dtype))
