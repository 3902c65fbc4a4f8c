"""Exchange of weights with Hugging Face's transformers: their directories into models of ours, and ours into theirs.

A family that can be exchanged has a file here with its `Form`, and a row in `FORMS` under its ``model_type``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, JobError, nearest
from thrifty.models.exchange.bert import BERT
from thrifty.models.exchange.bundled import INFO, form_of_bundled, read_bundled
from thrifty.models.exchange.folder import CONFIG, read_config, write_folder
from thrifty.models.exchange.form import Config, Form
from thrifty.models.exchange.gpt2 import GPT2
from thrifty.models.exchange.llama import LLAMA
from thrifty.models.exchange.resnet import RESNET
from thrifty.models.exchange.vit import VIT
from thrifty.models.exchange.wav2vec2 import WAV2VEC2
from thrifty.spec import ModelPlan

if TYPE_CHECKING:
    from torch import nn

    from thrifty.models.exchange.weights import Filled

FORMS: dict[str, Form] = {
    "bert": BERT,
    "gpt2": GPT2,
    "llama": LLAMA,
    "resnet": RESNET,
    "vit": VIT,
    "wav2vec2": WAV2VEC2,
}


def read_plan(folder: Path) -> ModelPlan:
    """Read what model of ours a directory holds the weights of, with the sizes of its config.

    Raises:
        BundleError: there is no config that can be read, of no type in `FORMS`, or of a kind that ours is not.
    """
    values = read_config(folder)
    kind = values.get("model_type")
    if kind not in FORMS:
        raise BundleError(
            f"'{folder / CONFIG}' is of a model of type {kind!r:.100}, which is none of ours",
            nearest=nearest(str(kind), FORMS),
            mend=f"Ours are: {', '.join(FORMS)}. Any other is named with hf:.",
        )
    form = FORMS[kind]
    return ModelPlan(
        name=folder.name, family=form.family, arguments=form.arguments(Config(values, str(folder / CONFIG)))
    )


def twin_of(plan: ModelPlan, length: int) -> ModelPlan | None:
    """Say which model of ours computes what one of transformers does (``hf:``), None where none is known to; no torch.

    Args:
        plan: of the family ``hf``.
        length: of the texts that it reads; ours reads none that are longer.
    """
    try:
        values = json.loads(plan.arguments["config"])
        form = FORMS[values["model_type"]]
        sizes = form.arguments(Config(values, plan.name))
    except (BundleError, KeyError, TypeError, ValueError):  # a type that is none of ours, or a kind that ours is not
        return None
    if "length" in sizes:
        sizes["length"] = min(length, sizes["length"])
    return ModelPlan(name=plan.name, family=form.family, arguments=sizes)


def take_over(model: nn.Module, plan: ModelPlan, theirs: nn.Module) -> None:
    """Give a model of ours the weights of transformers' own.

    Args:
        model: built from ``plan``, as `twin_of` makes it.
        plan: of it.
        theirs: whose weights are copied, in the type that ``model`` has.

    Raises:
        BundleError: they are of another model, or not finite.
    """
    from thrifty.models.exchange.weights import Held, fill_from

    fill_from(Held(theirs.state_dict(), Path(plan.name)), model, form_of(plan)[1], plan.arguments)


def read_any(folder: Path) -> ModelPlan:
    """As `read_plan`, of a bundle of ours too.

    Raises:
        BundleError: as `read_plan`.
    """
    return read_bundled(folder) if (folder / INFO).is_file() else read_plan(folder)


def load_weights(model: nn.Module, plan: ModelPlan, folder: Path) -> Filled:
    """Give a model of ours the weights of a directory or of a bundle; return what was not taken over.

    Raises:
        JobError: the plan's family has no form there.
        BundleError: the weights cannot be read or are of another model; tensors at fault are named.
    """
    from thrifty.models.exchange.weights import fill

    form = form_of_bundled(model, plan) if (folder / INFO).is_file() else form_of(plan)[1]
    return fill(model, form, plan.arguments, folder)


def save(model: nn.Module, plan: ModelPlan, folder: Path, labels: Sequence[str] = (), **more: Any) -> None:
    """Write a model of ours in their layout; ``from_pretrained`` of transformers reads it.

    Args:
        model: with the weights.
        plan: that it was built from.
        folder: is made.
        labels: names of the classes, of a classifier; numbered where left out, as transformers does it.
        more: of the config, such as ``eos_token_id``.

    Raises:
        JobError: the plan's family has no form there.
        StorageError: the disk is full or the place read-only.
    """
    from thrifty.models.exchange.weights import collect

    kind, form = form_of(plan)
    config: dict[str, Any] = {
        "model_type": kind,
        "architectures": [form.architecture],
        **form.config(plan.arguments),
        "dtype": "float32",
        # those that a type has by itself are of its authors' tokenizer
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }
    classes = plan.arguments.get("classes", plan.arguments.get("outputs", 0))
    names = list(labels) or [f"LABEL_{number}" for number in range(classes)]
    if names and not plan.arguments.get("transcribes", False):
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    write_folder(folder, config, collect(model, form, plan.arguments))


def form_of(plan: ModelPlan) -> tuple[str, Form]:
    """Return the ``model_type`` and the form of a plan's family.

    Raises:
        JobError: it has none.
    """
    for kind, form in FORMS.items():
        if form.family == plan.family:
            return kind, form
    raise JobError(
        f"model '{plan.name}' has no form in Hugging Face's transformers",
        mend=f"Families that have one: {', '.join(form.family for form in FORMS.values())}.",
    )


__all__ = ["FORMS", "form_of", "load_weights", "read_plan", "save", "take_over", "twin_of"]
