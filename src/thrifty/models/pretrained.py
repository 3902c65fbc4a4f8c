"""A model of ours that starts from weights in Hugging Face's layout: ``ours:<directory>``.

Its family and sizes are those of the directory's ``config.json``; the data gives the classes, and a shorter length. All
else of the data must be what the weights were trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thrifty.errors import JobError, nearest
from thrifty.models.exchange import read_plan
from thrifty.models.exchange.folder import CONFIG, content_hash
from thrifty.spec import Dataset, ModelPlan

PREFIX = "ours:"
# what to set in a job where the weights have another size than the data
_MENDS = {
    "vocabulary": "Cut texts with the tokenizer of the weights: data.tokenizer.",
    "channels": "Set data.color to rgb for 3 channels, to gray for 1.",
    "side": "Set data.size to the side that the weights were trained on.",
}

FromData = Callable[[str, Mapping[str, Any], Dataset], dict[str, Any]]


def is_pretrained(name: str) -> bool:
    """Say whether a model's name has the form ``ours:<directory>``."""
    return name.startswith(PREFIX)


def find(name: str) -> Path:
    """Check that a name's directory is there; return it.

    Raises:
        JobError: it is not, or holds no config.
    """
    folder = Path(name.removeprefix(PREFIX))
    if not folder.is_dir():
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
        raise JobError(
            f"there is no directory '{folder}', named by the model '{name}'",
            nearest=nearest(folder.name, beside),
            mend="Name a directory with config.json and model.safetensors.",
        )
    if not (folder / CONFIG).is_file():
        raise JobError(f"directory '{folder}' has no {CONFIG}", mend="Save a model in it: model.save_pretrained(...).")
    return folder


def content_key(name: str) -> str:
    """Key of what the directory holds.

    Raises:
        JobError: as `find`.
    """
    return PREFIX + content_hash(find(name))


def resolve(name: str, dataset: Dataset, kinds: Mapping[str, tuple[str, ...]], from_data: FromData) -> ModelPlan:
    """Read what model of ours the weights are of, and fit it to the data.

    Args:
        name: ``ours:<directory>``.
        dataset: to learn from.
        kinds: of data, by family.
        from_data: what a family with some arguments takes from data.

    Raises:
        JobError: the data is of another kind or size than the weights.
        BundleError: the directory cannot be read, or is of a model that is none of ours.
    """
    folder = find(name)
    plan = read_plan(folder)
    if dataset.kind not in kinds[plan.family]:
        raise JobError(
            f"'{folder}' holds weights of a model that learns from data of kind '{kinds[plan.family][0]}', and this is "
            f"'{dataset.kind}'"
        )
    sizes = from_data(plan.family, plan.arguments, dataset)
    for key, wanted in sizes.items():
        had = plan.arguments[key]
        if key == "length" and wanted > had:
            raise JobError(
                f"the weights in '{folder}' read {had} tokens at most, and the data has texts of {wanted}",
                mend=f"Set data.length: {had}.",
            )
        if key not in {"classes", "length"} and wanted != had:
            raise JobError(
                f"the weights in '{folder}' have {key} {had}, and the data has {wanted}", mend=_MENDS.get(key, "")
            )
    return ModelPlan(
        name=f"{PREFIX}{folder.name}",
        family=plan.family,
        arguments={**plan.arguments, **sizes},
        weights=str(folder),
    )
