"""Linear layers in whole numbers of eight bits: weights by output, rows as they come; for a model that only writes.

Applied from outside: ``small = quantised(model)``. The model that is given keeps its own weights and stays as it was.

Shapes: R rows, C inputs, O outputs, B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from thrifty.models.gpt import GPT, FeedForward
from thrifty.models.layers import Apart, Past
from thrifty.models.llama import Llama
from thrifty.models.reordered import can_reorder

LARGEST = 127
# that the kernel takes rows by: they are whole numbers from 1 to 255, of which this is their zero
_ZERO = 128
# largest number of a row of zeros
_LEAST = 1e-30
# rows the layout is made for; other numbers of rows are computed as well
_ROWS = 16


def rounded(weight_OC: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights to whole numbers from -127 to 127 times a scale of each output: int8 [O, C] and float32 [O].

    >>> whole, scale = rounded(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
    >>> whole.tolist(), round(float(scale[0]) * 127, 6)
    ([[64, -127], [0, 0]], 1.0)
    """
    weight_OC = weight_OC.detach().float()
    scale_O = weight_OC.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
    return (weight_OC / scale_O[:, None]).round().to(torch.int8), scale_O


class Quantised(nn.Module):
    """A linear layer, [..., C] to [..., O], of int8 weights, that rounds each row to int8 by the row's largest number.

    What a row gives depends on it alone: its scale is its own, and sums of whole numbers are exact in any order.

    Args:
        weight_OC: to round; whole numbers times a scale stay what they are.
        bias_O: added in float32.
        dtype: of what it gives.
    """

    def __init__(self, weight_OC: Tensor, bias_O: Tensor | None = None, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._whole, self._scale = rounded(weight_OC)
        self._dtype, outputs = dtype, len(weight_OC)
        self._bias = None if bias_O is None else bias_O.detach().float()
        # what the zero of rows adds to each output
        self._offset = -_ZERO * self._whole.sum(1, dtype=torch.int64).double().mul(self._scale.double()).float()
        self._zeros = torch.zeros(outputs, dtype=torch.int32)
        self._has_kernel, self._laid = has_kernel(), cast("Tensor | None", None)

    def forward(self, x: Tensor) -> Tensor:
        rows_RC = x.reshape(-1, x.shape[-1]).float()
        scale_R1 = rows_RC.abs().amax(-1, keepdim=True).clamp_min_(_LEAST).div_(LARGEST)
        whole_RC = (rows_RC / scale_R1).round_().to(torch.int8)
        product_RO = self._product(whole_RC)
        scaled = product_RO.mul_(scale_R1) if self._bias is None else torch.addcmul(self._bias, product_RO, scale_R1)
        return scaled.to(self._dtype).view(*x.shape[:-1], -1)

    def _product(self, whole_RC: Tensor) -> Tensor:
        """Rows of whole numbers, which are changed, times the weights, float32 [R, O]."""
        if not self._has_kernel:
            return torch._int_mm(whole_RC, self._whole.T).float().mul_(self._scale)
        if self._laid is None:
            self._laid = torch.ops.onednn.qlinear_prepack(self._whole, [_ROWS, self._whole.shape[1]])
        # by 128, for which a turned sign bit does; torch has no quick way from floats to uint8
        raised_RC = whole_RC.view(torch.uint8).bitwise_xor_(_ZERO)
        found_RO: Tensor = torch.ops.onednn.qlinear_pointwise(
            raised_RC, 1.0, 0, self._laid, self._scale, self._zeros, self._offset, 1.0, 0, torch.float32, "none", [], ""
        )
        return found_RO


def has_kernel() -> bool:
    """Say whether this build of torch multiplies whole numbers by oneDNN's kernels."""
    return hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.backends.mkldnn.is_available()


class QuantisedDecoder(nn.Module):
    """A GPT or Llama whose linear layers and head are `Quantised`; called as it is, for inference alone.

    Attributes:
        length, vocabulary: of the model.
        head: last hidden states [..., C] to logits [..., V].
    """

    def __init__(self, decoder: nn.Module, head: Quantised, *, length: int, vocabulary: int) -> None:
        super().__init__()
        self.decoder, self.head = decoder, head
        self.length, self.vocabulary = length, vocabulary

    def pasts(self, room: int) -> list[Past]:
        """Return what remembers up to so many tokens for the blocks, with nothing read yet."""
        found: list[Past] = self.decoder.pasts(room)  # type: ignore[operator]
        return found

    def forward(
        self, tokens_BT: Tensor, pasts: Sequence[Past | Apart] | None = None, *, hidden: bool = False
    ) -> Tensor:
        """Return logits; or, when ``hidden``, what the head is applied to [B, T, C]."""
        x_BTC: Tensor = self.decoder(tokens_BT, pasts, hidden=True)
        return x_BTC if hidden else self.head(x_BTC)


def quantised(model: nn.Module) -> QuantisedDecoder:
    """Return a GPT or Llama of the same weights, rounded, all else in bf16 where this processor multiplies that."""
    assert isinstance(model, GPT | Llama), f"{type(model).__name__} has no form in int8 here"
    rest = torch.bfloat16 if can_reorder(torch.zeros(1, 1, dtype=torch.bfloat16)) else torch.float32
    head = Quantised(model.head_weight)
    twin = copy.deepcopy(_with_layers(model, rest)).to(rest)
    found = QuantisedDecoder(twin, head, length=model.length, vocabulary=model.vocabulary)
    return found.eval().requires_grad_(False)


def _with_layers(model: nn.Module, rest: torch.dtype) -> nn.Module:
    if type(model) is nn.Linear:
        return Quantised(model.weight, model.bias, dtype=rest)
    if type(model) is FeedForward and type(model.c_fc) is nn.Linear:
        inner = Quantised(model.c_fc.weight, model.c_fc.bias)
        return nn.Sequential(inner, nn.GELU(approximate="tanh"), _with_layers(model.c_proj, rest))
    twin = copy.copy(model)
    twin._modules = {name: None if each is None else _with_layers(each, rest) for name, each in model._modules.items()}
    return twin


def whole_names(model: nn.Module) -> set[str]:
    """Return the names of a GPT's or Llama's weights that are rounded to whole numbers."""
    assert isinstance(model, GPT | Llama), f"{type(model).__name__} has no form in int8 here"
    layers = {f"{name}.weight" for name, each in model.named_modules() if type(each) is nn.Linear}
    return layers | {name for name, each in model.named_parameters() if each is model.head_weight}
