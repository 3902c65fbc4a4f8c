"""Give a model its initial weights, by name or by pattern; the same seed gives the same weights anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

import thrifty.models.exchange as exchange
from thrifty.errors import JobError, unknown_name
from thrifty.models.adapters import matching
from thrifty.models.fills import CONSTANTS, DISTRIBUTIONS, Fill
from thrifty.models.hf import load_weights
from thrifty.models.logits import Logits
from thrifty.models.places import Place, places
from thrifty.models.schemes import INITS, draws
from thrifty.spec import ModelPlan

REST = "*"


@torch.no_grad()
def initialise(model: nn.Module, init: str | Mapping[str, str], seed: int, plan: ModelPlan | None = None) -> str:
    """Give a model its initial weights, in place; return one line that says what was done.

    Weights depend on the model's shape, ``init`` and ``seed`` alone, whatever the device; torch's own random state is
    neither read nor changed. Biases become 0, norms 1 and 0, and running statistics start afresh; ``own`` leaves all as
    the model's own code has it.

    Args:
        model: of any family or none.
        init: a name of `thrifty.models.schemes.INITS`; or one for each pattern of parameters, as `assign` takes them.
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
    if distribution is not None and not any(draws(distribution, place) for place in fresh):
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
