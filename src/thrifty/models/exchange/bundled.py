"""A bundle of ours as weights to start from: the same names, and a head that another task does not share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from thrifty.errors import BundleError
from thrifty.models.exchange.folder import read_json
from thrifty.models.exchange.form import Form, Pair
from thrifty.spec import ModelPlan

if TYPE_CHECKING:
    from torch import nn

INFO = "bundle.json"
MAX_INFO_BYTES = 4 * 2**20
# what of our families tells classes or words, and is new where another is asked for
HEADS = ("fc.", "head_", "pooler.", "projector.", "words.")


def read_bundled(folder: Path) -> ModelPlan:
    """Read what model a bundle holds.

    Raises:
        BundleError: its description cannot be read.
    """
    values = read_json(folder / INFO, MAX_INFO_BYTES).get("model")
    try:
        return ModelPlan.model_validate_json(json.dumps(values))
    except ValidationError as error:
        says = f"'{folder / INFO}' describes no model: {error.errors()[0]['msg']}"
        raise BundleError(says, mend="Write it again from its run.") from None


def form_of_bundled(model: nn.Module, plan: ModelPlan) -> Form:
    """Return how a model takes the weights of a bundle: every tensor under its own name."""

    def pairs(_: object) -> Iterator[Pair]:
        for name in model.state_dict():
            yield Pair(name, (name,), head=name.startswith(HEADS), cut=name in {"positions.weight", "wpe.weight"})

    return Form(
        family=plan.family,
        architecture="",
        arguments=lambda config: {},
        config=lambda arguments: {},
        pairs=pairs,
        spare=tuple(f"{head}*" for head in HEADS),
    )
