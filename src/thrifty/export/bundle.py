"""`Bundle`: a trained model with all that raw input needs; written whole or not at all, distrusted when read."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, DataError, JobError
from thrifty.export.check import INFO, TOKENIZER, WEIGHTS, is_name, read_info, sha256
from thrifty.export.folder import recover, replacing
from thrifty.export.forms import FORMS, check_raw
from thrifty.spec import BUNDLE_FORMAT, KINDS, BundleInfo, Dataset, ModelPlan, Spent

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn


class Bundle:
    """A model that answers raw input: files of images, texts, or prompts.

    Not for several threads at once: the server gives each bundle one thread that owns it. `form.row` holds no state
    and may be called from any thread.

    Attributes:
        info: what it is.
        folder: where it lies.
        model: in ``eval`` mode, on the CPU.
        form: how it takes raw input, and what it answers with.
    """

    def __init__(self, info: BundleInfo, folder: Path, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        self.info, self.folder, self.model = info, folder, model
        self.form = FORMS[info.data.kind, info.task](info, model, tokenizer)

    def predict(self, raw: bytes | str | Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Answer one raw input, such as the bytes of an image file or a row of a table; or a prompt, with its options.

        Returns:
            ``label``, ``probability`` and ``probabilities`` by label; or ``value``; or ``completion``.

        Raises:
            DataError: the input cannot be read.
            RequestError: text for an image model, or bytes for one that reads text.
        """
        check_raw(self.form, self.info.name, raw, options)
        return self.form.described(self.form.answers([self.form.row(raw, **options)])[0])

    def probe(self) -> None:
        """Answer one made-up input, so that a model that cannot answer is found before it is asked.

        Raises:
            BundleError: it does not answer, or with another number of labels or tokens than it has names for.
        """
        import torch

        try:
            with torch.inference_mode():
                problem = self.form.probe()
        except Exception as error:  # whatever a model that does not fit its data raises
            raise BundleError(
                f"the model in '{self.folder}' does not answer: {error}", mend="Write it again."
            ) from error
        if problem:
            raise BundleError(
                f"the model in '{self.folder}' answers with {problem}", mend="Write the bundle again from its run."
            )


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle, whoever made it: no code of it is run, and no size of it believed before it is checked.

    A model of a user's own is built by code that lies on this machine and that `thrifty.models.own` knows.

    Raises:
        BundleError: which file is missing, damaged, or not what it says, and how to mend it.
    """
    from thrifty.export.weights import load

    folder = Path(folder).absolute()
    recover(folder)
    info = read_info(folder)
    bundle = Bundle(info, folder, load(info.model, folder / WEIGHTS), _tokenizer_of(info, folder))
    bundle.probe()
    return bundle


def write_bundle(
    folder: str | Path,
    *,
    name: str,
    version: int,
    task: str,
    model: nn.Module,
    plan: ModelPlan,
    data: Dataset,
    tokenizer: Path | None,
    metrics: Mapping[str, float],
    isa: Sequence[str],
    bill: Spent,
) -> BundleInfo:
    """Write a bundle and read it back; a kill at any instant leaves the old bundle of this folder or the new.

    Args:
        folder: to make, or a bundle to replace.
        name, version: of the model on the server.
        task: ``classify``, ``regress`` or ``language``.
        model, plan: the trained model and what it was built from.
        data: of the prepared data.
        tokenizer: its file; of data that is text.
        metrics: of the held-out test split.
        isa: instruction sets of this machine.
        bill: spent on the run.

    Raises:
        JobError: the folder holds something else than a bundle, or an argument cannot be meant.
        BundleError: the weights are not finite, or what was written does not read back.
        StorageError: the disk is full or the place read-only; the old bundle is untouched.
    """
    from thrifty.export.weights import save

    folder = Path(folder).absolute()
    if not is_name(name):
        raise JobError(f"a bundle cannot be named {name!r}", mend="Use letters, digits, '.', '_' and '-'.")
    if (tokenizer is not None) != KINDS[data.kind].tokenized:
        raise JobError(
            f"data of kind '{data.kind}' with tokenizer '{tokenizer}'", mend="A tokenizer belongs to text alone."
        )
    if folder.exists() and not (folder.is_dir() and ((folder / INFO).exists() or not any(folder.iterdir()))):
        raise JobError(f"'{folder}' holds something else than a bundle", mend="Choose another folder.")
    with replacing(folder, "a bundle") as fresh:
        save(model, fresh / WEIGHTS)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, fresh / TOKENIZER)
        info = BundleInfo(
            format=BUNDLE_FORMAT,
            name=name,
            version=version,
            task=task,
            model=plan,
            data=data,
            metrics=dict(metrics),
            isa=tuple(isa),
            files={path.name: sha256(path) for path in sorted(fresh.iterdir())},
            bill=bill,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        (fresh / INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")
        load_bundle(fresh)
    return info


def _tokenizer_of(info: BundleInfo, folder: Path) -> Tokenizer | None:
    if not KINDS[info.data.kind].tokenized:
        return None
    from thrifty.data.documents.tokenizer import load_tokenizer
    from thrifty.data.texts.word_pieces import load_pieces

    try:
        return load_pieces(folder) if info.data.kind == "text" else load_tokenizer(folder, info.data.end)
    except DataError as error:
        raise BundleError(f"the bundle is damaged: {error.what}", mend="Write it again from its run.") from error
