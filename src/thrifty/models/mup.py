"""muP: initial weights and rates that go with a model's width, so that a rate tuned on a narrow one holds on a wide.

Yang et al. 2022, "Tensor Programs V" (arXiv 2203.03466), table 3, relative to a base width, at which all is usual. With
r base widths, and what maps a fixed number of inputs to the width called input:

    ==================  ==========================  ======  ============  ====================
    times               input, biases, norms        hidden  head          last norm, tied head
    ==================  ==========================  ======  ============  ====================
    variance            1                           1 / r   1 / r^2       1 / r^2
    rate of Adam        1                           1 / r   1 / r         1 / r
    rate of SGD         r; 1 for the head's bias    1       1 / r         1 / r
    ==================  ==========================  ======  ============  ====================

A head that is the embedding keeps the embedding's scale; the last norm before it takes what a multiplier of 1 / r would
do (lemma J.1). Scores of attention are over the root of a head's width, as usual: the paper's, over the width itself,
differ by a number that is the same for all models whose heads are as wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from torch import nn

from thrifty.errors import JobError
from thrifty.models.bert import BERT
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.fills import Fill, constant, fans, normal
from thrifty.models.gpt import GPT
from thrifty.models.llama import Llama
from thrifty.models.mlp import MLP
from thrifty.models.places import Place, places, usual
from thrifty.models.residuals import residual_ends
from thrifty.models.resnet import ResNet
from thrifty.models.vit import ViT

Steps = Literal["adam", "sgd"]


class Family(NamedTuple):
    """What of a family's models goes with their width.

    Attributes:
        base: width at which all is usual: the narrowest of the table.
        wide: a parameter with as many rows as the model is wide.
        norm: the last norm.
        head: the last layer.
        input: the layer that reads a fixed number of inputs, where it is no embedding.
        gain: of the variance: 2 where a ReLU halves it.
    """

    base: int
    wide: str
    norm: str = "norm"
    head: str = "fc"
    input: str = ""
    gain: int = 1


FAMILIES: dict[type[nn.Module], Family] = {
    ResNet: Family(16, "conv1.weight", input="conv1", gain=2),
    MLP: Family(128, "hidden.0.weight", input="hidden.0", gain=2),
    ViT: Family(128, "norm.weight", input="patches"),
    BERT: Family(128, "norm.weight"),
    OriginalBERT: Family(128, "norm_0.weight"),
    GPT: Family(192, "ln_f.weight", norm="ln_f"),
    Llama: Family(192, "norm.weight", head="head"),
}


def family_of(model: nn.Module) -> Family:
    """Return what goes with the width of a model.

    Raises:
        JobError: it is of no family that this is known of.
    """
    if type(model) not in FAMILIES:
        raise JobError(
            "train.init is mup, and which parameters of this model go with its width is not known",
            mend="It is for ResNets, MLPs, ViTs, BERTs, GPTs and Llamas of the table.",
        )
    return FAMILIES[type(model)]


def relative_width(model: nn.Module) -> float:
    """Return the width of a model in base widths.

    Raises:
        JobError: as `family_of`.
    """
    family = family_of(model)
    return len(model.get_parameter(family.wide)) / family.base


def fill_of(model: nn.Module) -> Callable[[Place], Fill | None]:
    """Return what tells how a parameter is drawn.

    The last layers of N residual branches are 1 / sqrt(N) less, as by ``depth_scaled``.

    Raises:
        JobError: as `family_of`.
    """
    family, ends, width = family_of(model), residual_ends(model), relative_width(model)
    tied = _tied(model, family)

    def fill(place: Place) -> Fill | None:
        if tied and place.layer == family.norm and place.role == "norm":
            return constant(1 / width)
        if place.role != "weight":
            return usual(place)
        ins, _ = fans(place.tensor)
        if place.layer == family.head:
            return normal(1 / math.sqrt(ins * width))
        return normal(math.sqrt(family.gain / ins / (len(ends) if place.layer in ends else 1)))

    return fill


def rate_shares(model: nn.Module, steps: Steps) -> dict[str, float]:
    """Return the share of the rate that parameters get, by patterns of their names; others get all of it.

    Args:
        model: may be without memory.
        steps: of the optimizer: of one size whatever the gradient's, as Adam's, or in proportion to it.

    Raises:
        JobError: as `family_of`.
    """
    family, width = family_of(model), relative_width(model)
    tied = _tied(model, family)

    def share(place: Place) -> float:
        if place.layer == family.head and place.role == "bias":
            return 1.0
        if (place.layer == family.head and place.role == "weight") or (tied and place.layer == family.norm):
            return 1 / width
        if place.role == "weight" and place.layer != family.input:
            return 1 / width if steps == "adam" else 1.0
        return 1.0 if steps == "adam" else width

    return _by_pattern({place.name: share(place) for place in places(model)})


def _tied(model: nn.Module, family: Family) -> bool:
    return getattr(model, family.head, None) is None


def _by_pattern(shares: Mapping[str, float]) -> dict[str, float]:
    """Put names that differ by numbers under one pattern, where all that it matches have the same share."""
    found = {}
    for name, share in shares.items():
        pattern = re.sub(r"\.\d+\.", ".*.", name)
        alike = all(each == share for other, each in shares.items() if fnmatchcase(other, pattern))
        if share != 1:
            found[pattern if alike else name] = share
    return found
