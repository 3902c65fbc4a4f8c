"""What of an operator's shapes decides its time: a group of comparable operators, and coordinates within it.

Coordinates are logarithms to base 2 of sizes (of rows, columns, pixels, numbers), and marks of 0 or more for what is a
matter of kind: memory order, operator, mask. ``work`` is what the group's best rate is counted in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from thrifty.cost.ops import KIND_OF

Sizes = tuple[int, ...]
# how far apart, in doublings, two operators of one group lie that differ in a mark
_APART = 3.0


class Called(Protocol):
    """What `place` needs of an operator: a traced one, or one timed on a device."""

    @property
    def name(self) -> str: ...
    @property
    def shapes(self) -> str: ...
    @property
    def layouts(self) -> str: ...
    @property
    def tensors(self) -> int: ...
    @property
    def moved_bytes(self) -> int: ...


class Place(NamedTuple):
    """Where an operator stands among its like.

    Attributes:
        group: of operators that share a curve; without the dtype.
        at: coordinates.
        work: multiply-adds counted twice, or numbers worked on.
    """

    group: str
    at: tuple[float, ...]
    work: float


def parse(shapes: str) -> tuple[list[Sizes], list[Sizes]]:
    """Read sizes of arguments and of results.

    >>> parse("8x4,4x2->8x2")
    ([(8, 4), (4, 2)], [(8, 2)])
    """
    before, _, after = shapes.partition("->")
    return _sizes(before), _sizes(after)


def _sizes(text: str) -> list[Sizes]:
    return [tuple(int(size) for size in part.split("x")) for part in text.split(",") if part]


def place(op: Called) -> Place:
    """Place an operator; one whose shapes say nothing goes by the bytes it moves.

    >>> class Op(NamedTuple):
    ...     name: str = "mm"
    ...     shapes: str = "8x4,4x2->8x2"
    ...     layouts: str = "cc>c"
    ...     tensors: int = 2
    ...     moved_bytes: int = 224
    >>> place(Op())
    Place(group='product', at=(0.0, 3.0, 1.0, 2.0, 0.0, 0.0), work=128.0)
    """
    inputs, results = parse(op.shapes)
    how = _HOW.get(op.name, _one_by_one)
    try:
        return how(op, inputs, results)
    except (IndexError, ValueError):
        return Place(op.name, (_log(op.moved_bytes), 1.0, 0.0, 0.0, 0.0), float(op.moved_bytes))


def _log(number: float) -> float:
    return math.log2(max(number, 1))


def _letters(op: Called) -> tuple[str, str, str]:
    letters, _, note = op.layouts.partition(" ")
    before, _, after = letters.partition(">")
    return before, after, note


def _mark(condition: bool) -> float:
    return _APART if condition else 0.0


def _product(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    first = 1 if op.name in {"addmm", "baddbmm", "addbmm", "addmv"} else 0
    left, right = inputs[first], inputs[first + 1]
    letters = _letters(op)[0].ljust(first + 2, "c")
    if op.name in {"mv", "addmv", "dot"}:
        left, right = (left if len(left) > 1 else (1, *left)), (*right, 1)
    many = left[0] if len(left) == 3 else 1
    rows, shared, columns = left[-2], left[-1], right[-1]
    # products of one matrix pair and of many run in different kernels
    turned = (_mark(letters[first] == "t") / 2, _mark(letters[first + 1] == "t") / 2)
    group = "products" if len(left) == 3 else "product"
    at = (_log(many), _log(rows), _log(columns), _log(shared), *turned)
    return Place(group, at, 2.0 * many * rows * shared * columns)


def _convolution(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    backward = op.name == "convolution_backward"
    x, weight = inputs[1:3] if backward else inputs[:2]
    y = inputs[0] if backward else results[0]
    letters = _letters(op)[0]
    pixels, taps = y[0] * math.prod(y[2:]), math.prod(weight[2:])
    stride = max(x[-1] / max(y[-1], 1), 1.0)
    grouped = x[1] != weight[1]
    # the gradient of the input is not asked for in a first layer
    gradients = 2 if backward and results[:1] == [x] else 1
    at = (
        _log(pixels), _log(weight[0]), _log(weight[1]), _log(taps), 2 * _log(stride), _mark(grouped),
        _mark(letters[1 if backward else 0] == "l"), _mark(gradients == 1 and backward) / 2, _mark(len(x) == 3),
    )  # fmt: skip
    return Place(op.name, at, 2.0 * pixels * weight[0] * weight[1] * taps * gradients)


def _attention(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    backward = "backward" in op.name
    q, k = inputs[1:3] if backward else inputs[:2]
    _, _, note = _letters(op)
    heads, causal = q[0] * q[1], "is_causal" in note
    masked = len(inputs) > (6 if backward else 3)
    at = (_log(heads), _log(q[2]), _log(k[2]), _log(q[3]), _mark(causal) / 2, _mark(masked) / 2)
    work = (10.0 if backward else 4.0) * heads * q[2] * k[2] * q[3]
    return Place(op.name, at, work / 2 if causal else work)


def _rows(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    x = inputs[0]
    count = math.prod(x)
    return Place(op.name, (_log(count / x[-1]), _log(x[-1])), float(count))


def _batch_norm(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    x = inputs[0]
    count = math.prod(x)
    return Place(op.name, (_log(count / x[1]), _log(x[1]), _mark(_letters(op)[0][:1] == "l")), float(count))


def _table(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    # the dense gradient is as large as the table; a look-up only as what is looked up
    out = results[0]
    picked = inputs[0] if "backward" in op.name else out
    at = (_log(math.prod(picked)), _log(math.prod(out)), _log(out[-1]))
    return Place(op.name, at, float(math.prod(out)))


def _reduction(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    x, out = inputs[0], results[0]
    before, after = math.prod(x), math.prod(out)
    kept = tuple(size for size in out if size > 1)
    rows = after == 1 or kept == tuple(size for size in x if size > 1)[: len(kept)]
    columns = not rows and kept == tuple(size for size in x if size > 1)[-len(kept) :]
    at = (_log(before), _log(after), _mark(columns), _mark(not rows and not columns), *_order(op))
    return Place(op.name, at, float(before))


def _pool(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    wide, narrow = (math.prod(inputs[1]), math.prod(inputs[0])) if "backward" in op.name else (
        math.prod(inputs[0]), math.prod(results[0])
    )  # fmt: skip
    at = (_log(narrow), 2 * _log(wide / narrow), _mark(_letters(op)[0][:1] == "l"))
    return Place(op.name, at, float(wide))


def _recurrence(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    x, weight, recurrent = inputs[:3]
    # cuDNN runs all layers at once, each with two weights and two biases; beside them the batch and two states
    layers = max((op.tensors - 3) // 4, 1) if op.name.startswith("_cudnn") else 1
    work = 2.0 * x[0] * x[1] * layers * (math.prod(weight) + math.prod(recurrent))
    at = (_log(x[0]), _log(x[1]), _log(x[2]), _log(recurrent[-1]), _log(layers))
    return Place(op.name, at, work * (2 if "backward" in op.name else 1))


def _many(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    # one operator over all parameters
    return Place(op.name, (_log(op.moved_bytes), _log(op.tensors)), float(op.moved_bytes))


def _order(op: Called) -> tuple[float, float, float]:
    """Marks for tensors that lie otherwise than the first result, or than in one piece: rows, columns, images."""
    before, after, _ = _letters(op)
    odd = set(before + after) - set(after[:1] or "c")
    return (_mark("r" in odd) / 2, _mark(bool(odd & {"t", "s"})) / 2, _mark("l" in odd or "c" in odd) / 2)


def _one_by_one(op: Called, inputs: list[Sizes], results: list[Sizes]) -> Place:
    _, _, note = _letters(op)
    if op.name.startswith(("_fused_", "_foreach_")):
        return _many(op, inputs, results)
    sizes = [math.prod(shape) for shape in inputs + results]
    count = max(sizes)
    # with a mark for how many of its tensors are as large as the largest
    whole = float(max(sum(1 for size in sizes if size == count), 1))
    kind = note.replace("exponent=2.0", "exponent=2").replace("exponent=3.0", "exponent=3")
    return Place(f"{op.name} {kind}".strip(), (_log(count), whole, *_order(op)), float(count))


def _named(names: str, how: Callable[[Called, list[Sizes], list[Sizes]], Place]) -> dict[str, Callable[..., Place]]:
    return dict.fromkeys(names.split(), how)


_HOW = {
    **_named("mm addmm bmm baddbmm addbmm mv addmv dot", _product),
    **_named("convolution convolution_backward", _convolution),
    **dict.fromkeys((name for name, kind in KIND_OF.items() if kind == "attention"), _attention),
    **_named(
        "_softmax _safe_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data native_layer_norm "
        "native_layer_norm_backward nll_loss_backward _fused_rms_norm _fused_rms_norm_backward",
        _rows,
    ),
    **_named(
        "native_batch_norm native_batch_norm_backward cudnn_batch_norm cudnn_batch_norm_backward", _batch_norm
    ),
    **_named("embedding embedding_dense_backward index index_select index_put index_add", _table),
    **_named("sum mean amax max min linalg_vector_norm all any argmax var_mean", _reduction),
    **_named(
        "max_pool2d_with_indices max_pool2d_with_indices_backward avg_pool2d avg_pool2d_backward "
        "_adaptive_avg_pool2d _adaptive_avg_pool2d_backward",
        _pool,
    ),
    **_named("mkldnn_rnn_layer mkldnn_rnn_layer_backward _cudnn_rnn _cudnn_rnn_backward", _recurrence),
}  # fmt: skip
