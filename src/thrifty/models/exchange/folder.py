"""A directory in the layout of Hugging Face's transformers, read with distrust: ``config.json`` and safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError
from thrifty.files import writing

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_CONFIG_BYTES = 2**20
MAX_INDEX_BYTES = 16 * 2**20
MAX_SHARDS = 1000
_AGAIN = "Save the model again: model.save_pretrained(...)."


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        BundleError: it is missing, too large, or no JSON object.
    """
    return read_json(folder / CONFIG, MAX_CONFIG_BYTES)


def content_hash(folder: Path) -> str:
    """Return the sha256 of what makes a model of a directory: config, weights and index, as far as they are there."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob(CONFIG), *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Checkpoint:
    """The tensors of a directory by name, in one file or several; open while `opened` lasts.

    Attributes:
        folder: where it lies.
        shapes: of each tensor.
    """

    def __init__(self, folder: Path, files: Mapping[str, Any]) -> None:
        self.folder, self._files = folder, files
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in files.items()}

    def get(self, name: str) -> Tensor:
        """Read a tensor."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Checkpoint]:
    """Open the safetensors of a directory; nothing is read before it is asked for.

    Raises:
        BundleError: there are none, one of several is missing or leads elsewhere, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shards = _shards(folder)
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        for shard, expected in shards.items():
            path = folder / shard
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except FileNotFoundError:
                raise BundleError(f"'{folder / INDEX}' names '{shard}', which is not there", mend=_AGAIN) from None
            except (SafetensorError, OSError) as error:
                raise BundleError(f"'{path}' is no safetensors file: {error}", mend=_AGAIN) from None
            there = set(file.keys())
            lacking = sorted(expected - there)
            if lacking:
                raise BundleError(f"'{path}' lacks {_some(lacking)}, which '{INDEX}' says it has", mend=_AGAIN)
            files |= dict.fromkeys(sorted(expected or there), file)
        yield Checkpoint(folder, files)


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` to a directory, which is made.

    Raises:
        StorageError: the disk is full or the place read-only.
    """
    from safetensors.torch import save_file

    with writing(folder, "a model"):
        folder.mkdir(parents=True, exist_ok=True)
        # transformers reads no file that does not say which library's tensors it holds
        save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors keeps its files to their owner
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(folder: Path) -> dict[str, set[str]]:
    """Return the files that hold tensors, and those that the index says each has; none where there is no index."""
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: set()}
    if not (folder / INDEX).is_file():
        pickled = next((each for each in PICKLED if (folder / each).is_file()), "")
        if pickled:
            raise BundleError(
                f"the weights in '{folder}' are pickled ({pickled}), and a pickle can run code",
                mend="Save them as safetensors: model.save_pretrained(...).",
            )
        raise BundleError(f"directory '{folder}' has no {WEIGHTS}", mend=_AGAIN)
    places = read_json(folder / INDEX, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BundleError(f"'{folder / INDEX}' has no weight_map", mend=_AGAIN)
    shards: dict[str, set[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise BundleError(f"'{folder / INDEX}' names {str(shard)[:100]!r}, no file beside it", mend=_AGAIN)
        shards.setdefault(shard, set()).add(name)
    if len(shards) > MAX_SHARDS:
        raise BundleError(f"'{folder / INDEX}' names {len(shards)} files, over {MAX_SHARDS}", mend=_AGAIN)
    return shards


def read_json(path: Path, most: int) -> dict[str, Any]:
    """Read a JSON object of so many bytes at most.

    Raises:
        BundleError: it is missing, larger, or something else.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise BundleError(f"'{path}' has {size} bytes, over the {most} of such a file", mend=_AGAIN)
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"'{path}' cannot be read: {error.strerror or error}", mend=_AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{path}' is no JSON: {error}", mend=_AGAIN) from None
    if not isinstance(values, dict):
        raise BundleError(f"'{path}' holds no JSON object", mend=_AGAIN)
    return values


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
