"""`Bundle`: a trained model with all that raw input needs; written whole or not at all, distrusted when read."""

from __future__ import annotations

import copy
import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thrifty.errors import BundleError, DataError, JobError, unknown_name
from thrifty.export.check import INFO, TOKENIZER, is_name, read_info, sha256
from thrifty.export.engines import ENGINES, WEIGHTS, Computed, compute_of
from thrifty.export.folder import recover, replacing
from thrifty.export.forms import FORMS, check_raw
from thrifty.export.writing import can_write_in_int8
from thrifty.spec import BUNDLE_FORMAT, KINDS, BundleInfo, Dataset, ModelPlan, Spent

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn


DEVICES = ("cpu", "cuda")


class Bundle:
    """A model that answers raw input: files of images, texts, or prompts.

    Not for several threads at once: the server gives each bundle one thread that owns it. `form.row` holds no state
    and may be called from any thread.

    Attributes:
        info: what it is.
        folder: where it lies.
        model: in ``eval`` mode; of another engine than torch what is called like one.
        form: how it takes raw input, and what it answers with.
    """

    def __init__(
        self, info: BundleInfo, folder: Path, model: nn.Module | Computed, tokenizer: Tokenizer | None
    ) -> None:
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
        try:
            problem = self.form.probe()
        except Exception as error:  # whatever a model that does not fit its data raises
            raise BundleError(
                f"the model in '{self.folder}' does not answer: {error}", mend="Write it again."
            ) from error
        if problem:
            raise BundleError(
                f"the model in '{self.folder}' answers with {problem}", mend="Write the bundle again from its run."
            )


def load_bundle(folder: str | Path, *, threads: int | None = None, device: str = "cpu") -> Bundle:
    """Read a bundle, whoever made it: no code of it is run, and no size of it believed before it is checked.

    A model of a user's own is built by code that lies on this machine and that `thrifty.models.own` knows; native code
    of an engine is run where it was written.

    Args:
        folder: the bundle's.
        threads: that an engine other than torch computes with; as many as it likes when left out.
        device: that computes it, one of `DEVICES`; a GPU computes bundles of torch alone.

    Raises:
        BundleError: which file is missing, damaged, or not what it says, and how to mend it.
        JobError: the device cannot be had, or not for this bundle.
        MissingExtraError: the package of its engine is not installed.
    """
    folder = Path(folder).absolute()
    recover(folder)
    info = read_info(folder)
    check_device(device, info)
    if info.precision == "int8":
        from thrifty.export.engines.isa import warn_of_weaker

        warn_of_weaker(info)
    model = ENGINES[info.engine].load(folder, info, threads)
    if device != "cpu":
        model = cast("nn.Module", model).to(device)
    bundle = Bundle(info, folder, model, _tokenizer_of(info, folder))
    bundle.probe()
    return bundle


def check_device(device: str, info: BundleInfo) -> None:
    """Refuse a device that cannot compute a bundle here.

    Raises:
        JobError: with what would do.
    """
    if device not in DEVICES:
        raise unknown_name("device of a bundle", device, DEVICES)
    if device == "cpu":
        return
    if info.engine != "torch":
        raise JobError(
            f"bundle '{info.name}' is computed by '{info.engine}', and a GPU computes bundles of torch alone",
            mend="Take the bundle as the run wrote it, or leave the device out.",
        )
    if info.precision == "int8":
        raise JobError(
            f"bundle '{info.name}' is in int8, whose kernels of torch are those of processors",
            mend="Take the bundle as the run wrote it, or leave the device out.",
        )
    import torch

    if not torch.cuda.is_available():
        raise JobError("device is cuda, and torch finds no GPU that it can use", mend="Leave the device out.")


def read_bundle(folder: str | Path) -> Bundle:
    """Read a bundle without its weights: it makes rows of raw input and describes answers, and computes none.

    It loads no torch; ``model`` is None. Hashes of all files are checked as by `load_bundle`.

    Raises:
        BundleError: which file is missing, damaged, or not what it says, and how to mend it.
    """
    folder = Path(folder).absolute()
    recover(folder)
    info = read_info(folder)
    return Bundle(info, folder, cast("nn.Module", None), _tokenizer_of(info, folder))


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
    if (tokenizer is not None) != KINDS[data.kind].tokenized:
        raise JobError(
            f"data of kind '{data.kind}' with tokenizer '{tokenizer}'", mend="A tokenizer belongs to text alone."
        )
    info = BundleInfo(
        format=BUNDLE_FORMAT,
        name=name,
        version=version,
        task=task,
        # another machine may be faster in another way, and has no such directory
        model=plan.model_copy(update={"attention": {}, "weights": ""}),
        data=data,
        metrics=dict(metrics),
        isa=tuple(isa),
        files={},
        bill=bill,
        created=_now(),
    )
    return _write(Path(folder).absolute(), info, model, tokenizer)[0]


def rewrite_bundle(
    folder: str | Path,
    source: Bundle,
    form: Any = None,
    *,
    engine: str = "torch",
    precision: str | None = None,
    isa: Sequence[str] | None = None,
    **changes: Any,
) -> tuple[BundleInfo, float | None]:
    """Write a bundle of a bundle: the same model, or what was made of it, for an engine to compute.

    Args:
        folder: to make, or a bundle to replace; not that of ``source``.
        source: computed by torch, unless ``form`` is given.
        form: the engine's own form of the model, such as an ``openvino.Model`` that was quantised or another
            ``nn.Module``; made here of the source's model when left out.
        engine, precision: a key of `ENGINES` and one of its precisions; its first when left out.
        isa: instruction sets that the form was judged on; those of this machine when left out.
        changes: other fields of `BundleInfo`.

    Returns:
        What was written, and the largest relative difference of its logits from the source's; None of a ``form``.

    Raises:
        JobError: there is no such engine or precision, or the folder holds something else than a bundle.
        BundleError: the model cannot take the engine's form, or what was written does not read back.
        MissingExtraError: the package of the engine is not installed.
        StorageError: the disk is full or the place read-only; the old bundle is untouched.
    """
    from thrifty.hardware.probe import instruction_sets

    row = ENGINES.get(engine)
    if row is None:
        raise unknown_name("engine", engine, ENGINES)
    precision = precision or row.precisions[0]
    if precision not in row.precisions:
        raise unknown_name(f"precision of the engine '{engine}'", precision, row.precisions)
    if form is None and precision == "int8" and engine != "torch":
        raise JobError("int8 needs ranges, which are measured on data", mend="See: thrifty compress.")
    if engine == "torch" and precision == "int8" and not can_write_in_int8(source.info):
        raise JobError(
            f"torch computes '{source.info.model.name}' in {' or '.join(row.precisions[:2])}: int8 is for language "
            "models of ours that write, on processors that multiply it",
            mend="See: thrifty compress, whose other engines have int8.",
        )
    made = row.convert(torch_model(source, plain=True), source.info.data) if form is None else form
    same = {"format": BUNDLE_FORMAT, "engine": engine, "precision": precision, "created": _now()}
    info = source.info.model_copy(update={**same, "isa": tuple(isa or instruction_sets()), **changes})
    tokenizer = source.folder / TOKENIZER if KINDS[info.data.kind].tokenized else None
    return _write(Path(folder).absolute(), info, made, tokenizer, like=source if form is None else None)


def torch_model(bundle: Bundle, *, plain: bool = False) -> nn.Module:
    """Return the torch model of a bundle.

    Args:
        plain: of a bundle in bf16 or int8 a copy in fp32, of the weights as they are rounded.

    Raises:
        BundleError: it is computed by another engine, and holds none.
    """
    if isinstance(bundle.model, Computed):
        raise BundleError(
            f"bundle '{bundle.folder}' is computed by '{bundle.info.engine}' and holds no torch model",
            mend="Take the bundle that it was made of.",
        )
    if plain and bundle.info.precision == "bf16":
        return copy.deepcopy(bundle.model).float()
    if plain and bundle.info.precision == "int8":
        from thrifty.export.weights import load

        return load(bundle.info.model, bundle.folder / WEIGHTS, whole=True)
    return bundle.model


def _write(
    folder: Path, info: BundleInfo, form: Any, tokenizer: Path | None, *, like: Bundle | None = None
) -> tuple[BundleInfo, float | None]:
    """Write a form and what belongs to it, and read it back; it has to answer ``like`` another bundle."""
    if not is_name(info.name):
        raise JobError(f"a bundle cannot be named {info.name!r}", mend="Use letters, digits, '.', '_' and '-'.")
    if folder.exists() and not (folder.is_dir() and ((folder / INFO).exists() or not any(folder.iterdir()))):
        raise JobError(f"'{folder}' holds something else than a bundle", mend="Choose another folder.")
    with replacing(folder, "a bundle") as fresh:
        ENGINES[info.engine].save(form, fresh, info.precision)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, fresh / TOKENIZER)
        info = info.model_copy(update={"files": {path.name: sha256(path) for path in sorted(fresh.iterdir())}})
        (fresh / INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")
        bundle = load_bundle(fresh)
        apart = None if like is None else _apart(bundle, like)
    return info, apart


def _apart(bundle: Bundle, like: Bundle) -> float:
    from thrifty.export.parity import RELATIVE, RELATIVE_ROUNDED, apart_by

    apart = apart_by(compute_of(bundle.model), compute_of(like.model), bundle.info.data)
    most = RELATIVE_ROUNDED if {"bf16", "int8"} & {bundle.info.precision, like.info.precision} else RELATIVE
    if not apart <= most:  # NaN must fail too
        raise BundleError(
            f"'{bundle.info.name}' answers otherwise by '{bundle.info.engine}' in {bundle.info.precision} than by "
            f"'{like.info.engine}': relative difference {apart:.3g}, over {most:g}",
            mend="Keep the bundle that it is made of.",
        )
    return apart


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _tokenizer_of(info: BundleInfo, folder: Path) -> Tokenizer | None:
    if not KINDS[info.data.kind].tokenized:
        return None
    from thrifty.data.documents.tokenizer import load_tokenizer
    from thrifty.data.texts.word_pieces import load_pieces

    try:
        return load_pieces(folder) if info.data.kind == "text" else load_tokenizer(folder, info.data.end)
    except DataError as error:
        raise BundleError(f"the bundle is damaged: {error.what}", mend="Write it again from its run.") from error
