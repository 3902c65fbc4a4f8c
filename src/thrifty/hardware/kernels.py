"""What the micro-benchmarks run: single layers and functions, forward and backward, over a range of sizes and dtypes.

Each entry does one small thing as eager training does it; every operator inside is timed by `bench`, or of a GPU by
`gpu_bench`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from thrifty.hardware.sizes import CPU, GPU, Sizes
from thrifty.hardware.stopwatch import Work

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Family = Callable[["torch.dtype", Sizes], Iterator[Work]]


@functools.cache
def _noise(count: int) -> Tensor:
    import torch

    return torch.randn(count)


def _made(*shape: int, dtype: torch.dtype, grad: bool = True) -> Tensor:
    """Noise of a shape, copied from one block: drawing it anew would take longer than what is timed on it."""
    import torch

    count = CPU.numbers if torch.get_default_device().type == "cpu" else GPU.numbers
    return _noise(count)[: math.prod(shape)].view(shape).to(dtype, copy=True).requires_grad_(grad)


def _both(function: Callable[..., Tensor], *tensors: Tensor) -> None:
    """Call forward, then backward from a gradient of the result's own shape."""
    out = function(*tensors)
    out.backward(out.detach())


def linears(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Linear layers with and without bias; the backward pass multiplies both other ways round."""
    from torch.nn import functional as F

    for index, (rows, inputs, outputs) in enumerate(sizes.linear):
        x, weight = _made(rows, inputs, dtype=dtype), _made(outputs, inputs, dtype=dtype)
        bias = (_made(outputs, dtype=dtype),) if index % 2 == 0 else ()
        yield functools.partial(_both, F.linear, x, weight, *bias)


def batched(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Scores and their use, as attention written out does: one factor is transposed, heads lie inside the rows."""
    import torch

    for count, rows, shared, columns in sizes.batched:
        query, key = _made(count, rows, shared, dtype=dtype), _made(count, columns, shared, dtype=dtype)
        scores, value = _made(count, rows, columns, dtype=dtype), _made(count, columns, shared, dtype=dtype)
        yield functools.partial(_both, lambda q, k: torch.bmm(q, k.transpose(1, 2)), query, key)
        yield functools.partial(_both, torch.bmm, scores, value)


def convolutions(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Convolutions in both memory layouts, with their gradients; of the first layer's input there is none."""
    import torch
    from torch.nn import functional as F

    for (samples, inputs, height, width, outputs, kernel, stride, groups), layout in itertools.product(
        sizes.convolutions, (torch.contiguous_format, torch.channels_last)
    ):
        x = _made(samples, inputs, height, width, dtype=dtype, grad=inputs > 3)
        x = x.detach().contiguous(memory_format=layout).requires_grad_(inputs > 3)
        weight = _made(outputs, inputs // groups, kernel, kernel, dtype=dtype).detach()
        weight = weight.contiguous(memory_format=layout).requires_grad_()
        padding = kernel // 2 if stride < kernel or kernel == 1 else 0
        call = functools.partial(F.conv2d, stride=stride, padding=padding, groups=groups)
        yield functools.partial(_both, call, x, weight)
    for samples, inputs, width, outputs, kernel, stride in sizes.lines:
        line = _made(samples, inputs, width, dtype=dtype)
        taps = _made(outputs, inputs, kernel, dtype=dtype)
        yield functools.partial(_both, functools.partial(F.conv1d, stride=stride, padding=kernel // 2), line, taps)


def attention(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Fused attention over heads that lie inside the rows, as a Transformer has them."""
    import torch
    from torch.nn import functional as F

    for samples, heads, length, width, causal in sizes.attention:
        q, k, v = (_made(samples, length, heads, width, dtype=dtype) for _ in range(3))

        def call(q: Tensor, k: Tensor, v: Tensor, causal: bool = causal) -> Tensor:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        yield functools.partial(_both, call, q, k, v)
    for samples, heads, length, width in sizes.masked:
        q, k, v = (_made(samples, length, heads, width, dtype=dtype) for _ in range(3))
        mask = torch.zeros(samples, 1, length, length, dtype=dtype)

        def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        yield functools.partial(_both, masked, q, k, v)


def normalisation(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Softmax, layer and batch normalisation, and the loss of a classifier."""
    import torch
    from torch.nn import functional as F

    for rows, width in sizes.rows:
        x, gain, shift = _made(rows, width, dtype=dtype), _made(width, dtype=torch.float32), _made(width, dtype=dtype)
        yield functools.partial(_both, functools.partial(torch.softmax, dim=-1), x)
        yield functools.partial(_both, functools.partial(torch.log_softmax, dim=-1), x)
        # with rows that may hold nothing but -inf: what attention with a mask does, written out
        yield functools.partial(torch.ops.aten._safe_softmax, x.detach(), -1)
        yield functools.partial(_both, lambda x, g, b: F.layer_norm(x, b.shape, g.to(x.dtype), b), x, gain, shift)
        label = torch.randint(0, width, (rows,))
        yield functools.partial(_both, lambda x, y=label: F.cross_entropy(x, y, reduction="sum"), x)
    for (samples, channels, side), layout in itertools.product(
        sizes.images, (torch.contiguous_format, torch.channels_last)
    ):
        image = _made(samples, channels, side, side, dtype=dtype).detach().contiguous(memory_format=layout)
        gain, shift = torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)
        mean, variance = torch.zeros(channels), torch.ones(channels)

        def call(x: Tensor, g: Tensor, b: Tensor, mean: Tensor = mean, variance: Tensor = variance) -> Tensor:
            return F.batch_norm(x, mean, variance, g, b, training=True)

        yield functools.partial(_both, call, image.requires_grad_(), gain, shift)


def pooling(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Largest and mean of windows, and the mean over whole images."""
    import torch
    from torch.nn import functional as F

    for (samples, channels, side), layout in itertools.product(
        sizes.images[:5], (torch.contiguous_format, torch.channels_last)
    ):
        image = _made(samples, channels, side, side, dtype=dtype).detach().contiguous(memory_format=layout)
        image.requires_grad_()
        yield functools.partial(_both, lambda x: F.max_pool2d(x, 3, stride=2, padding=1), image)
        yield functools.partial(_both, lambda x: F.max_pool2d(x, 2), image)
        yield functools.partial(_both, lambda x: F.avg_pool2d(x, 2), image)
        yield functools.partial(_both, lambda x: F.adaptive_avg_pool2d(x, 1), image)


def recurrence(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """One LSTM layer."""
    import torch

    for samples, length, width, hidden in sizes.recurrent:
        layer = torch.nn.LSTM(width, hidden, batch_first=True).to(dtype)
        x = _made(samples, length, width, dtype=dtype)
        yield functools.partial(_both, lambda x, layer=layer: layer(x)[0], x)


def lookups(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Rows of a table, and the table's dense gradient; rows picked and put by index."""
    import torch
    from torch.nn import functional as F

    for rows, width, count in sizes.tables:
        table, index = _made(rows, width, dtype=dtype), torch.randint(0, rows, (count,))
        yield functools.partial(_both, lambda table, index=index: F.embedding(index, table), table)
        if rows >= count:
            yield functools.partial(_both, lambda table, index=index: table[index], table)
            yield functools.partial(_both, lambda table, index=index: table.index_select(0, index), table)


def pointwise(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Functions of one number, with their gradients, and arithmetic of two tensors and of a tensor and a number."""
    import torch
    from torch.nn import functional as F

    def gelu_tanh(x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

    smooth = (torch.exp, torch.tanh, torch.sigmoid, torch.erf, F.gelu, gelu_tanh, F.silu, F.relu)
    for count in sizes.counts:
        x, y = _made(count, dtype=dtype), _made(count, dtype=dtype)
        mask = x.detach() < 0
        for function in smooth:
            yield functools.partial(_both, function, x)
        # each with what it takes beside the sum that gives its gradient
        yield functools.partial(_both, torch.mul, x, y)
        yield functools.partial(_both, torch.div, x, y)
        with torch.no_grad():
            a, b, positive = x.detach(), y.detach(), x.detach().abs() + 1
        yield from (
            lambda a=a, b=b: (a + b, a - b, a.add_(b, alpha=1e-9), a.sub_(b, alpha=1e-9)),
            lambda a=a: (a * 0.5, a + 1.0, a / 3.0, a.mul_(1.0), a.div_(1.0), -a),
            lambda a=a: (a**2, a**3, torch.cos(a), torch.sin(a)),
            lambda a=positive: (torch.sqrt(a), torch.rsqrt(a), torch.log(a), a.reciprocal()),
            lambda a=a, b=b, m=mask: (torch.where(m, a, b), a.masked_fill(m, 0.0), a.masked_fill_(m, 0.5)),
            lambda a=a, b=b: (a > b, a == 0.0, torch.isneginf(a), a.clamp_min(0.0), a.relu_()),
            lambda a=a, b=b: (a.lerp_(b, 1e-9), a.addcmul_(b, b, value=1e-9), a.addcdiv_(b, b + 9.0, value=1e-9)),
            lambda m=mask: (~m, m.all(), m.any(), m & m),
        )


def copies(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Copies, changes of dtype and of order, filling, joining, and random numbers."""
    import torch
    from torch.nn import functional as F

    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    for count in sizes.counts:
        rows = max(count >> 8, 1)
        x, narrow = _made(count, dtype=dtype, grad=False), _made(rows, 256, dtype=dtype, grad=False)
        heads = _made(rows, 4, 64, dtype=dtype, grad=False)
        image = _made(max(count >> 12, 1), 64, 8, 8, dtype=dtype, grad=False)
        part, piece = _made(rows, 256, dtype=dtype), _made(rows, 2, 128, dtype=dtype)
        target = torch.zeros_like(x)
        yield functools.partial(lambda x: (x.clone(), x.to(other), x.fill_(0.5), x.zero_(), torch.zeros_like(x)), x)
        cast = target.to(other)
        yield functools.partial(lambda x, t, o: (t.copy_(x), t.copy_(o)), x, target, cast)
        yield functools.partial(
            lambda a: (a.t().contiguous(), a[:, :128].contiguous(), torch.cat([a, a]), torch.cat([a, a], 1)), narrow
        )
        yield functools.partial(
            lambda a: (a.transpose(0, 1).contiguous(), a.transpose(1, 2).contiguous(), torch.stack([a, a])), heads
        )
        yield functools.partial(
            lambda a: (
                a.contiguous(memory_format=torch.channels_last),
                a.contiguous(memory_format=torch.channels_last).contiguous(),
            ),
            image,
        )
        yield functools.partial(_both, lambda a: a[:, :128], part)
        yield functools.partial(_both, lambda a: a[:, 0], piece)
        row = narrow[:1].clone()
        yield functools.partial(lambda a, b: (a + b, a * b, a * a[:, :1], a.add_(b)), narrow, row)
        yield functools.partial(lambda a: (a.transpose(0, 1) + a.reshape(4, -1, 64), a.transpose(0, 1) * 0.5), heads)
        yield functools.partial(
            lambda x: (torch.empty_like(x).bernoulli_(0.9), F.dropout(x, 0.1), torch.native_dropout(x, 0.1, True)), x
        )


def reductions(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Sums, means, norms and largest, over everything, over rows and over columns."""
    import torch

    for count in sizes.counts[1:]:
        x = _made(count, dtype=dtype, grad=False)
        yield functools.partial(lambda x: (x.sum(), x.mean(), torch.linalg.vector_norm(x), x.max()), x)
    for rows, width in sizes.rows:
        matrix = _made(rows, width, dtype=dtype, grad=False)
        yield functools.partial(
            lambda x: (x.sum(0, keepdim=True), x.sum(-1, keepdim=True), x.mean(-1, keepdim=True), x.amax(-1)), matrix
        )
    for samples, channels, side in sizes.images:
        image = _made(samples, channels, side, side, dtype=dtype, grad=False)
        yield functools.partial(lambda x: (x.sum((0, 2, 3)), x.mean((2, 3))), image)


def updates(dtype: torch.dtype, sizes: Sizes) -> Iterator[Work]:
    """Optimizer steps and the clipping of gradients over many tensors, small and large."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    for tensors, size in sizes.updates:
        parameters = [torch.nn.Parameter(_made(size, dtype=dtype, grad=False)) for _ in range(tensors)]
        for parameter in parameters:
            parameter.grad = parameter.detach() * 1e-6
        yield functools.partial(clip_grad_norm_, parameters, 1e9)
        yield torch.optim.AdamW(parameters, lr=1e-6, fused=True).step
        yield torch.optim.AdamW(parameters, lr=1e-6, foreach=True).step
        yield torch.optim.SGD(parameters, lr=1e-6, fused=True).step
        yield torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, fused=True).step
        yield torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, foreach=True).step


FAMILIES: dict[str, Family] = {
    "linears": linears,
    "batched": batched,
    "convolutions": convolutions,
    "attention": attention,
    "normalisation": normalisation,
    "pointwise": pointwise,
    "copies": copies,
    "reductions": reductions,
    "lookups": lookups,
    "pooling": pooling,
    "recurrence": recurrence,
    "updates": updates,
}
# those whose time is arithmetic: it wanders with the speed of the cores, and is timed more often
ARITHMETIC = frozenset(["linears", "batched", "convolutions", "attention", "recurrence"])
