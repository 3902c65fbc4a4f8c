"""Torch's core operators by TensorFlow's, as far as models of the table need them: name to function.

Each takes what torch's takes, in its order; a size that is open comes as an int64 scalar. Maps are [N, C, ...] as in
torch; TensorFlow's kernels for CPUs have channels last, so maps are turned around them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Value = Any
_END = 2**63 - 1


def _typed(*values: Value) -> list[Value]:
    """Bring tensors and numbers to one type: the widest of the tensors', of floats before integers before booleans."""
    types = [each.dtype for each in values if tf.is_tensor(each)]
    if any(isinstance(each, float) for each in values):
        types.append(tf.float32 if not any(each.is_floating for each in types) else tf.bool)
    if any(isinstance(each, int) and not isinstance(each, bool) for each in values):
        types.append(tf.int64 if all(each.is_bool for each in types) else tf.bool)
    widest = max(types, key=lambda each: (each.is_floating, each.is_integer, each.size))
    return [tf.cast(each, widest) for each in values]


def _pairwise(function: Callable[[Value, Value], Value]) -> Callable[..., Value]:
    """Of two tensors, or a tensor and a number; ``alpha`` times the second."""

    def apply(a: Value, b: Value, alpha: Value = 1) -> Value:
        a, b = _typed(a, b)
        return function(a, b if alpha == 1 else b * tf.cast(alpha, b.dtype))

    return apply


def _shape(sizes: Sequence[Value]) -> Value:
    """Sizes as one argument."""
    if all(isinstance(each, int) for each in sizes):
        return tf.constant(sizes, tf.int64, [len(sizes)])
    return tf.stack([tf.cast(each, tf.int64) for each in sizes])


def _size(x: Value, dim: int) -> Value:
    known = x.shape[dim]
    return tf.shape(x, out_type=tf.int64)[dim] if known is None else known


def _slice(x: Value, dim: int = 0, start: Value = None, end: Value = None, step: int = 1) -> Value:
    end = None if isinstance(end, int) and end == _END else end
    return x[(slice(None),) * (dim % len(x.shape)) + (slice(start, end, step),)]


def _select(x: Value, dim: int, index: Value) -> Value:
    return x[(slice(None),) * (dim % len(x.shape)) + (index,)]


def _expand(x: Value, sizes: Sequence[Value]) -> Value:
    new = len(sizes) - len(x.shape)
    kept = [_size(x, place - new) if isinstance(each, int) and each < 0 else each for place, each in enumerate(sizes)]
    return tf.broadcast_to(x, _shape(kept))


def _reduced(function: Callable[..., Value]) -> Callable[..., Value]:
    def apply(x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
        if dtype is not None:
            x = tf.cast(x, dtype)
        return function(x, axis=dims if dims != [] else None, keepdims=keepdim)

    return apply


def _sum(x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    whole = x.dtype.is_bool or x.dtype.is_integer
    return tf.reduce_sum(tf.cast(x, dtype or (tf.int64 if whole else x.dtype)), axis=dims or None, keepdims=keepdim)


def _length(x: Value, order: float = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if order != 2 or dtype is not None:
        raise NotImplementedError(f"a norm of order {order}")
    return tf.norm(x, axis=dims, keepdims=keepdim)


def _clamp(x: Value, least: Value = None, most: Value = None) -> Value:
    if least is not None:
        x = tf.maximum(*_typed(x, least))
    return x if most is None else tf.minimum(*_typed(x, most))


def _arange(start: Value, end: Value, step: Value = 1, dtype: Any = None) -> Value:
    whole = not any(isinstance(each, float) for each in (start, end, step))
    counted = tf.int64 if whole else tf.float32
    return tf.cast(tf.range(*(tf.cast(each, counted) for each in (start, end, step))), dtype or counted)


def _full(sizes: Sequence[Value], value: Value, dtype: Any = None) -> Value:
    return tf.fill(_shape(sizes), tf.cast(value, dtype or tf.float32))


def _full_like(x: Value, value: Value, dtype: Any = None) -> Value:
    return tf.fill(tf.shape(x), tf.cast(value, dtype or x.dtype))


def _where(condition: Value, a: Value, b: Value) -> Value:
    return tf.where(condition, *_typed(a, b))


def _divided(a: Value, b: Value, rounding_mode: str | None = None) -> Value:
    a, b = _typed(a, b)
    if rounding_mode is None:
        return a / b if a.dtype.is_floating else tf.cast(a, tf.float32) / tf.cast(b, tf.float32)
    if rounding_mode == "floor":
        return tf.math.floordiv(a, b)
    return tf.truncatediv(a, b) if a.dtype.is_integer else tf.sign(a / b) * tf.floor(tf.abs(a / b))


def _divided_in_32_bits(a: Value, b: Value, rounding_mode: str | None = "floor") -> Value:
    """Divide whole numbers that 32 bits hold: sizes, and what is counted along them."""
    if rounding_mode != "floor" or any(tf.is_tensor(each) and each.dtype.is_floating for each in (a, b)):
        return _divided(a, b, rounding_mode)
    return tf.cast(tf.math.floordiv(tf.cast(a, tf.int32), tf.cast(b, tf.int32)), tf.int64)


def _layer_norm(x: Value, shape: Sequence[int], weight: Value, bias: Value, eps: float) -> tuple[Value, ...]:
    axes = list(range(-len(shape), 0))
    mean = tf.reduce_mean(x, axes, keepdims=True)
    rest = tf.math.rsqrt(tf.reduce_mean(tf.square(x - mean), axes, keepdims=True) + eps)
    y = (x - mean) * rest
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, rest


def _batch_norm(
    x: Value, weight: Value, bias: Value, mean: Value, variance: Value, momentum: float, eps: float
) -> tuple[Value, ...]:
    scale = tf.math.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    sizes = [1, -1] + [1] * (len(x.shape) - 2)
    return x * tf.reshape(scale, sizes) + tf.reshape(shift, sizes), mean, variance


def _channels_last(x: Value) -> Value:
    return tf.transpose(x, [0, *range(2, len(x.shape)), 1])


def _channels_first(x: Value) -> Value:
    return tf.transpose(x, [0, len(x.shape) - 1, *range(1, len(x.shape) - 1)])


def _padded(x_NHWC: Value, padding: Sequence[int], value: float = 0.0) -> Value:
    if not any(padding):
        return x_NHWC
    return tf.pad(x_NHWC, [[0, 0], *([each, each] for each in padding), [0, 0]], constant_values=value)


def _convolution(
    x: Value, weight: Value, bias: Value, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, out_padding: list[int], groups: int,
) -> Value:  # fmt: skip
    """[N, C, L] or [N, C, H, W], weights [O, C / groups, ...]; a wave is a map of height 1."""
    if transposed:
        raise NotImplementedError("a transposed convolution")
    flat = len(stride) == 1
    if flat:
        x, weight = tf.expand_dims(x, 2), tf.expand_dims(weight, 2)
        stride, padding, dilation = stride * 2, [0, *padding], [1, *dilation]
    x_NHWC = _padded(_channels_last(x), padding)
    weight_HWIO = tf.transpose(weight, [2, 3, 1, 0])
    if groups > 1 and weight_HWIO.shape[2] == 1 and weight_HWIO.shape[3] == groups and stride[0] == stride[1]:
        filters = tf.transpose(weight_HWIO, [0, 1, 3, 2])
        y_NHWC = tf.nn.depthwise_conv2d(x_NHWC, filters, [1, *stride, 1], "VALID", dilations=dilation)
    else:
        parts = zip(tf.split(x_NHWC, groups, -1), tf.split(weight_HWIO, groups, -1), strict=True)
        y_NHWC = tf.concat([tf.nn.conv2d(a, w, stride, "VALID", dilations=dilation) for a, w in parts], -1)
    y_NHWC = y_NHWC if bias is None else y_NHWC + bias
    return _channels_first(y_NHWC[:, 0] if flat else y_NHWC)


def _max_pool(
    x: Value, kernel: list[int], stride: list[int] | None = None, padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,), ceil_mode: bool = False,
) -> tuple[Value, None]:  # fmt: skip
    if ceil_mode or any(each != 1 for each in dilation):
        raise NotImplementedError("a maximum over windows that are spread, or that reach past the edge")
    both = list(padding) * (2 // len(padding))
    x_NHWC = _padded(_channels_last(x), both, x.dtype.min)
    return _channels_first(tf.nn.max_pool2d(x_NHWC, kernel, stride or kernel, "VALID")), None


def _pad(x: Value, padding: Sequence[Value], value: float = 0.0) -> Value:
    """Begin and end of each dimension, the last dimension first; what is below zero is cut off."""
    pairs = [(0, 0)] * (len(x.shape) - len(padding) // 2) + list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    cut = tuple(slice(max(0, -a), min(0, b) or None) if isinstance(a, int) else slice(None) for a, b in pairs)
    x = x[cut] if any(each != slice(None) and each != slice(0, None) for each in cut) else x
    widths = [[max(0, a), max(0, b)] for a, b in pairs]
    return tf.pad(x, widths, constant_values=tf.cast(value, x.dtype))


def _cast(x: Value, dtype: Any = None, **_: Any) -> Value:
    return x if dtype is None else tf.cast(x, dtype)


def _negated(x: Value) -> Value:
    return tf.logical_not(x) if x.dtype.is_bool else tf.bitwise.invert(x)


def _addmm(bias: Value, a: Value, b: Value) -> Value:
    return tf.matmul(a, b) + bias


# Gives what torch's gives; of several tensors a tuple.
OPERATORS: dict[str, Callable[..., Value]] = {
    # sizes
    "aten.sym_size.int": _size,
    "operator.add": operator.add,
    "operator.sub": operator.sub,
    "operator.mul": operator.mul,
    "operator.floordiv": operator.floordiv,
    "operator.getitem": operator.getitem,
    # where numbers lie
    "aten.view.default": lambda x, sizes: tf.reshape(x, _shape(sizes)),
    "aten.permute.default": tf.transpose,
    "aten.unsqueeze.default": tf.expand_dims,
    "aten.squeeze.dims": tf.squeeze,
    "aten.expand.default": _expand,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.cat.default": lambda parts, dim=0: tf.concat(_typed(*parts), dim),
    "aten.split_with_sizes.default": lambda x, sizes, dim=0: tf.split(x, sizes, dim),
    "aten.constant_pad_nd.default": _pad,
    "aten.embedding.default": lambda weight, rows, *_: tf.gather(weight, rows),
    "aten.clone.default": lambda x: x,
    "aten._to_copy.default": _cast,
    # numbers from nothing
    "aten.arange.start_step": _arange,
    "aten.full.default": _full,
    "aten.full_like.default": _full_like,
    "aten.scalar_tensor.default": lambda value, dtype=tf.float32: tf.cast(value, dtype),
    # number by number
    "aten.add.Tensor": _pairwise(tf.add),
    "aten.add.Scalar": _pairwise(tf.add),
    "aten.sub.Tensor": _pairwise(tf.subtract),
    "aten.sub.Scalar": _pairwise(tf.subtract),
    "aten.mul.Tensor": _pairwise(tf.multiply),
    "aten.mul.Scalar": _pairwise(tf.multiply),
    "aten.div.Tensor": _divided,
    "aten.div.Scalar": _divided,
    "aten.div.Tensor_mode": _divided,
    "aten.remainder.Scalar": _pairwise(tf.math.floormod),
    "aten.pow.Tensor_Scalar": _pairwise(tf.pow),
    "aten.pow.Scalar": _pairwise(tf.pow),
    "aten.eq.Tensor": _pairwise(tf.equal),
    "aten.eq.Scalar": _pairwise(tf.equal),
    "aten.ne.Tensor": _pairwise(tf.not_equal),
    "aten.ne.Scalar": _pairwise(tf.not_equal),
    "aten.lt.Tensor": _pairwise(tf.less),
    "aten.lt.Scalar": _pairwise(tf.less),
    "aten.le.Tensor": _pairwise(tf.less_equal),
    "aten.le.Scalar": _pairwise(tf.less_equal),
    "aten.gt.Tensor": _pairwise(tf.greater),
    "aten.gt.Scalar": _pairwise(tf.greater),
    "aten.ge.Tensor": _pairwise(tf.greater_equal),
    "aten.ge.Scalar": _pairwise(tf.greater_equal),
    "aten.logical_and.default": tf.logical_and,
    "aten.logical_not.default": tf.logical_not,
    "aten.bitwise_not.default": _negated,
    "aten.where.self": _where,
    "aten.clamp.default": _clamp,
    "aten.relu.default": tf.nn.relu,
    "aten.gelu.default": lambda x, approximate="none": tf.nn.gelu(x, approximate=approximate == "tanh"),
    "aten.sigmoid.default": tf.sigmoid,
    "aten.tanh.default": tf.tanh,
    "aten.exp.default": tf.exp,
    "aten.log.default": tf.math.log,
    "aten.cos.default": tf.cos,
    "aten.sin.default": tf.sin,
    "aten.sqrt.default": tf.sqrt,
    "aten.rsqrt.default": tf.math.rsqrt,
    "aten.reciprocal.default": tf.math.reciprocal,
    "aten.neg.default": tf.negative,
    "aten.abs.default": tf.abs,
    # along dimensions
    "aten.sum.dim_IntList": _sum,
    "aten.mean.dim": _reduced(tf.reduce_mean),
    "aten.amax.default": _reduced(tf.reduce_max),
    "aten.any.dim": _reduced(tf.reduce_any),
    "aten.linalg_vector_norm.default": _length,
    "aten.cumsum.default": lambda x, dim, dtype=None: tf.cumsum(x, dim),
    "aten._softmax.default": lambda x, dim, wider: tf.nn.softmax(x, dim),
    "aten._log_softmax.default": lambda x, dim, wider: tf.nn.log_softmax(x, dim),
    # layers
    "aten.mm.default": tf.matmul,
    "aten.bmm.default": tf.matmul,
    "aten.addmm.default": _addmm,
    "aten.convolution.default": _convolution,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.native_layer_norm.default": _layer_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
}

# LiteRT divides no integers of 64 bits.
LITE_OPERATORS = OPERATORS | {
    "operator.floordiv": _divided_in_32_bits,
    "aten.div.Tensor_mode": _divided_in_32_bits,
}
