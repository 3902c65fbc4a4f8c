"""Which way of attention is fastest here, by trying each at the job's shapes; what was found is kept per machine.

Another process does the timing: the planner's own keeps its heap as it is.

Shapes: B batch, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import torch
from pydantic import ValidationError

from thrifty.files import write_atomic
from thrifty.hardware.probe import probe as probe_machine
from thrifty.hardware.stopwatch import once
from thrifty.models.layers import ATTENTION, direction
from thrifty.planner.learning import Learning
from thrifty.planner.lengths import mean_length
from thrifty.planner.moves import values
from thrifty.planner.rules import Reasons
from thrifty.planner.settle import asking_seconds
from thrifty.spec import Dataset, Device
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain
from thrifty.spec.units import format_seconds

# scores of what is timed, at most: samples do not see each other, and fewer of them take their share of the time
_MOST_SCORES = 1 << 23
_TRIES, _TIMEOUT_S = 8, 60.0
# a way that keeps less for the backward pass is taken where it is hardly slower
_LEAN, _HARDLY = "sdpa", 1.03


# families whose attention is ours, and whether a token sees those before it alone
_CAUSAL = {"gpt": True, "bert": False}


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


class Timed(Plain):
    """Seconds of each way of one shape."""

    shape: Shape
    seconds: dict[str, float]


class _Known(Plain):
    timed: tuple[Timed, ...] = ()


def time_attention(shapes: list[Shape], device: Device) -> dict[Shape, dict[str, float]]:
    """Seconds of each way of each shape on this machine's device, from its cache, or measured now and kept there.

    A shape whose measurement fails, or that others disturbed, is left out.

    Args:
        shapes: distinct.
        device: this machine's.
    """
    path = cache_folder() / f"attention-{_machine(device)}.json"
    known = {each.shape: each.seconds for each in _read(path).timed}
    wanted = [each.bounded() for each in shapes]
    new = [each for each in dict.fromkeys(wanted) if each not in known]
    if new:
        known.update(_measured(new, device))
        kept = _Known(timed=tuple(Timed(shape=shape, seconds=seconds) for shape, seconds in known.items()))
        write_atomic(path, kept.model_dump_json(), purpose="what attention takes here")
    return {shape: known[each] for shape, each in zip(shapes, wanted, strict=True) if each in known}


def with_attention(learning: Learning, dataset: Dataset, device: Device, why: Reasons) -> Learning:
    """Have the model attend by the ways that are fastest at the job's shapes here, each with a line in ``why``.

    A model whose attention is not ours stays as it is, and any where nothing may be asked.
    """
    model, sizes = learning.model, learning.model.arguments
    if model.family not in _CAUSAL or device.kind not in {"cpu", "cuda"} or not asking_seconds():
        return learning
    shape = Shape(
        batch=learning.size,
        heads=sizes["heads"],
        length=_length(learning, dataset),
        width=sizes["width"] // sizes["heads"],
        causal=_CAUSAL[model.family],
        padded=not _CAUSAL[model.family],
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
    """Tokens of a sample, of texts as they are padded in the mean."""
    if dataset.kind != "text":
        return dataset.shape[0]
    return mean_length(dataset, batch=learning.size, micro=learning.size, batching="by_length")


def fastest(seconds: dict[str, float]) -> str:
    """The way to take.

    >>> fastest({"written_out": 1.0, "sdpa": 1.02}), fastest({"written_out": 1.0, "sdpa": 1.2})
    ('sdpa', 'written_out')
    """
    best = min(seconds, key=lambda way: seconds[way])
    return _LEAN if seconds.get(_LEAN, float("inf")) <= _HARDLY * seconds[best] else best


def _words(way: str) -> str:
    return {"sdpa": "torch's own"}.get(way, way.replace("_", " "))


def _machine(device: Device) -> str:
    """What measurements hold for: the device, its threads, and torch."""
    from importlib.metadata import version

    said = f"{device.name}\n{device.kind}\n{device.threads}\n{version('torch')}\n{probe_machine().isa}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _read(path: Any) -> _Known:
    try:
        return _Known.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Known()


def _measured(shapes: list[Shape], device: Device) -> dict[Shape, dict[str, float]]:
    asked = json.dumps([each.model_dump() for each in shapes])
    kind = "cuda" if device.kind == "cuda" else "cpu"
    call = f"from thrifty.planner.attention import main; main({kind!r}, {device.threads})"
    program = [sys.executable, "-c", call]
    try:
        done = subprocess.run(program, input=asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return {shape: found for shape, found in zip(shapes, said, strict=True) if found}


def main(kind: str, threads: int) -> None:
    """Time the shapes on standard input; write a list of seconds by way."""
    torch.set_num_threads(threads)
    shapes = [Shape.model_validate(each) for each in json.load(sys.stdin)]
    print(json.dumps([_time(each, kind) for each in shapes]))


def _time(shape: Shape, kind: str) -> dict[str, float]:
    """Seconds of each way, tried in turn so that a slow moment is shared; none where others had the cores."""
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

    taken: dict[str, list[float]] = {way: [] for way in ATTENTION}
    for way in ATTENTION:
        work(way)
    for _ in range(_TRIES):
        for way in ATTENTION:
            seconds, switches = once(functools.partial(work, way))
            if not switches:
                taken[way].append(seconds)
    # threads that wait for one that lost its core tell nothing of the way
    undisturbed = all(len(each) >= _TRIES // 2 for each in taken.values())
    return {way: statistics.median(each) for way, each in taken.items()} if undisturbed else {}
