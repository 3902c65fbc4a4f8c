"""muP: initial weights and rates that go with a model's width, so that a rate tuned on a narrow one holds on a wide.

Yang et al. 2022, "Tensor Programs V" (arXiv 2203.03466), table 3, relative to a base width, at which all is usual. With
r base widths, and what maps a fixed number of inputs to the width called input:

    ==================  ==========================  ============  ============  ====================
    times               input, biases, norms        hidden        head          last norm, tied head
    ==================  ==========================  ============  ============  ====================
    variance            1                           1 / r         1 / r^2       1 / r^2
    rate of Adam        1                           1 / r         1 / r         1 / r
    rate of SGD         r; 1 for the head's bias    1             1 / r         1 / r
    rate of LAMB        1                           1 / sqrt(r)   1             1 / r
    rate of Adafactor   1                           1 / sqrt(r)   1             1
    ==================  ==========================  ============  ============  ====================

Adam stands for every optimizer whose steps have one size in each number, whatever the gradient's: Lion's are signs
(Yang and Littwin 2023, "Tensor Programs IVb", arXiv 2308.01814). LAMB's and Adafactor's are that times the size of the
tensor itself, which goes by width as muP draws it: what is left is Adam's share over it (Everett et al. 2024, arXiv
2407.05872, of Adafactor; Gupta et al. 2026, arXiv 2602.20937, of LAMB).

Muon steps hidden matrices by orthogonal ones, the others by AdamW. muP wants the largest singular value of the step of
a matrix [m, n] to go as sqrt(m / n) (Yang et al. 2023, "A spectral condition for feature learning", arXiv 2310.17813;
Qiu et al. 2025, arXiv 2512.05620, of Muon); here it goes as sqrt(max(m, n)), which the share takes back.

A head that is the embedding keeps the embedding's scale; the last norm before it takes what a multiplier of 1 / r would
do (lemma J.1). Scores of attention are over the root of a head's width, as usual: the paper's, over the width itself,
differ by a number that is the same for all models whose heads are as wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from torch import Tensor, nn

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

Steps = Literal["adam", "sgd", "lamb", "adafactor", "muon"]
Part = Literal["input", "hidden", "head", "last norm", "head's bias"]

# powers of r that rates go by; those of Muon are of what it leaves to AdamW
POWERS: dict[Steps, dict[Part, float]] = {
    "adam": {"hidden": -1, "head": -1, "last norm": -1},
    "sgd": {"input": 1, "head": -1, "last norm": -1},
    "lamb": {"hidden": -0.5, "last norm": -1},
    "adafactor": {"hidden": -0.5},
    "muon": {"hidden": -1, "head": -1, "last norm": -1},
}


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


def rate_shares(model: nn.Module, steps: Steps, hidden: Collection[str] = ()) -> dict[str, float]:
    """Return the share of the rate that parameters get, by patterns of their names; others get all of it.

    Args:
        model: may be without memory.
        steps: what the optimizer's are like.
        hidden: names of the matrices that Muon steps itself.

    Raises:
        JobError: as `family_of`.
    """
    family, width = family_of(model), relative_width(model)
    tied = _tied(model, family)

    def share(place: Place) -> float:
        part = _part(place, family, tied=tied)
        if steps == "muon" and place.name in hidden:
            return _of_orthogonal(place.tensor, width, grows_both_ways=part == "hidden")
        return width ** POWERS[steps].get(part, 0)

    return _by_pattern({place.name: share(place) for place in places(model)})


def _part(place: Place, family: Family, *, tied: bool) -> Part:
    """What a parameter is of in a table of muP's."""
    if place.layer == family.head and place.role in {"bias", "weight"}:
        return "head" if place.role == "weight" else "head's bias"
    if tied and place.layer == family.norm:
        return "last norm"
    return "hidden" if place.role == "weight" and place.layer != family.input else "input"


def _of_orthogonal(matrix: Tensor, width: float, *, grows_both_ways: bool) -> float:
    """The share of a step [m, n] that goes as sqrt(max(m, n)) and is to go as sqrt(m / n)."""
    rows, columns = len(matrix), math.prod(matrix.shape[1:])
    base = max(rows / width, columns / width if grows_both_ways else columns)
    return math.sqrt((1 if grows_both_ways else width) * base / max(rows, columns))


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
