"""A model of ours that starts from weights: ``ours:<directory>``, in Hugging Face's layout, or a run or bundle of ours.

Family and sizes are those of the directory; the data gives the answers, and a shorter length. All else of the data must
be what the weights were trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thrifty.errors import JobError, nearest
from thrifty.models.exchange import read_any
from thrifty.models.exchange.bundled import INFO, read_bundled
from thrifty.models.exchange.folder import CONFIG, WEIGHTS, content_hash
from thrifty.spec import Dataset, ModelPlan

PREFIX = "ours:"
# what the data may have otherwise than the weights: what is answered, and a length that is no longer
_ANSWERS, _LENGTH = {"classes", "outputs", "transcribes"}, "length"
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
    """Check that a name's directory is there; return it, of a run its bundle.

    Raises:
        JobError: it is not, or holds no model.
    """
    folder = Path(name.removeprefix(PREFIX))
    if not folder.is_dir():
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
        raise JobError(
            f"there is no directory '{folder}', named by the model '{name}'",
            nearest=nearest(folder.name, beside),
            mend=f"Name a directory with {CONFIG} and {WEIGHTS}, or a run.",
        )
    for each, description in ((folder, CONFIG), (folder, INFO), (folder / "bundle", INFO)):
        if (each / description).is_file():
            return each
    raise JobError(
        f"directory '{folder}' has no {CONFIG}, and is no run",
        mend="Save a model in it: model.save_pretrained(...), or finish the run.",
    )


def content_key(name: str) -> str:
    """Key of the model and weights that the directory holds.

    Raises:
        JobError: as `find`.
    """
    folder = find(name)
    if not (folder / INFO).is_file():
        return PREFIX + content_hash(folder)
    # not of the whole description, which tells when it was written
    digest = hashlib.sha256(read_bundled(folder).model_dump_json().encode())
    return f"{PREFIX}{digest.hexdigest()}{content_hash(folder)}"


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
    plan = read_any(folder)
    if plan.family not in kinds or plan.family in {"own", "hf"}:
        raise JobError(
            f"'{folder}' holds a model of the family '{plan.family}', which does not start from weights of a bundle",
            mend="Name the model itself, and load the weights in its code.",
        )
    if dataset.kind not in kinds[plan.family]:
        raise JobError(
            f"'{folder}' holds weights of a model that learns from data of kind '{kinds[plan.family][0]}', and this is "
            f"'{dataset.kind}'"
        )
    sizes = from_data(plan.family, plan.arguments, dataset)
    kept = {key: value for key, value in plan.arguments.items() if key not in _ANSWERS}
    for key, wanted in sizes.items():
        had = kept.get(key, wanted)
        if key == _LENGTH and wanted > had:
            raise JobError(
                f"the weights in '{folder}' read {had} tokens at most, and the data has texts of {wanted}",
                mend=f"Set data.length: {had}.",
            )
        if key != _LENGTH and wanted != had:
            raise JobError(
                f"the weights in '{folder}' have {key} {had}, and the data has {wanted}", mend=_MENDS.get(key, "")
            )
    return ModelPlan(
        name=f"{PREFIX}{Path(name).name}", family=plan.family, arguments={**kept, **sizes}, weights=str(folder)
    )
