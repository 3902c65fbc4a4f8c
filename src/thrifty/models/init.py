"""Initial weights by name, or by name for each pattern of parameters; the same seed gives the same weights anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

import thrifty.models.exchange as exchange
from thrifty.errors import JobError, unknown_name
from thrifty.models.adapters import matching, shown_name
from thrifty.models.bert import BERT
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.fills import CONSTANTS, DISTRIBUTIONS, SPREAD, Distribution, Fill, constant, fans, normal, scaled
from thrifty.models.gpt import GPT
from thrifty.models.hf import load_weights
from thrifty.models.llama import Llama
from thrifty.models.logits import Logits
from thrifty.models.mlp import MLP
from thrifty.models.residuals import residual_ends
from thrifty.models.resnet import ResNet
from thrifty.models.speech import Speech
from thrifty.models.vit import ViT
from thrifty.spec import ModelPlan

POSITION_STD = 0.01
REST = "*"

Role = Literal["weight", "embedding", "norm", "bias", "other"]


class Place(NamedTuple):
    """A parameter, and what it is in its model.

    Attributes:
        name: as the model's author knows it.
        tensor: to be filled.
        role: ``weight`` of a linear layer or convolution, ``embedding``, scale of a ``norm``, ``bias``, or ``other``.
        layer: name of the module that holds it.
    """

    name: str
    tensor: Tensor
    role: Role
    layer: str


class Scheme(NamedTuple):
    """How the parameters of a model are filled: in words, and by place; None leaves one as it is."""

    says: str
    fill: Callable[[Place], Fill | None]


def places(model: nn.Module) -> Iterator[Place]:
    """Yield the parameters of a model: weights first, then embeddings, which win where the two are tied."""
    found = list(_places(model))
    for role in ("weight", "embedding", "norm", "bias", "other"):
        yield from (place for place in found if place.role == role)


def _places(model: nn.Module) -> Iterator[Place]:
    for layer, module in model.named_modules():
        for name, tensor in module.named_parameters(recurse=False):
            yield Place(shown_name(model, f"{layer}.{name}".lstrip(".")), tensor, _role(module, name), layer)


def _role(module: nn.Module, name: str) -> Role:
    if name == "bias":
        return "bias"
    if name == "weight":
        if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)):
            return "weight"
        if isinstance(module, nn.Embedding):
            return "embedding"
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
            return "norm"
    return "other"


def _usual(place: Place) -> Fill | None:
    """Biases 0, norms 1; lookup tables, whose rows have no fan, normal, as GPT-2's code has it."""
    if place.role == "embedding":
        return normal(POSITION_STD if place.layer.endswith(("wpe", "positions")) else SPREAD)
    return {"norm": constant(1.0), "bias": constant(0.0)}.get(place.role)


def _spread(model: nn.Module, says: str, weight: Callable[[Place], Fill]) -> Scheme:
    """A scheme that fills weights in its own way and all else in the usual one."""
    embeds = any(isinstance(module, nn.Embedding) for module in model.modules())
    rest = f"; embeddings normal {SPREAD}, positions {POSITION_STD}" if embeds else ""
    return Scheme(says + rest, lambda place: weight(place) if place.role == "weight" else _usual(place))


def _draws(distribution: Distribution, place: Place) -> bool:
    return place.role == "weight" or (distribution.any_shape and place.tensor.dim() > 1)


def _distributed(distribution: Distribution) -> Callable[[nn.Module], Scheme]:
    def scheme(model: nn.Module) -> Scheme:
        if not distribution.any_shape:
            return _spread(model, distribution.says, lambda place: distribution.fill)
        return Scheme(
            distribution.says, lambda place: distribution.fill if _draws(distribution, place) else _usual(place)
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


# What the authors of each family used. Of ViT those who trained it on ImageNet alone (Touvron et al. 2021, section 6),
# and transformers: its first ones (Dosovitskiy et al. 2021) drew Xavier's.
FAMILY_DEFAULTS: dict[type[nn.Module], Callable[[nn.Module], Scheme]] = {
    ResNet: _resnet,
    GPT: _decoder_or_encoder(" (GPT-2)"),
    # its authors do not say; what llama2.c trains the form with (Karpathy 2023)
    Llama: _decoder_or_encoder(" (llama2.c)"),
    BERT: _decoder_or_encoder(""),
    OriginalBERT: _distributed(DISTRIBUTIONS["truncated_normal"]),
    MLP: _distributed(DISTRIBUTIONS["he_normal"]),
    ViT: _distributed(DISTRIBUTIONS["truncated_normal"]),
    Speech: _speech,
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
    usual, ends = default(model), _ends(model, "depth_scaled")
    if isinstance(model, SCALED_BY_DEFAULT):
        return usual
    says = f"{usual.says}; last layers of {len(ends)} residual branches by 1 / sqrt({len(ends)}) less"
    return Scheme(says, _with_ends(usual, ends, 1 / math.sqrt(len(ends))))


def zero_residual(model: nn.Module) -> Scheme:
    """The default, and the last layer of each residual branch zero: blocks begin as the identity.

    Goyal et al. 2017, section 5.1, for the last norm of a ResNet's block; Zhang et al. 2019 (Fixup) for layers.
    """
    usual, ends = default(model), _ends(model, "zero_residual")
    says = f"{usual.says}; last layers of {len(ends)} residual branches zero"
    return Scheme(says, _with_ends(usual, ends, 0.0))


def _with_ends(usual: Scheme, ends: set[str], factor: float) -> Callable[[Place], Fill | None]:
    """The fills of a scheme, those of some layers so many times as large; all others draw the same numbers."""

    def fill(place: Place) -> Fill | None:
        own = usual.fill(place)
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


INITS: dict[str, Callable[[nn.Module], Scheme]] = {
    "default": default,
    "own": own,
    "depth_scaled": depth_scaled,
    "zero_residual": zero_residual,
    **{name: _distributed(each) for name, each in DISTRIBUTIONS.items()},
    **{name: _constant(each) for name, each in CONSTANTS.items()},
}


@torch.no_grad()
def initialise(model: nn.Module, init: str | Mapping[str, str], seed: int, plan: ModelPlan | None = None) -> str:
    """Give a model its initial weights, in place; return one line that says what was done.

    Weights depend on the model's shape, ``init`` and ``seed`` alone, whatever the device; torch's own random state is
    neither read nor changed. Biases become 0, norms 1 and 0, and running statistics start afresh; ``own`` leaves all as
    the model's own code has it.

    Args:
        model: of any family or none.
        init: a name of `INITS`; or a name for each pattern of parameters' names, as `assign` takes them.
        seed: of the drawing.
        plan: of the model; weights that it names come last, so that ``init`` counts for what they do not have.

    Raises:
        JobError: as `assign`.
        BundleError: the weights cannot be read, or are of another model.
    """
    named = _by_pattern(init)
    assigned, loaded = assign(model, named), ""
    if named[REST] != "own":
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.reset_running_stats()
    elif isinstance(model, Logits) and model.weights:
        loaded = load_weights(model, seed)
        assigned = assign(model, named)  # its parameters are others now
    generator = torch.Generator().manual_seed(seed)
    for place, fill in assigned:
        _fill(place.tensor, fill, generator)
    rest = INITS[named.pop(REST)](model).says
    parts = [f"{pattern}: {_says(model, name)}" for pattern, name in named.items()]
    says = "; ".join([*parts, f"the rest: {loaded or rest}"]) if parts else loaded or rest
    if plan is None or not plan.weights:
        return says
    new = exchange.load_weights(model, plan, Path(plan.weights)).new
    return f"weights of {plan.weights}" + (f"; new are {', '.join(new)}: {says}" if new else "")


def assign(model: nn.Module, init: str | Mapping[str, str]) -> list[tuple[Place, Fill]]:
    """Say how each parameter is filled, in the order of drawing; those that stay as they are are left out.

    Of patterns (those of `fnmatch`) the first that matches a parameter counts. What none matches stays as it is.

    Raises:
        JobError: there is no initialiser of a name; or a pattern matches no parameter (the nearest is given), those
            alone that patterns before it have, or none that its name fills.

    >>> layers = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    >>> [place.name for place, _ in assign(layers, {"1.*": "xavier_normal"})]
    ['1.weight', '1.bias']
    """
    named = _by_pattern(init)
    for name in named.values():
        if name not in INITS:
            raise unknown_name("initialiser", name, INITS)
    every = {place.name: place for place in places(model)}
    left = dict(every)
    fills: dict[str, Fill | None] = {}
    for pattern, name in named.items():
        matched = matching((pattern,), every, "train.init", "parameter") if every else set()
        fresh = [left.pop(each) for each in matched & left.keys()]
        if pattern != REST:
            _check_fresh(pattern, name, fresh)
        scheme = INITS[name](model)
        fills |= {place.name: scheme.fill(place) for place in fresh}
    return [(place, fill) for each, place in every.items() if (fill := fills[each]) is not None]


def _says(model: nn.Module, name: str) -> str:
    """What a name does to the parameters of a pattern, without what it does to others."""
    return DISTRIBUTIONS[name].says if name in DISTRIBUTIONS else INITS[name](model).says


def _by_pattern(init: str | Mapping[str, str]) -> dict[str, str]:
    """A name for each pattern, the one for all the rest last."""
    named = {REST: init} if isinstance(init, str) else dict(init)
    rest = named.pop(REST, "own")
    return {**named, REST: rest}


def _check_fresh(pattern: str, name: str, fresh: list[Place]) -> None:
    if not fresh:
        raise JobError(
            f"train.init: all that '{pattern}' matches, patterns before it have",
            mend="The first pattern that matches counts: put the narrower one first.",
        )
    distribution = DISTRIBUTIONS.get(name)
    if distribution is not None and not any(_draws(distribution, place) for place in fresh):
        able = [*(key for key, each in DISTRIBUTIONS.items() if each.any_shape), *CONSTANTS]
        raise JobError(
            f"train.init: '{pattern}' matches no linear layer or convolution, and '{name}' draws no others",
            mend=f"For other parameters there are: {', '.join(able)}.",
        )


def _fill(weight: Tensor, fill: Fill, generator: torch.Generator) -> None:
    """Draw on the CPU in float32, whatever the weight is and wherever it lives."""
    drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
    fill(drawn, generator)
    weight.copy_(drawn)
