"""Initial weights by name: how each parameter of a model is filled, in words and in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from thrifty.errors import JobError
from thrifty.models.bert import BERT
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.fast_convnet import FastConvNet
from thrifty.models.fills import (
    CONSTANTS,
    DISTRIBUTIONS,
    SPREAD,
    Distribution,
    Fill,
    constant,
    fans,
    identity,
    normal,
    scaled,
    uniform,
    zero_first,
)
from thrifty.models.gpt import GPT
from thrifty.models.llama import Llama
from thrifty.models.mlp import MLP
from thrifty.models.mup import fill_of, relative_width
from thrifty.models.ngrams import NGrams
from thrifty.models.places import POSITION_STD, Place, usual
from thrifty.models.residuals import residual_ends
from thrifty.models.resnet import ResNet
from thrifty.models.speech import Speech
from thrifty.models.tabular import TableMLP
from thrifty.models.vit import ViT
from thrifty.models.wav2vec2 import Wav2Vec2, position_std

# of lookups beside the embedded numbers of a table
LOOKUP_STD = 0.5


class Scheme(NamedTuple):
    """How the parameters of a model are filled: in words, and by place; None leaves one as it is."""

    says: str
    fill: Callable[[Place], Fill | None]


def _spread(model: nn.Module, says: str, weight: Callable[[Place], Fill]) -> Scheme:
    """A scheme that fills weights in its own way and all else in the usual one."""
    embeds = any(isinstance(module, nn.Embedding) for module in model.modules())
    rest = f"; embeddings normal {SPREAD}, positions {POSITION_STD}" if embeds else ""
    return Scheme(says + rest, lambda place: weight(place) if place.role == "weight" else usual(place))


def draws(distribution: Distribution, place: Place) -> bool:
    """Say whether a distribution is for a parameter."""
    return place.role == "weight" or (distribution.any_shape and place.tensor.dim() > 1)


def _distributed(distribution: Distribution) -> Callable[[nn.Module], Scheme]:
    def scheme(model: nn.Module) -> Scheme:
        if not distribution.any_shape:
            return _spread(model, distribution.says, lambda place: distribution.fill)
        return Scheme(
            distribution.says, lambda place: distribution.fill if draws(distribution, place) else usual(place)
        )

    return scheme


def _constant(distribution: Distribution) -> Callable[[nn.Module], Scheme]:
    return lambda model: Scheme(distribution.says, lambda place: distribution.fill)


def _resnet(model: nn.Module) -> Scheme:
    """He normal by fan_out on convolutions, which keeps the gradient's variance; no ReLU follows the last layer.

    The last norm of a block starts at one as published, not at zero (Goyal et al. 2017): on nets as shallow as these
    small ones it gains nothing that a warm-up does not.
    """

    def weight(place: Place) -> Fill:
        ins, outs = fans(place.tensor)
        return normal(math.sqrt(1 / ins if place.layer == "fc" else 2 / outs))

    return _spread(model, "He normal, variance 2 / fan_out (He et al. 2015)", weight)


def _fast_convnet(model: nn.Module) -> Scheme:
    """Uniform, as torch draws by default, and each channel's own added to it: layers begin near the identity.

    Jordan 2024, section 3.2; the head normal with variance 1 / fan_in, for the largest of each channel.
    """

    def weight(place: Place) -> Fill:
        ins = fans(place.tensor)[0]
        return normal(math.sqrt(1 / ins)) if place.layer == "fc" else identity(uniform(math.sqrt(1 / (3 * ins))))

    return _spread(model, "uniform, variance 1 / (3 fan_in), first channels the identity (Jordan 2024)", weight)


def _decoder_or_encoder(source: str) -> Callable[[nn.Module], Scheme]:
    """Normal 0.02; what adds to the residual stream by 1 / sqrt(2 layers) less (Radford et al. 2019, section 2.3).

    Of BERT too, whose norms come first here. A truncated normal as in its authors' code (Devlin et al. 2019) differs
    from it in one draw of twenty.
    """

    def scheme(model: nn.Module) -> Scheme:
        ends = residual_ends(model)
        scale = 1 / math.sqrt(len(ends))
        says = f"normal {SPREAD}, residual projections by 1 / sqrt({len(ends)}) less{source}"
        return _spread(model, says, lambda place: normal(SPREAD * (scale if place.layer in ends else 1)))

    return scheme


def _speech(model: nn.Module) -> Scheme:
    """Variance 1 / fan_in (LeCun et al. 1998), which norms keep; what adds to the residual stream less, as in GPT-2."""
    ends = residual_ends(model)
    scale = 1 / math.sqrt(len(ends))

    def weight(place: Place) -> Fill:
        spread = 1 / math.sqrt(fans(place.tensor)[0])
        return normal(spread * scale if place.layer in ends else spread)

    return _spread(model, f"normal, variance 1 / fan_in, residual projections by 1 / sqrt({len(ends)}) less", weight)


def _wav2vec2(model: nn.Module) -> Scheme:
    """As its authors' code and transformers' draw it; lengths of positions are what their directions have."""
    assert isinstance(model, Wav2Vec2)
    std = position_std(model.positions)
    rows = model.positions.direction.shape[0] * model.positions.direction.shape[1]

    def fill(place: Place) -> Fill | None:
        if place.layer == "positions" and place.role == "other":
            return normal(std) if place.tensor.dim() > 1 else constant(std * math.sqrt(rows))
        if place.role != "weight":
            return usual(place)
        ins = fans(place.tensor)[0]
        if place.layer.startswith("convolutions."):
            return normal(math.sqrt(2 / ins))
        return uniform(math.sqrt(1 / (3 * ins))) if place.layer == "join" else normal(SPREAD)

    return Scheme(f"normal {SPREAD}, convolutions He normal by fan_in (Baevski et al. 2020)", fill)


def _tabular(model: nn.Module) -> Scheme:
    """Variance 1 / fan_in in the trunk, lookups as large as the numbers beside them; the rest as its code draws it."""

    def fill(place: Place) -> Fill | None:
        if place.role == "embedding":
            return zero_first(normal(LOOKUP_STD))
        return normal(math.sqrt(1 / fans(place.tensor)[0])) if place.role == "weight" else usual(place)

    return Scheme(f"normal, variance 1 / fan_in; lookups normal {LOOKUP_STD}, that of what is not known zero", fill)


# What the authors of each family used. Of ViT those who trained it on ImageNet alone (Touvron et al. 2021, section 6),
# and transformers: its first ones (Dosovitskiy et al. 2021) drew Xavier's.
FAMILY_DEFAULTS: dict[type[nn.Module], Callable[[nn.Module], Scheme]] = {
    ResNet: _resnet,
    FastConvNet: _fast_convnet,
    GPT: _decoder_or_encoder(" (GPT-2)"),
    # its authors do not say; what llama2.c trains the form with (Karpathy 2023)
    Llama: _decoder_or_encoder(" (llama2.c)"),
    BERT: _decoder_or_encoder(""),
    OriginalBERT: _distributed(DISTRIBUTIONS["truncated_normal"]),
    MLP: _distributed(DISTRIBUTIONS["he_normal"]),
    TableMLP: _tabular,
    # a layer of classes after an average; its authors draw vectors within 1 / width, and begin the layer at zero
    NGrams: _distributed(DISTRIBUTIONS["lecun_normal"]),
    ViT: _distributed(DISTRIBUTIONS["truncated_normal"]),
    Speech: _speech,
    Wav2Vec2: _wav2vec2,
}
# whose default scales residual branches by depth already
SCALED_BY_DEFAULT = (GPT, Llama, BERT, Speech)


def default(model: nn.Module) -> Scheme:
    """What the authors of the model's family used; ``he_normal`` for a module of no family here."""
    return FAMILY_DEFAULTS.get(type(model), INITS["he_normal"])(model)


def depth_scaled(model: nn.Module) -> Scheme:
    """The default, and the last layer of each of N residual branches 1 / sqrt(N) as large.

    The sum of N branches then has the variance of one (Radford et al. 2019, section 2.3; of normalised branches, De and
    Smith 2020, section 3). Where a norm is last, as in a ResNet, its scale is what counts.
    """
    base, ends = default(model), _ends(model, "depth_scaled")
    if isinstance(model, SCALED_BY_DEFAULT):
        return base
    says = f"{base.says}; last layers of {len(ends)} residual branches by 1 / sqrt({len(ends)}) less"
    return Scheme(says, _with_ends(base, ends, 1 / math.sqrt(len(ends))))


def zero_residual(model: nn.Module) -> Scheme:
    """The default, and the last layer of each residual branch zero: blocks begin as the identity.

    Goyal et al. 2017, section 5.1, for the last norm of a ResNet's block; Zhang et al. 2019 (Fixup) for layers.
    """
    base, ends = default(model), _ends(model, "zero_residual")
    says = f"{base.says}; last layers of {len(ends)} residual branches zero"
    return Scheme(says, _with_ends(base, ends, 0.0))


def _with_ends(base: Scheme, ends: set[str], factor: float) -> Callable[[Place], Fill | None]:
    """The fills of a scheme, those of some layers so many times as large; all others draw the same numbers."""

    def fill(place: Place) -> Fill | None:
        own = base.fill(place)
        return scaled(own, factor) if own is not None and place.layer in ends else own

    return fill


def _ends(model: nn.Module, name: str) -> set[str]:
    ends = residual_ends(model)
    if not ends:
        raise JobError(
            f"train.init is {name}, and the model has no residual branches that are known",
            mend="Those of the table's ResNets and Transformers are; of another, name its last layers by pattern.",
        )
    return set(ends)


def own(model: nn.Module) -> Scheme:
    """What the model's own code has drawn, or the weights that it names."""
    return Scheme("as its own code has it", lambda place: None)


def mup(model: nn.Module) -> Scheme:
    """Weights that go with the model's width, as its rates then do (`thrifty.models.mup`)."""
    says = f"muP at {relative_width(model):g} base widths: variance by fan_in, the head's less by as much again"
    return Scheme(says, fill_of(model))


INITS: dict[str, Callable[[nn.Module], Scheme]] = {
    "default": default,
    "own": own,
    "depth_scaled": depth_scaled,
    "zero_residual": zero_residual,
    "mup": mup,
    **{name: _distributed(each) for name, each in DISTRIBUTIONS.items()},
    **{name: _constant(each) for name, each in CONSTANTS.items()},
}
