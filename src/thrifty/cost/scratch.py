"""What libraries allocate that no fake result shows: oneDNN inside an operator on a CPU, cuDNN for recurrent layers.

Convolutions of plain layout are computed in a blocked one: the result's blocks live beside first the argument's, then
the result (which counts as such), and weights in an order of their own. A recurrent layer keeps its gates for the
backward pass. Measured with torch 2.13 on AVX512, convolutions on AMX too, by giving every block pages of its own
(MALLOC_MMAP_THRESHOLD_=65536) and reading the resident peak of each operator: 16 convolutions and 6 LSTMs.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

# Weights are copied into the order of the kernel, twice for a backward pass: for each gradient. In bf16 their gradient
# is summed in fp32 first.
_WEIGHT_COPIES = {torch.float32: 2, torch.bfloat16: 4}
# Bytes for each number of a recurrent layer's output: kept until its backward pass (in fp32 four gates, the state and
# the cell), beside that within the forward pass, and within the backward pass.
_KEPT = {torch.float32: 25, torch.bfloat16: 13}
_IN_FORWARD = {torch.float32: 16, torch.bfloat16: 0}
_IN_BACKWARD = {torch.float32: 34, torch.bfloat16: 21}

_PRODUCTS = frozenset(["mm", "addmm", "bmm", "baddbmm"])
_KEPT_BY_PRODUCT = 570 << 10
_KEPT_BY_CONVOLUTION = {"convolution": 80 << 10, "convolution_backward": 140 << 10}
_KEPT_BY_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": 100 << 10,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 9 << 20,
}

# Bytes that cuDNN keeps of an LSTM for its backward pass, for each byte of its output: five of each layer (gates and
# cells), and what goes from layer to layer. Exact to 256 bytes on 17 LSTMs with cuDNN 9 (torch 2.11) on an H200.
_CUDNN_KEPT, _CUDNN_BETWEEN = 5, 1


def scratch_bytes(name: str, args: Any, result_bytes: int) -> tuple[int, ...]:
    """Sizes of the blocks that live while an operator runs, in bytes; none for most.

    Args:
        name: of the operator in aten.
        args: its arguments, in the order of its schema.
        result_bytes: of its first result.
    """
    if name == "convolution":
        x, weight = args[:2]
        if _channels_last(x, weight):
            return (_bytes(weight),)
        return (max(_bytes(x), _wide(weight.dtype) * result_bytes), _bytes(weight))
    if name == "convolution_backward":
        grad, x, weight = args[:3]
        weights = _WEIGHT_COPIES.get(weight.dtype, 2) * _bytes(weight)
        if _channels_last(x, weight):
            return (weights,) if _channels_last(grad) else (_bytes(grad), weights)
        again = () if grad.is_contiguous() else (_bytes(grad),)
        rest = max(_bytes(x), _wide(weight.dtype) * _bytes(x) - _bytes(grad))
        return (*again, _bytes(grad), rest, weights)
    if name == "mkldnn_rnn_layer":
        return (result_bytes // args[0].element_size() * _IN_FORWARD.get(args[0].dtype, 0),)
    if name == "mkldnn_rnn_layer_backward":
        return (args[7].numel() * _IN_BACKWARD.get(args[0].dtype, 0),)
    return ()


def workspace_bytes(output: Tensor) -> int:
    """Bytes that a recurrent layer keeps for its backward pass beside its output [T, B, H], as far as they are used.

    What is allocated is 2.4 times as much in fp32; its pages are touched in the backward pass (`scratch_bytes`).
    """
    return output.numel() * _KEPT.get(output.dtype, 0)


def kept_bytes(name: str, dtype: torch.dtype) -> int:
    """Bytes that oneDNN keeps for each set of shapes that an operator is called with: kernels compiled for them.

    They come between the tensors of the first step and stay, so that they pin holes of the heap, too. Measured by
    mallinfo2 around first calls on AVX512 with AMX, torch 2.13: 38 products, 26 convolutions each way, 6 attentions.
    """
    if name in _PRODUCTS:
        return _KEPT_BY_PRODUCT if dtype == torch.bfloat16 and _bf16_by_onednn() else 0
    if name in _KEPT_BY_ATTENTION:
        return _KEPT_BY_ATTENTION[name] if dtype == torch.bfloat16 and _bf16_by_onednn() else 0
    return _KEPT_BY_CONVOLUTION.get(name, 0)


@functools.cache
def _bf16_by_onednn() -> bool:
    found: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return found


@functools.cache
def _wide(dtype: torch.dtype) -> int:
    """How many times as wide as the result its blocks are: AMX sums bf16 in fp32."""
    return 2 if dtype == torch.bfloat16 and torch.cpu.get_capabilities().get("amx_bf16") else 1


def _bytes(tensor: Tensor) -> int:
    # an expanded gradient is copied in full
    return math.prod(tensor.shape) * tensor.element_size()


def _channels_last(*tensors: Tensor) -> bool:
    return any(
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in tensors
    )


def cudnn_rnn(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, ...]:
    """Run cuDNN's recurrent layers on fake tensors, which know neither its packed weights nor what it keeps.

    Weights that lie apart are packed anew in each call.
    """
    x, weights, packed = args[0], args[1], args[3]
    if packed is None:
        packed = x.new_empty(sum(weight.numel() for weight in weights))
    output, hidden, cell, _, _ = func(*args[:3], packed, *args[4:], **kwargs)
    layers = args[9]
    times = _CUDNN_KEPT * layers + _CUDNN_BETWEEN * (layers - 1)
    kept = x.new_empty(times * _bytes(output) + 256, dtype=torch.uint8)
    return output, hidden, cell, kept, packed
