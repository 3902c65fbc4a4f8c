"""Which way of attention is fastest here, by trying each at the job's shapes.

Shapes: B batch, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from thrifty.models.layers import ATTENTION, direction
from thrifty.planner.learning import Learning
from thrifty.planner.lengths import mean_length
from thrifty.planner.moves import values
from thrifty.planner.rules import Reasons
from thrifty.planner.settle import asking_seconds
from thrifty.planner.trials import Seconds, answer, seconds_of, tried
from thrifty.spec import KINDS, LENGTH_MULTIPLE, Dataset, Device
from thrifty.spec.plain import Plain
from thrifty.spec.units import format_seconds

# scores of what is timed, at most: samples do not see each other, and fewer of them take their share of the time
_MOST_SCORES = 1 << 23
# a way that keeps less for the backward pass is taken where it is hardly slower
_LEAN, _HARDLY = "sdpa", 1.03


# families whose attention is ours, and whether a token sees those before it alone
_CAUSAL = dict.fromkeys(("gpt", "llama"), True)
_CAUSAL |= dict.fromkeys(("bert", "bert_original", "speech", "vit", "wav2vec2"), False)


class Shape(Plain):
    """Attention as a model calls it.

    Attributes:
        batch, heads, length, width: B, H, T and D.
        causal: a token sees those before it alone.
        padded: some tokens are hidden by a bias.
        dtype: ``float32`` or ``bfloat16``.
        training: with gradients.
    """

    batch: int
    heads: int
    length: int
    width: int
    causal: bool
    padded: bool
    dtype: str
    training: bool

    @property
    def says(self) -> str:
        """Its sizes."""
        return f"{self.batch} x {self.heads} heads x {self.length} tokens x {self.width}"

    def bounded(self) -> Shape:
        """The same of no more samples than it takes to compare."""
        samples = max(1, _MOST_SCORES // (self.heads * self.length**2))
        return self.model_copy(update={"batch": min(self.batch, samples)})


def time_attention(shapes: list[Shape], device: Device) -> dict[Shape, Seconds]:
    """Seconds of each way of each shape on this machine's device, from its cache, or measured now and kept there.

    A shape whose measurement fails, or that others disturbed, is left out.

    Args:
        shapes: distinct.
        device: this machine's.
    """
    wanted = [each.bounded() for each in shapes]
    known = seconds_of(wanted, device, shape_of=Shape, name="attention", module=__name__)
    return {shape: known[each] for shape, each in zip(shapes, wanted, strict=True) if each in known}


def with_attention(learning: Learning, dataset: Dataset, device: Device, why: Reasons) -> Learning:
    """Have the model attend by the ways that are fastest at the job's shapes here, each with a line in ``why``.

    A model whose attention is not ours stays as it is, and any where nothing may be asked.
    """
    model, sizes = learning.model, learning.model.arguments
    if model.family not in _CAUSAL or device.kind not in {"cpu", "cuda"} or not asking_seconds():
        return learning
    length, samples = _length(learning, dataset), learning.size
    if learning.apart:
        samples = max(1, samples * dataset.shape[0] // length)
    shape = Shape(
        batch=samples,
        heads=sizes["heads"],
        length=length,
        width=sizes["width"] // sizes["heads"],
        causal=_CAUSAL[model.family],
        padded=KINDS[dataset.kind].varies,
        dtype="float32",
        training=True,
    )
    dtypes = {"float32": "fp32", "bfloat16": "bf16"}
    cases = [
        shape.model_copy(update={"dtype": dtype, "training": training})
        for dtype, precision in dtypes.items()
        for training in (True, False)
        if precision in values("precision", device, here=True)
    ]
    ways = {}
    for case, seconds in time_attention(cases, device).items():
        ways[direction(getattr(torch, case.dtype), training=case.training)] = way = fastest(seconds)
        if case.training:
            rest = (f"{_words(other)} {format_seconds(each)}" for other, each in seconds.items() if other != way)
            said = f"{format_seconds(seconds[way])}, {', '.join(rest)}: forward and backward of {case.bounded().says}"
            why.say(f"attention in {dtypes[case.dtype]}", _words(way), said, "measured")
    return replace(learning, model=model.model_copy(update={"attention": ways}))


def _length(learning: Learning, dataset: Dataset) -> int:
    """Tokens of a sample: of texts as they are padded in the mean, and of recordings, after their convolutions; of an
    image its patches and the first one; of documents that lie apart their mean.
    """
    if dataset.kind == "image":
        sizes = learning.model.arguments
        return (int(sizes["side"]) // int(sizes["patch"])) ** 2 + 1
    if learning.apart:
        return min(dataset.shape[0], LENGTH_MULTIPLE * max(1, round(dataset.piece / LENGTH_MULTIPLE)))
    if not KINDS[dataset.kind].varies:
        return dataset.shape[0]
    length = mean_length(dataset, batch=learning.size, micro=learning.size, batching="by_length")
    return dataset.sound.answered(length) if dataset.sound is not None else length


def fastest(seconds: dict[str, float]) -> str:
    """The way to take.

    >>> fastest({"written_out": 1.0, "sdpa": 1.02}), fastest({"written_out": 1.0, "sdpa": 1.2})
    ('sdpa', 'written_out')
    """
    best = min(seconds, key=lambda way: seconds[way])
    return _LEAN if seconds.get(_LEAN, float("inf")) <= _HARDLY * seconds[best] else best


def _words(way: str) -> str:
    return {"sdpa": "torch's own"}.get(way, way.replace("_", " "))


def main(kind: str, threads: int) -> None:
    """Time the shapes on standard input; write a list of seconds by way."""
    answer(Shape, threads, functools.partial(_time, kind=kind))


def _time(shape: Shape, kind: str) -> Seconds:
    """Seconds of each way; none where others had the cores."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.length, 3, shape.heads, shape.width)
    # queries, keys and values lie side by side, as one product leaves them
    qkv = torch.randn(size, generator=generator).to(kind, getattr(torch, shape.dtype)).requires_grad_(shape.training)
    bias = torch.zeros(shape.batch, 1, 1, shape.length, dtype=qkv.dtype, device=kind) if shape.padded else None

    def work(way: str) -> None:
        with torch.set_grad_enabled(shape.training):
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            out = ATTENTION[way](q, k, v, shape.causal, bias).transpose(1, 2).flatten(2)
            if shape.training:
                out.backward(torch.ones_like(out))
                qkv.grad = None
        if kind == "cuda":
            torch.cuda.synchronize()

    return tried({way: functools.partial(work, way) for way in ATTENTION})
