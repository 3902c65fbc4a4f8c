"""wav2vec 2.0: convolutions over the raw wave, then a Transformer; tells a class, or tokens of a transcript.

Baevski et al. 2020 (arXiv 2006.11477), as `transformers` has it, whose weights fit: norms after the blocks' insides or
before them (``stable``), a convolution with weight norm (Salimans and Kingma 2016) for positions. What the first
convolution gives is normalised over time, in each channel (``group``), or all of them are across channels (``layer``).
Padding is left out of both, so a recording's answer depends neither on its batch nor on padding.

Shapes: B recordings, T frames, M samples of a frame, S samples, C channels, U frames after the convolutions, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.bert import Attention, FeedForward
from thrifty.models.speech import PADDING, ended

Norm = Literal["group", "layer"]


class OverTime(nn.GroupNorm):
    """A norm of each channel over the times that are there: a group norm of one channel a group, without padding."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x_BCU: Tensor, real_BU1: Tensor) -> Tensor:  # type: ignore[override]
        # narrower types cannot count so far
        count_B11 = real_BU1.sum(1, keepdim=True, dtype=torch.float32)
        centred_BCU = x_BCU - (x_BCU @ real_BU1 / count_B11).to(x_BCU.dtype)
        variance_BC1 = centred_BCU.square() @ real_BU1 / count_B11
        scale_BC1 = self.weight[:, None] * (variance_BC1 + self.eps).rsqrt()
        return centred_BCU * scale_BC1.to(x_BCU.dtype) + self.bias[:, None].to(x_BCU.dtype)


class Convolution(nn.Module):
    """A convolution along time, a norm or none, a GELU."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, *, bias: bool, norm: Norm | None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(ins, outs, kernel, stride=stride, bias=bias)
        self.norm = {"group": OverTime, "layer": nn.LayerNorm}[norm](outs) if norm else None

    def forward(self, x_BCU: Tensor, real_B: Tensor) -> Tensor:
        x_BCU = self.conv(x_BCU)
        if isinstance(self.norm, OverTime):
            x_BCU = self.norm(x_BCU, _there(real_B, x_BCU.shape[-1]).to(x_BCU.dtype).unsqueeze(-1))
        elif self.norm is not None:
            x_BCU = self.norm(x_BCU.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x_BCU)

    def whole(self, samples_B: Tensor) -> Tensor:
        """Return how many frames of so many samples are whole; of what is shorter than a window there is one."""
        (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
        return (torch.div(samples_B - kernel, stride, rounding_mode="floor") + 1).clamp(min=1)


class Positions(nn.Module):
    """A convolution that tells frames where they are; each place of its window has a length of its own, ``gain``."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.direction = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.gain = nn.Parameter(torch.empty(kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.direction, std=position_std(self))
        with torch.no_grad():
            self.gain.copy_(torch.linalg.vector_norm(self.direction, dim=(0, 1)))

    def forward(self, x_BUW: Tensor) -> Tensor:
        weight = self.direction * (self.gain / torch.linalg.vector_norm(self.direction, dim=(0, 1)))
        told_BWU = F.conv1d(x_BUW.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        # an even window has no middle, and gives one frame too many
        told_BWU = told_BWU[..., :-1] if self.kernel % 2 == 0 else told_BWU
        return F.gelu(told_BWU).transpose(1, 2)


def position_std(positions: Positions) -> float:
    """Deviation of the weights of a `Positions` at first, as its authors draw them: 2 / sqrt(window · channels)."""
    return 2 / math.sqrt(positions.kernel * positions.direction.shape[0])


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream, which is normalised after, or where ``stable`` before."""

    def __init__(self, width: int, heads: int, dropout: float, *, stable: bool) -> None:
        super().__init__()
        self.stable = stable
        self.attention = Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.norm_2 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BUW: Tensor, bias_B11U: Tensor) -> Tensor:
        if self.stable:
            x_BUW = x_BUW + self.drop(self.attention(self.norm_1(x_BUW), bias_B11U))
            return x_BUW + self.drop(self.mlp(self.norm_2(x_BUW)))
        x_BUW = self.norm_1(x_BUW + self.drop(self.attention(x_BUW, bias_B11U)))
        out_BUW: Tensor = self.norm_2(x_BUW + self.drop(self.mlp(x_BUW)))
        return out_BUW


class Wav2Vec2(nn.Module):
    """A reader of waves: float [B, T, M], of mean 0 and deviation 1, to logits.

    Samples of `PADDING` at the end are none. A classifier takes the mean of what is there, and returns [B, outputs]; a
    transcriber returns [B, U, outputs], where after the end only the blank, token 0, can be. Where a frame has as many
    samples as the strides of the convolutions together, U is T.

    Args:
        channels, kernels, strides: of the convolutions, as many of each.
        norm: of the first convolution over time (``group``), or of all across channels (``layer``).
        bias: convolutions have one.
        window, groups: of the convolution that tells positions.
        layers, width, heads: of the blocks.
        stable: norms come before the blocks' insides.
        projected: numbers that a classifier brings a frame to before their mean.
        outputs: classes, or tokens with the blank.
        transcribes: tokens by frame are wanted, not a class.
        dropout: share of elements that are dropped in training.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        norm: Norm,
        bias: bool,
        window: int,
        groups: int,
        layers: int,
        width: int,
        heads: int,
        stable: bool,
        projected: int,
        outputs: int,
        transcribes: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stable, self.window = stable, receptive(kernels, strides)
        sizes = zip([1, *channels[:-1]], channels, kernels, strides, strict=True)
        self.convolutions = nn.ModuleList(
            Convolution(*each, bias=bias, norm=norm if norm == "layer" or number == 0 else None)
            for number, each in enumerate(sizes)
        )
        self.norm_0 = nn.LayerNorm(channels[-1])
        self.join = nn.Linear(channels[-1], width)
        self.positions = Positions(width, window, groups)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, stable=stable) for _ in range(layers))
        self.projector = None if transcribes else nn.Linear(width, projected)
        self.fc = nn.Linear(width if transcribes else projected, outputs)

    def forward(self, x_BTM: Tensor) -> Tensor:
        # filled up so that one frame alone is a window of the convolutions
        wave_BS = F.pad(x_BTM.flatten(1), (0, max(0, self.window - x_BTM.shape[2])), value=PADDING)
        real_BS = wave_BS != PADDING
        real_B = real_BS.sum(1)
        x_BCU = wave_BS.masked_fill(~real_BS, 0.0).unsqueeze(1)
        for convolution in self.convolutions:
            assert isinstance(convolution, Convolution)
            real_B = convolution.whole(real_B)
            x_BCU = convolution(x_BCU, real_B)
        real_BU = _there(real_B, x_BCU.shape[-1])
        x_BUW = self.drop(self.join(self.norm_0(x_BCU.transpose(1, 2))))
        real_BU1 = real_BU.to(x_BUW.dtype).unsqueeze(-1)
        x_BUW = x_BUW * real_BU1
        x_BUW = x_BUW + self.positions(x_BUW)
        x_BUW = self.drop(x_BUW if self.stable else self.norm(x_BUW))
        bias_B11U = torch.zeros(real_BU.shape, dtype=x_BUW.dtype, device=x_BUW.device)
        bias_B11U = bias_B11U.masked_fill(~real_BU, -math.inf)[:, None, None]
        for block in self.blocks:
            x_BUW = block(x_BUW, bias_B11U)
        x_BUW = self.norm(x_BUW) if self.stable else x_BUW
        if self.projector is None:
            return ended(self.fc(self.drop(x_BUW)), real_BU)
        mean_BP = (self.projector(x_BUW) * real_BU1).sum(1) / real_BU1.sum(1)
        logits: Tensor = self.fc(mean_BP)
        return logits


def receptive(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many samples one frame after the convolutions sees.

    >>> receptive((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    400
    """
    return 1 + sum((kernel - 1) * math.prod(strides[:number]) for number, kernel in enumerate(kernels))


def _there(real_B: Tensor, frames: int) -> Tensor:
    """Say which frames are there, bool [B, U], of recordings of so many."""
    return torch.arange(frames, device=real_B.device) < real_B[:, None]
