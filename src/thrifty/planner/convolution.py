"""Which products of a model's convolutions are faster by columns here, by trying them at the job's shapes."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor, nn

from thrifty import models
from thrifty.models.convolution import (
    PRODUCTS,
    geometry,
    has_ways,
    input_gradient,
    result,
    torch_gradients,
    weight_gradient,
)
from thrifty.planner.learning import Learning
from thrifty.planner.moves import values
from thrifty.planner.rules import Reasons
from thrifty.planner.settle import asking_seconds
from thrifty.planner.trials import Seconds, answer, seconds_of, tried
from thrifty.spec import Dataset, Device, ModelPlan
from thrifty.spec.plain import Plain
from thrifty.spec.units import format_seconds

# pixels of a result, at most: of larger ones columns took two to seven times what torch's own did
_MOST_PIXELS = 64
# operations of a product that is timed, at most
_MOST_FLOPS = 10e9
# what columns must take less than, of torch's own: they need memory, and copy
_WORTH = 0.9
_DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


class Shape(Plain):
    """A convolution as a model calls it.

    Attributes:
        batch: samples.
        channels, outputs: of input and result.
        size: height and width of the input.
        window, stride, padding: of the convolution.
        dtype: ``float32`` or ``bfloat16``.
    """

    batch: int
    channels: int
    outputs: int
    size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dtype: str

    @property
    def pixels(self) -> int:
        """Of a result."""
        high, wide = (
            (side + 2 * padding - window) // stride + 1
            for side, padding, window, stride in zip(self.size, self.padding, self.window, self.stride, strict=True)
        )
        return high * wide

    @property
    def key(self) -> str:
        """As the model looks it up."""
        module = nn.Conv2d(
            self.channels, self.outputs, self.window, self.stride, self.padding, bias=False, device="meta"
        )
        return geometry(module, self.size, getattr(torch, self.dtype))

    def bounded(self) -> Shape:
        """The same of no more samples than it takes to compare."""
        of_sample = 2.0 * self.pixels * self.outputs * self.channels * self.window[0] * self.window[1]
        return self.model_copy(update={"batch": max(1, min(self.batch, int(_MOST_FLOPS / of_sample)))})


def with_convolution(
    learning: Learning, dataset: Dataset, device: Device, why: Reasons, precision: str | None
) -> Learning:
    """Have the model's convolutions train by the products that are fastest here, with a line in ``why``.

    Args:
        learning: what is learned.
        dataset: of images; models of others stay as they are.
        device: a processor; others stay with torch's own, and so does any where nothing may be asked.
        why: is told.
        precision: that the job pins, if any.
    """
    if dataset.kind != "image" or not learning.traits.convolves or device.kind != "cpu" or not asking_seconds():
        return learning
    wanted = (precision,) if precision else values("precision", device, here=True)
    seen = convolutions_of(learning.model, dataset.shape, learning.size)
    ways: dict[str, tuple[str, ...]] = {}
    for dtype, name in _DTYPES.items():
        if name not in wanted:
            continue
        counts = {shape.model_copy(update={"dtype": dtype}): count for shape, count in seen.items()}
        found = time_convolutions(list(counts), device)
        taken = {shape: by for shape, seconds in found.items() if (by := faster(seconds))}
        ways |= {shape.key: by for shape, by in taken.items()}
        if taken:
            _say(why, name, counts, found, taken)
    return replace(learning, model=learning.model.model_copy(update={"convolution": ways}))


def convolutions_of(model: ModelPlan, image: tuple[int, ...], batch: int) -> Counter[Shape]:
    """Count a model's convolutions in float32 that may be computed by columns, with small results; none if unknown.

    Args:
        model: to be built.
        image: [C, H, W].
        batch: samples at once.
    """
    seen: Counter[Shape] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        shape = Shape(
            batch=batch,
            channels=module.in_channels,
            outputs=module.out_channels,
            size=inputs[0].shape[2:],
            window=module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dtype="float32",
        )
        if shape.pixels <= _MOST_PIXELS:
            seen[shape] += 1

    built = models.build(model, "meta").eval()
    for module in filter(has_ways, built.modules()):
        module.register_forward_pre_hook(note)
    # code of a user may look at values, and without any there is nothing to see
    with contextlib.suppress(Exception), torch.no_grad():
        built(torch.empty(2, *image, device="meta"))
        return seen
    return Counter()


def time_convolutions(shapes: list[Shape], device: Device) -> dict[Shape, Seconds]:
    """Seconds of each product by each way, ``weight columns`` and so on, kept per machine as `seconds_of` does.

    Args:
        shapes: each once.
        device: this machine's.
    """
    wanted = [each.bounded() for each in shapes]
    known = seconds_of(wanted, device, shape_of=Shape, name="convolution", module=__name__)
    return {shape: known[each] for shape, each in zip(shapes, wanted, strict=True) if each in known}


def faster(seconds: Seconds) -> tuple[str, ...]:
    """The products that columns are worth it for.

    >>> faster({"forward torch": 1.0, "forward columns": 0.95, "weight torch": 4.0, "weight columns": 1.0})
    ('weight',)
    """
    return tuple(
        product
        for product in PRODUCTS
        if f"{product} torch" in seconds and seconds[f"{product} columns"] < _WORTH * seconds[f"{product} torch"]
    )


def _say(
    why: Reasons,
    precision: str,
    counts: dict[Shape, int],
    found: dict[Shape, Seconds],
    taken: dict[Shape, tuple[str, ...]],
) -> None:
    """Say what is computed by columns, and what that saves of a step."""

    def total(way: str) -> float:
        return sum(
            counts[shape] * found[shape][f"{product} {way}"] * shape.batch / shape.bounded().batch
            for shape, by in taken.items()
            for product in by
        )

    products = sum(counts[shape] * len(by) for shape, by in taken.items())
    value = f"{products} products by columns"
    said = f"{format_seconds(total('columns'))} a step, {format_seconds(total('torch'))} by torch's own"
    why.say(f"convolutions in {precision}", value, said, "measured")


def main(kind: str, threads: int) -> None:
    """Time the shapes on standard input; write a list of seconds by product and way."""
    assert kind == "cpu", "cuDNN chooses by itself"
    answer(Shape, threads, _time)


def _time(shape: Shape) -> Seconds:
    """Seconds of each product and way; none where others had the cores."""
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, shape.dtype)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)

    x = drawn(shape.batch, shape.channels, *shape.size)
    weight = drawn(shape.outputs, shape.channels, *shape.window)
    how = shape.stride, shape.padding
    grad = torch.randn_like(nn.functional.conv2d(x, weight, None, *how))
    found: Seconds = {}
    for product, theirs, ours in (
        ("forward", lambda: nn.functional.conv2d(x, weight, None, *how), lambda: result(x, weight, *how)),
        (
            "input",
            lambda: torch_gradients(grad, x, weight, *how, (True, False)),
            lambda: input_gradient(grad, x, weight, *how),
        ),
        (
            "weight",
            lambda: torch_gradients(grad, x, weight, *how, (False, True)),
            lambda: weight_gradient(grad, x, weight, *how),
        ),
    ):
        seconds = tried({f"{product} torch": theirs, f"{product} columns": ours})
        if not seconds:
            return {}
        found |= seconds
    return found
