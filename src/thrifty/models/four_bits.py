"""A linear layer that never changes, its weights kept in four bits each and unpacked for every product.

NormalFloat of Dettmers et al. 2023 (QLoRA, arXiv 2305.14314, section 3): each block of 64 weights is kept as its
largest size and sixteen levels, which are quantiles of a normal distribution. Theirs pack the sizes of blocks once
more; here they stay in 32 bits, half a bit a weight. It is plain torch: it runs, is traced and priced, on any device.

Shapes: O outputs, I inputs, B blocks of 64 weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64
# appendix E
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class FourBits(nn.Module):
    """What stands for a linear layer, of torch or transformers (`Conv1D`, whose weights lie as [I, O]).

    Attributes:
        packed: uint8 [B, 32], two weights in each.
        sizes: float32 [B], the largest of each block.
        bias: the layer's own.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        packed, sizes = pack(layer.weight)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.sizes = nn.Parameter(sizes, requires_grad=False)
        self.bias: nn.Parameter | None = layer.bias
        self.register_buffer("pairs", _pairs(layer.weight.device), persistent=False)
        self._shape, self._turned = tuple(layer.weight.shape), not isinstance(layer, nn.Linear)
        layer.weight = nn.Parameter(torch.empty(self._shape, device="meta"), requires_grad=False)
        self._layer = (layer,)  # in a tuple: no module of this one

    @property
    def weight(self) -> Tensor:
        """The weights as the layer has them, float32."""
        return self.unpacked(torch.float32)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """Return the weights in a type."""
        assert isinstance(self.pairs, Tensor)
        blocks = F.embedding(self.packed.int(), self.pairs.to(dtype)).flatten(1) * self.sizes[:, None].to(dtype)
        count = self._shape[0] * self._shape[1]
        return blocks.flatten()[:count].view(self._shape)

    def plain(self) -> Any:
        """Give the layer its weights back, as they were unpacked, and return it."""
        (layer,) = self._layer
        layer.weight = nn.Parameter(self.weight.detach(), requires_grad=False)
        layer.bias = self.bias
        return layer

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        out: Tensor = _Product.apply(x, self)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def rows(self, dtype: torch.dtype) -> Tensor:
        """Return the weights in a type, as [O, I]."""
        weight = self.unpacked(dtype)
        return weight.t() if self._turned else weight


class _Product(torch.autograd.Function):
    """A product that keeps nothing for the backward pass: the weights are unpacked again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FourBits) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.rows(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.rows(gradient.dtype), None


@torch.no_grad()
def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pack weights of any shape into uint8 [B, 32] and the sizes of their blocks, float32 [B].

    >>> packed, sizes = pack(torch.ones(3, 50))
    >>> packed.shape, sizes.shape
    (torch.Size([3, 32]), torch.Size([3]))
    """
    blocks = F.pad(weight.detach().float().flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    sizes = blocks.abs().amax(1)
    levels = torch.tensor(LEVELS, device=weight.device)
    shares = blocks / sizes.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    nearest = torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8)
    return nearest[:, 0::2] * 16 + nearest[:, 1::2], sizes


def _pairs(device: torch.device) -> Tensor:
    """The two levels of each byte, float32 [256, 2]."""
    levels = torch.tensor(LEVELS, device=device)
    return torch.stack((levels.repeat_interleave(16), levels.repeat(16)), 1)
