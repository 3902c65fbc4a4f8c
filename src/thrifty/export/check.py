"""Distrust a bundle: what its files say is checked against limits, hashes and known names before anything is built."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from thrifty.errors import BundleError, nearest
from thrifty.export.engines import ENGINES
from thrifty.models.table import FAMILY_KINDS
from thrifty.spec import BUNDLE_FORMAT, KINDS, OLDEST_BUNDLE_FORMAT, TASK_METRICS, BundleInfo, KindName

INFO = "bundle.json"
TOKENIZER = "tokenizer.json"

MAX_INFO_BYTES = 4 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_ARGUMENT = 2**20
MAX_ARGUMENTS = 64
MAX_LAYERS = 1000
MAX_CHANGES = 8 * MAX_LAYERS
MAX_TOKENS = 2**16
MAX_FRAMES = 2**20
MAX_COLUMNS = 1000
_DEPTHS = ("layers", "blocks")  # arguments that make modules, and so cost time even where no memory is taken
_HF_DEPTHS = {"n_layer", "n_layers", "num_layers", "num_hidden_layers", "depth", "depths", "num_blocks", "num_experts"}
MAX_CONFIG = 2**20
MAX_CONFIG_NUMBER = 2**32
_AGAIN = "Write the bundle again from its run."
_FOREIGN = "Take bundles from whom you trust, or write it again from its run."


def read_info(folder: Path) -> BundleInfo:
    """Read and check ``bundle.json`` and the hash of every other file of a bundle.

    Raises:
        BundleError: which file is damaged or says something that cannot be meant, and how to mend it.
    """
    if not folder.is_dir():
        raise BundleError(f"there is no bundle folder '{folder}'", mend="A bundle is the folder 'bundle' of a run.")
    info = _parse(folder / INFO)
    _check_names(info, folder / INFO)
    for name, expected in info.files.items():
        path = folder / name
        size = regular_size(path)
        most = ENGINES[info.engine].files.get(name, MAX_TOKENIZER_BYTES)
        if size > most:
            kind = "a tokenizer" if name == TOKENIZER else f"such a file of the engine '{info.engine}'"
            raise BundleError(f"'{path}' has {size} bytes, over the {most} of {kind}", mend=_FOREIGN)
        if sha256(path) != expected:
            raise BundleError(f"'{path}' is damaged: its sha256 is not the one in {INFO}", mend=_AGAIN)
    return info


def _parse(path: Path) -> BundleInfo:
    size = regular_size(path)
    if size > MAX_INFO_BYTES:
        raise BundleError(f"'{path}' has {size} bytes, over the {MAX_INFO_BYTES} of a description", mend=_FOREIGN)
    content = path.read_bytes()
    _check_format(content, path)
    try:
        info = BundleInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its JSON"
        raise BundleError(f"'{path}' is damaged at {place}: {first['msg']}", mend=_AGAIN) from None
    return info


def _check_format(content: bytes, path: Path) -> None:
    """A later format may have keys that are unknown here: that it is later comes first."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    written = found.get("format") if isinstance(found, dict) else None
    if type(written) is int and not OLDEST_BUNDLE_FORMAT <= written <= BUNDLE_FORMAT:
        raise BundleError(
            f"'{path}' has bundle format {written}, this thrifty reads {OLDEST_BUNDLE_FORMAT} to {BUNDLE_FORMAT}",
            mend="Upgrade thrifty, or write the bundle again with this one.",
        )


def _check_names(info: BundleInfo, path: Path) -> None:
    """Every name in the description is one that thrifty itself would have written."""
    if not is_name(info.name):
        raise BundleError(
            f"'{path}' has the unsafe name {info.name[:100]!r}", mend="Use letters, digits, '.', '_', '-'."
        )
    if not 1 <= info.version < 2**63:
        raise BundleError(f"'{path}' has the version {info.version}", mend="A version is a whole number from 1.")
    if info.task not in TASK_METRICS:
        raise BundleError(
            f"'{path}' has the unknown task '{info.task[:100]}'", nearest=nearest(info.task, TASK_METRICS)
        )
    kind = KINDS[info.data.kind]
    if info.task not in kind.tasks:
        raise BundleError(f"'{path}': task '{info.task}' does not fit data of kind '{info.data.kind}'", mend=_AGAIN)
    _check_engine(info, path)
    files = (*ENGINES[info.engine].files, *((TOKENIZER,) if kind.tokenized else ()))
    if set(info.files) != set(files):
        named = ", ".join(sorted(info.files))[:200]
        known = ", ".join(files)
        raise BundleError(f"'{path}' names the files '{named}'; a bundle of this kind has: {known}", mend=_FOREIGN)
    _check_model(info, path)
    _DATA_CHECKS[info.data.kind](info, path)
    if info.task in {"classify", "tag"}:
        _check_labels(info, path)


def _check_engine(info: BundleInfo, path: Path) -> None:
    if info.engine not in ENGINES:
        raise BundleError(
            f"'{path}' has the unknown engine '{info.engine[:100]}'",
            nearest=nearest(info.engine, ENGINES),
            mend=f"This thrifty has: {', '.join(ENGINES)}. Upgrade it, or write the bundle again for one of them.",
        )
    precisions = ENGINES[info.engine].precisions
    if info.precision not in precisions:
        raise BundleError(
            f"'{path}' has the precision '{info.precision[:100]}', and the engine '{info.engine}' computes in "
            f"{', '.join(precisions)}",
            nearest=nearest(info.precision, precisions),
        )


def _check_model(info: BundleInfo, path: Path) -> None:
    families = [family for family, kinds in FAMILY_KINDS.items() if info.data.kind in kinds]
    family = info.model.family
    if family not in families:
        raise BundleError(
            f"'{path}' has the model family '{family[:100]}'; data of kind '{info.data.kind}' is learned by: "
            f"{', '.join(families)}",
            nearest=nearest(family, families),
        )
    if len(info.model.arguments) > MAX_ARGUMENTS:
        raise BundleError(f"'{path}' has {len(info.model.arguments)} model arguments", mend=_FOREIGN)
    _check_changes(info, path)
    if family == "hf":
        _check_config(info, path)
        return
    if family == "own" and not all(type(info.model.arguments.get(key)) is str for key in ("function", "sha256")):
        raise BundleError(f"'{path}' names no function of its model's code", mend=_FOREIGN)
    for key, value in info.model.arguments.items():
        if not is_argument(value) or (key in _DEPTHS and not _is_depth(value)):
            raise BundleError(f"'{path}' has the model argument {key[:50]}={str(value)[:100]}", mend=_FOREIGN)


def _check_changes(info: BundleInfo, path: Path) -> None:
    """What was cut, factored and folded has names and counts that a model of ours can have."""
    model = info.model
    named = [*model.kept, *model.ranks, *model.folded]
    if len(named) > MAX_CHANGES or any(len(name) > 200 for name in named):
        raise BundleError(f"'{path}' names {len(named)} changed layers", mend=_FOREIGN)
    for name, count in (*model.kept.items(), *model.ranks.items()):
        if not 1 <= count <= MAX_ARGUMENT:
            raise BundleError(f"'{path}' has the changed layer {name[:50]}={count}", mend=_FOREIGN)


def _check_config(info: BundleInfo, path: Path) -> None:
    """A Hugging Face config is JSON of a sensible size and depth, for the task of the bundle."""
    arguments = info.model.arguments
    texts = all(isinstance(value, str) and len(value) <= MAX_CONFIG for value in arguments.values())
    if not texts or arguments.get("task") != info.task:
        raise BundleError(f"'{path}' has a Hugging Face model that is not for task '{info.task}'", mend=_FOREIGN)
    try:
        config = json.loads(arguments.get("config", ""))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise BundleError(f"'{path}' has a Hugging Face config that is not one", mend=_FOREIGN)
    deep = 0
    for key, value in _leaves(config):
        if type(value) is int:
            deep += value if key in _HF_DEPTHS else 0
            if abs(value) > MAX_CONFIG_NUMBER or deep > MAX_LAYERS:
                raise BundleError(f"'{path}' has the Hugging Face config {key[:50]}={value}", mend=_FOREIGN)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, key)
    else:
        yield key, value


def _is_depth(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return all(type(part) is int for part in parts) and sum(parts) <= MAX_LAYERS


def _check_image_data(info: BundleInfo, path: Path) -> None:
    data = info.data
    shaped = len(data.shape) == 3 and data.shape[0] in (1, 3) and data.shape[1] == data.shape[2]
    if not shaped or not 1 <= data.shape[1] <= 4096:
        raise BundleError(f"'{path}' has images of shape {data.shape}", mend="The shape is (channels, side, side).")
    _check_scales(info, path, data.shape[0])


def _check_scales(info: BundleInfo, path: Path, channels: int) -> None:
    data = info.data
    if len(data.mean) != channels or len(data.std) != channels:
        raise BundleError(f"'{path}' has {len(data.mean)} means and {len(data.std)} stds for its channels", mend=_AGAIN)
    if not all(map(math.isfinite, data.mean)) or not all(0 < std < math.inf for std in data.std):
        raise BundleError(f"'{path}' has the means {data.mean} and stds {data.std}", mend=_AGAIN)


def _check_tokens(info: BundleInfo, path: Path) -> None:
    if not (len(info.data.shape) == 1 and 1 <= info.data.shape[0] <= MAX_TOKENS):
        raise BundleError(f"'{path}' has texts of shape {info.data.shape}", mend="The shape is (length,).")


def _check_sound(info: BundleInfo, path: Path) -> None:
    data = info.data
    if data.sound is None:
        raise BundleError(f"'{path}' does not say how recordings become frames", mend=_AGAIN)
    if len(data.shape) != 2 or not 1 <= data.shape[0] <= MAX_FRAMES or data.shape[1] != data.sound.width:
        raise BundleError(f"'{path}' has recordings of shape {data.shape}", mend="The shape is (frames, width).")
    _check_scales(info, path, 0 if data.sound.is_wave else data.sound.width)
    if info.task == "transcribe" and not (len(set(data.labels)) == len(data.labels) == data.vocabulary - 1 >= 1):
        raise BundleError(f"'{path}' has {len(data.labels)} symbols for {data.vocabulary} tokens", mend=_AGAIN)


def _check_table(info: BundleInfo, path: Path) -> None:
    data, table = info.data, info.data.table
    if table is None or not 1 <= len(table.columns) <= MAX_COLUMNS:
        raise BundleError(f"'{path}' does not say what the columns of its table are", mend=_AGAIN)
    if data.shape != (table.numbers + table.codes,) or data.vocabulary != table.vocabulary:
        raise BundleError(f"'{path}' has rows of shape {data.shape}, and its columns give others", mend=_AGAIN)
    for column in table.columns:
        rising = all(a < b for a, b in zip(column.edges, column.edges[1:], strict=False))
        if not rising or not all(map(math.isfinite, column.edges)) or len(set(column.values)) != len(column.values):
            raise BundleError(f"'{path}' has edges or values of column '{column.name[:50]}' out of order", mend=_AGAIN)
    if not (math.isfinite(table.mean) and 0 < table.deviation < math.inf):
        raise BundleError(f"'{path}' has the mean {table.mean} and deviation {table.deviation}", mend=_AGAIN)


_DATA_CHECKS: dict[KindName, Callable[[BundleInfo, Path], None]] = {
    "audio": _check_sound,
    "image": _check_image_data,
    "language": _check_tokens,
    "table": _check_table,
    "text": _check_tokens,
}


def _check_labels(info: BundleInfo, path: Path) -> None:
    data = info.data
    if len(data.labels) < 2 or len(set(data.labels)) != len(data.labels):
        raise BundleError(f"'{path}' has {len(data.labels)} labels, not all different", mend=_AGAIN)


def is_name(name: str) -> bool:
    """Say whether a name is safe as part of a path and of an address.

    >>> is_name("pets-2"), is_name("../etc"), is_name("..")
    (True, False, False)
    """
    plain = all(c.isalnum() or c in "._-" for c in name)
    return plain and 0 < len(name) <= 100 and name not in {".", ".."}


def is_argument(value: Any) -> bool:
    """Say whether a model argument is a plain value of sensible size.

    >>> is_argument(64), is_argument([1, 2]), is_argument(10**12), is_argument({"a": 1})
    (True, True, False, False)
    """
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return 0 <= value <= MAX_ARGUMENT
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= 100
    flat = isinstance(value, list | tuple) and len(value) <= MAX_ARGUMENTS
    return flat and all(is_argument(each) and not isinstance(each, list | tuple) for each in value)


def regular_size(path: Path) -> int:
    """Return the size of a plain file; links and devices are refused, for they may lead outside the bundle."""
    try:
        found = path.lstat()
    except OSError:
        raise BundleError(f"the bundle lacks its file '{path}'", mend=_AGAIN) from None
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"'{path}' is not a plain file", mend=_FOREIGN)
    return found.st_size


def sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
