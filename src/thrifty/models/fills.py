"""How one weight is drawn: by the fans of its layer, at a fixed spread, orthogonal, or as a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

SPREAD = 0.02

Fill = Callable[[Tensor, torch.Generator], object]


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit of a linear layer [out, in] or convolution [out, in, height, width]."""
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def normal(std: float) -> Fill:
    """Normal around zero."""
    return lambda weight, generator: weight.normal_(0.0, std, generator=generator)


def uniform(std: float) -> Fill:
    """Uniform around zero; over -a..a its variance is a^2 / 3."""
    bound = math.sqrt(3) * std
    return lambda weight, generator: weight.uniform_(-bound, bound, generator=generator)


def truncated(std: float) -> Fill:
    """Normal, drawn again beyond two deviations, as BERT's and ViT's code has it: its own deviation is 0.88 of std."""

    def draw(weight: Tensor, generator: torch.Generator) -> None:
        # a fifth of the time of torch's own, which takes 9 s for ViT-B
        flat = weight.normal_(0.0, std, generator=generator).view(-1)
        outside = (flat.abs() > 2 * std).nonzero().squeeze(1)
        while len(outside):
            again = torch.empty(len(outside)).normal_(0.0, std, generator=generator)
            flat[outside] = again
            outside = outside[again.abs() > 2 * std]

    return draw


def constant(value: float) -> Fill:
    """The same number everywhere."""
    return lambda weight, generator: weight.fill_(value)


def scaled(fill: Fill, factor: float) -> Fill:
    """What a fill draws, so many times as large."""

    def draw(weight: Tensor, generator: torch.Generator) -> None:
        fill(weight, generator)
        weight.mul_(factor)

    return draw


def identity(fill: Fill) -> Fill:
    """The identity in the middle of a convolution's window, as far as there are inputs; then what a fill draws."""

    def draw(weight: Tensor, generator: torch.Generator) -> None:
        fill(weight, generator)
        nn.init.dirac_(weight[: weight.shape[1]])

    return draw


def zero_first(fill: Fill) -> Fill:
    """What a fill draws, but for the first row, which is zero: the lookup of what is not known."""

    def draw(weight: Tensor, generator: torch.Generator) -> None:
        fill(weight, generator)
        weight[0].zero_()

    return draw


def _orthogonal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, generator=generator)


def _by_fans(spread: Callable[[float], Fill], variance: Callable[[int, int], float]) -> Fill:
    return lambda weight, generator: spread(math.sqrt(variance(*fans(weight))))(weight, generator)


class Distribution(NamedTuple):
    """How the weights of linear layers and convolutions are drawn.

    Attributes:
        says: it in words.
        fill: draws one weight.
        any_shape: whether it draws parameters that have no fans too: lookup tables, and what no layer of torch's holds.
    """

    says: str
    fill: Fill
    any_shape: bool = False


# He: He et al. 2015, "Delving deep into rectifiers", equations 10 (fan_in) and 14 (fan_out). Xavier: Glorot and Bengio
# 2010, equations 12 and 16. LeCun: LeCun et al. 1998, "Efficient BackProp", equation 16. Orthogonal: Saxe et al. 2014;
# a convolution is a matrix of its outputs by all that a window holds.
DISTRIBUTIONS: dict[str, Distribution] = {
    "he_normal": Distribution("He normal, variance 2 / fan_in", _by_fans(normal, lambda ins, outs: 2 / ins)),
    "he_uniform": Distribution("He uniform, variance 2 / fan_in", _by_fans(uniform, lambda ins, outs: 2 / ins)),
    "he_normal_fan_out": Distribution("He normal, variance 2 / fan_out", _by_fans(normal, lambda ins, outs: 2 / outs)),
    "he_uniform_fan_out": Distribution(
        "He uniform, variance 2 / fan_out", _by_fans(uniform, lambda ins, outs: 2 / outs)
    ),
    "xavier_normal": Distribution(
        "Xavier normal, variance 2 / (fan_in + fan_out)", _by_fans(normal, lambda ins, outs: 2 / (ins + outs))
    ),
    "xavier_uniform": Distribution(
        "Xavier uniform, variance 2 / (fan_in + fan_out)", _by_fans(uniform, lambda ins, outs: 2 / (ins + outs))
    ),
    "lecun_normal": Distribution("LeCun normal, variance 1 / fan_in", _by_fans(normal, lambda ins, outs: 1 / ins)),
    "lecun_uniform": Distribution("LeCun uniform, variance 1 / fan_in", _by_fans(uniform, lambda ins, outs: 1 / ins)),
    "orthogonal": Distribution("orthogonal rows or columns", _orthogonal),
    "normal": Distribution(f"normal {SPREAD}", normal(SPREAD), any_shape=True),
    "truncated_normal": Distribution(f"normal {SPREAD} cut at two deviations", truncated(SPREAD), any_shape=True),
}
# of any parameter, biases and norms too; a model of these alone would not learn
CONSTANTS: dict[str, Distribution] = {
    "zeros": Distribution("zeros", constant(0.0), any_shape=True),
    "ones": Distribution("ones", constant(1.0), any_shape=True),
}
