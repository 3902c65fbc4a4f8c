"""Convolutions whose products are computed by torch's own, or by columns, as was measured to be faster.

A convolution trains by three products: its result, the gradient of its input, and that of its weight. By columns the
windows of the input are laid side by side, a row for each pixel of the result, and one matrix product does the rest.
That copies the input once for each place of the window, and pays where images have become small: of 512 channels of
4 x 4 pixels oneDNN computes the weight's gradient in 41 ms, one product in 11 (128 images in bf16, 2 cores with AMX,
torch 2.13).

Shapes: B batch, C channels, H height, W width of the input; O channels, Y height, X width of the result; K x L places
of a window. Tensors lie channels last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Literal["forward", "input", "weight"]
PRODUCTS: tuple[Product, ...] = ("forward", "input", "weight")
Pair = tuple[int, int]

_LAST = torch.channels_last


def columns(x_BCHW: Tensor, size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Lay the windows of an input side by side: [B·Y·X, K·L·C]."""
    (places, across), (down, right), (top, left) = size, stride, padding
    x_BHWC = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    batch, height, width, channels = x_BHWC.shape
    of_sample, of_row, of_pixel, of_channel = x_BHWC.stride()
    rows, wide = (height - places) // down + 1, (width - across) // right + 1
    windows = x_BHWC.as_strided(
        (batch, rows, wide, places, across, channels),
        (of_sample, of_row * down, of_pixel * right, of_row, of_pixel, of_channel),
        x_BHWC.storage_offset(),
    )
    return windows.reshape(batch * rows * wide, places * across * channels)


def result(x_BCHW: Tensor, weight_OCKL: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Convolve by columns: [B, O, Y, X]."""
    outputs, _, places, across = weight_OCKL.shape
    rows = (x_BCHW.shape[2] + 2 * padding[0] - places) // stride[0] + 1
    product = columns(x_BCHW, (places, across), stride, padding) @ _flat(weight_OCKL).t()
    return product.view(x_BCHW.shape[0], rows, -1, outputs).permute(0, 3, 1, 2)


def input_gradient(grad_BOYX: Tensor, x_BCHW: Tensor, weight_OCKL: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Compute the gradient of the input by columns: what each window gives is added up in float32 at the least."""
    batch, channels, height, width = x_BCHW.shape
    _, _, places, across = weight_OCKL.shape
    (down, right), (top, left) = stride, padding
    rows, wide = grad_BOYX.shape[2:]
    windows = (_pixels(grad_BOYX) @ _flat(weight_OCKL)).view(batch, rows, wide, places, across, channels)
    dtype = torch.promote_types(grad_BOYX.dtype, torch.float32)
    sum_BHWC = torch.zeros(batch, height + 2 * top, width + 2 * left, channels, dtype=dtype, device=x_BCHW.device)
    for place in range(places):
        for aside in range(across):
            pixels = sum_BHWC[:, place : place + down * rows : down, aside : aside + right * wide : right]
            pixels += windows[:, :, :, place, aside]
    inner = sum_BHWC[:, top : top + height, left : left + width]
    return inner.to(grad_BOYX.dtype).permute(0, 3, 1, 2)


def weight_gradient(grad_BOYX: Tensor, x_BCHW: Tensor, weight_OCKL: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Compute the gradient of the weight by columns: [O, C, K, L]."""
    outputs, channels, places, across = weight_OCKL.shape
    product = _pixels(grad_BOYX).t() @ columns(x_BCHW, (places, across), stride, padding)
    return product.view(outputs, places, across, channels).permute(0, 3, 1, 2)


def torch_gradients(
    grad_BOYX: Tensor, x_BCHW: Tensor, weight_OCKL: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of input and weight, as far as wanted, by torch's own."""
    if not any(wanted):
        return None, None
    found = torch.ops.aten.convolution_backward(
        grad_BOYX, x_BCHW, weight_OCKL, None, stride, padding, (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    return found[0], found[1]


class _ByColumns(torch.autograd.Function):
    """A convolution without bias, some of its products by columns."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_OCKL: Tensor, stride: Pair, padding: Pair, by: Collection[str]
    ) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_OCKL)
        ctx.how = stride, padding, by
        if "forward" in by:
            return result(x_BCHW, weight_OCKL, stride, padding)
        return F.conv2d(x_BCHW, weight_OCKL, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, by = ctx.how
        grad = grads[0].contiguous(memory_format=_LAST)
        of_input, of_weight = ctx.needs_input_grad[:2]
        wanted = of_input and "input" not in by, of_weight and "weight" not in by
        for_input, for_weight = torch_gradients(grad, x, weight, stride, padding, wanted)
        if of_input and "input" in by:
            for_input = input_gradient(grad, x, weight, stride, padding)
        if of_weight and "weight" in by:
            for_weight = weight_gradient(grad, x, weight, stride, padding)
        return for_input, for_weight, None, None, None


class Convolution(nn.Conv2d):
    """A `torch.nn.Conv2d` that trains by what ``ways`` has for its `geometry`; it evaluates as torch's own."""

    ways: Mapping[str, tuple[str, ...]]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and x_BCHW.is_contiguous(memory_format=_LAST):
            kind = x_BCHW.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_BCHW.dtype
            if by := self.ways.get(geometry(self, x_BCHW.shape[2:], dtype)):
                x_BCHW, weight_OCKL = x_BCHW.to(dtype), self.weight.to(dtype, memory_format=_LAST)
                y_BOYX: Tensor = _ByColumns.apply(x_BCHW, weight_OCKL, self.stride, self.padding, by)
                return y_BOYX if self.bias is None else y_BOYX + self.bias.to(dtype)[:, None, None]
        return super().forward(x_BCHW)


def geometry(module: nn.Conv2d, size: Collection[int], dtype: torch.dtype) -> str:
    """What the ways of a convolution are told apart by, but for the samples of a batch.

    Args:
        module: the convolution.
        size: H and W of its input.
        dtype: that it computes in.

    >>> geometry(nn.Conv2d(3, 8, 3, padding=1), (32, 32), torch.bfloat16)
    '3x32x32 to 8 by 3x3, stride 1x1, padding 1x1, bfloat16'
    """
    sizes = (
        f"{module.in_channels}x{'x'.join(map(str, size))} to {module.out_channels} by "
        f"{'x'.join(map(str, module.kernel_size))}, stride {'x'.join(map(str, module.stride))}"
    )
    padding = "x".join(map(str, module.padding))
    return f"{sizes}, padding {padding}, {str(dtype).removeprefix('torch.')}"


def has_ways(module: nn.Module) -> bool:
    """Whether a module is a convolution that can be computed by columns: torch's own, plain, of images."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module) in {nn.Conv2d, Convolution}
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def use_convolution(model: nn.Module, ways: Mapping[str, tuple[str, ...]]) -> nn.Module:
    """Have a model's convolutions train by these products by columns, by `geometry`; returns the model."""
    for module in model.modules():
        if has_ways(module):
            module.__class__ = Convolution if ways else nn.Conv2d
            if ways:
                module.ways = ways  # type: ignore[assignment]
    return model


def _flat(weight_OCKL: Tensor) -> Tensor:
    """[O, K·L·C]."""
    return weight_OCKL.permute(0, 2, 3, 1).reshape(weight_OCKL.shape[0], -1)


def _pixels(grad_BOYX: Tensor) -> Tensor:
    """[B·Y·X, O]."""
    return grad_BOYX.permute(0, 2, 3, 1).reshape(-1, grad_BOYX.shape[1])
