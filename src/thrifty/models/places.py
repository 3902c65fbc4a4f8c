"""The parameters of a model, and what each of them is, by which initial weights go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from thrifty.models.adapters import shown_name
from thrifty.models.fills import SPREAD, Fill, constant, normal

POSITION_STD = 0.01

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


def usual(place: Place) -> Fill | None:
    """Biases 0, norms 1; lookup tables, whose rows have no fan, normal, as GPT-2's code has it."""
    if place.role == "embedding":
        return normal(POSITION_STD if place.layer.endswith(("wpe", "positions")) else SPREAD)
    return {"norm": constant(1.0), "bias": constant(0.0)}.get(place.role)
