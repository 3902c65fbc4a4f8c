"""What one operator does: its kind, its FLOPs by closed form, and the bytes it must read and write."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import conv_flop_count, flop_registry

from thrifty.hardware.signature import ALLOCATIONS, tensors_in, touched_bytes, traffic, written_in_place

__all__ = [
    "ALLOCATIONS",
    "KIND_OF",
    "flops_of",
    "has_formula",
    "kind_of",
    "tensors_in",
    "touched_bytes",
    "traffic",
    "unpriceable",
    "written_in_place",
]

aten = torch.ops.aten

_ATTENTION = tuple(
    f"_scaled_dot_product_{kernel}_attention{where}"
    for kernel, where in (("flash", "_for_cpu"), ("flash", ""), ("efficient", ""), ("cudnn", ""))
)
# Operators by kind, as time is priced by it. What is not named here goes by its tag (pointwise, reduction), or `other`.
_NAMES = {
    "matmul": "mm addmm bmm baddbmm addbmm addmv mv dot _scaled_mm mkldnn_rnn_layer mkldnn_rnn_layer_backward "
    "_cudnn_rnn _cudnn_rnn_backward linalg_qr _linalg_eigh",
    "convolution": "convolution _convolution convolution_overrideable _slow_conv2d_forward convolution_backward",
    "attention": " ".join(f"{name} {name}_backward" for name in _ATTENTION),
    "batch_norm": "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "native_batch_norm_backward _batch_norm_with_update batch_norm_backward "
    "cudnn_batch_norm cudnn_batch_norm_backward",
    "layer_norm": "native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward "
    "_fused_rms_norm _fused_rms_norm_backward",
    "softmax": "_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data logsumexp nll_loss_forward "
    "nll_loss_backward nll_loss2d_forward nll_loss2d_backward",
    "gather": "embedding embedding_dense_backward index index_select index_put index_put_ _index_put_impl_ gather "
    "scatter scatter_add scatter_add_ index_add index_add_ take",
    "random": "native_dropout bernoulli bernoulli_ random_ uniform_ normal_ rand randn rand_like randn_like randint "
    "randperm",
    "pool": "max_pool2d_with_indices max_pool2d_with_indices_backward avg_pool2d avg_pool2d_backward "
    "_adaptive_avg_pool2d _adaptive_avg_pool2d_backward max_pool3d_with_indices avg_pool3d",
    "copy": "copy_ clone _to_copy contiguous cat stack constant_pad_nd fill_ zero_ zeros zeros_like ones ones_like "
    "full full_like new_zeros new_ones new_full arange scalar_tensor tril tril_ triu triu_ roll repeat flip "
    "slice_backward select_backward masked_fill masked_fill_",
}  # fmt: skip
# a norm reads its argument once, whatever its prefix says
_LIGHT = frozenset(["linalg_vector_norm"])
KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}
# aten operators whose arithmetic is neither matrix-like with a formula below nor bounded by their traffic
_HEAVY_PREFIXES = ("linalg_", "_linalg_", "_fft_", "fft_", "_thnn_", "_cudnn_rnn", "miopen_", "cholesky", "_cdist")


def _rnn_flops(x: Any, w_ih: Any, w_hh: Any, *_: Any, **__: Any) -> int:
    # oneDNN runs a whole recurrent layer in one operator: x is (time, batch, width), weights (gates, width)
    return 2 * x[0] * x[1] * (math.prod(w_ih) + math.prod(w_hh))


def _cudnn_rnn_flops(x: Any, weights: Any, *_: Any, **__: Any) -> int:
    # all layers in one operator; x is (time, batch, width) or its first two swapped; biases have one dimension
    return 2 * x[0] * x[1] * sum(math.prod(each) for each in weights if len(each) > 1)


def _convolution_backward_flops(grad: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
    # the forward pass once for each of the gradients of input and weight; torch's own formula counts the weight's times
    # the number of groups
    transposed, wanted = rest[4], rest[7]
    return conv_flop_count(x, weight, grad, transposed=transposed) * sum(wanted[:2])


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    # heads of keys and values may be fewer than those of queries, which share them
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (3 * width + 2 * value[3])


def _shaped(formula: Callable[..., int]) -> Callable[..., int]:
    def flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        shapes, spec = pytree.tree_map(lambda v: v.shape if isinstance(v, Tensor) else v, (args, kwargs)), out_val
        return formula(*shapes[0], **shapes[1], out_shape=getattr(spec, "shape", None))

    return flops


# Where torch's own registry lacks a formula, or has a wrong one. Attention: two products forward, five backward (Dao et
# al. 2022, sec. B).
_OWN_FORMULAS: dict[Any, Callable[..., int]] = {
    **{getattr(aten, name): _shaped(_attention_flops) for name in _ATTENTION},
    **{getattr(aten, f"{name}_backward"): _shaped(_attention_backward_flops) for name in _ATTENTION},
    aten.convolution_backward: _shaped(_convolution_backward_flops),
    aten.mkldnn_rnn_layer: _shaped(_rnn_flops),
    aten.mkldnn_rnn_layer_backward: _shaped(lambda *a, **k: 2 * _rnn_flops(*a, **k)),
    aten._cudnn_rnn: _shaped(_cudnn_rnn_flops),
    aten._cudnn_rnn_backward: _shaped(lambda *a, **k: 2 * _cudnn_rnn_flops(*a, **k)),
    aten.mv: _shaped(lambda a, b, **_: 2 * math.prod(a)),
    aten.addmv: _shaped(lambda c, a, b, **_: 2 * math.prod(a)),
    aten.dot: _shaped(lambda a, b, **_: 2 * math.prod(a)),
    aten.addbmm: _shaped(lambda c, a, b, **_: 2 * math.prod(a) * b[2]),
    # Golub and Van Loan 2013: sections 5.2.9 (Householder vectors, then Q itself, of a square matrix) and 8.3.5
    aten.linalg_qr: _shaped(lambda a, *_, **__: 8 * math.prod(a) * min(a[-2:]) // 3),
    aten._linalg_eigh: _shaped(lambda a, *_, **__: 9 * math.prod(a) * a[-1]),
}


_FORMULAS = {**flop_registry, **_OWN_FORMULAS}


def has_formula(func: Any) -> bool:
    """Whether the FLOPs of an operator are known from its shapes."""
    return func.overloadpacket in _FORMULAS


@functools.cache
def unpriceable(func: Any) -> str:
    """Why an operator cannot be priced from its shapes, or an empty string."""
    name = str(func.overloadpacket.__name__)
    if has_formula(func):
        return ""
    # ours, the loss of transcripts and its gradient, are bounded by their traffic
    if func.namespace not in {"aten", "prim", "prims", "thrifty"}:
        return "it is not one of torch's own and carries no FLOP formula"
    if name.startswith(_HEAVY_PREFIXES) and name not in _LIGHT:
        return "its arithmetic has no formula here"
    return ""


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """FLOPs of one call, a multiply-add counting two; 0 for operators that are bounded by their traffic.

    Formulas are torch's (`torch.utils.flop_counter`) and those above.
    """
    formula = _FORMULAS.get(func.overloadpacket)
    return int(formula(*args, **kwargs, out_val=out)) if formula else 0


@functools.cache
def kind_of(func: Any) -> str:
    """Name the kind of an operator.

    >>> kind_of(torch.ops.aten.addmm.default), kind_of(torch.ops.aten.relu.default)
    ('matmul', 'pointwise')
    """
    named = KIND_OF.get(func.overloadpacket.__name__)
    if named:
        return named
    if torch.Tag.pointwise in func.tags:
        return "pointwise"
    if torch.Tag.reduction in func.tags:
        return "reduction"
    return "pointwise" if func.overloadpacket.__name__.endswith("_backward") else "other"
