"""Prepared data on disk: arrays mapped into memory, checked against what was written.

cache/prepared/<key>/
  meta.json                         the `Dataset`
  <split>.<name>.npy                arrays: images "x" and "y", texts "tokens", "starts" and "y", or "tokens"
  names.json                        images: the file each sample came from, by split
  tokenizer.json                    texts and language
  rejects.jsonl                     every file or row not used, and why
  files.json                        bytes and sha256 of all of these; written last
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from thrifty.data.fingerprint import fingerprint
from thrifty.data.inputs import list_files
from thrifty.errors import DataError
from thrifty.spec import Dataset

STORE_FORMAT = 1


class Store:
    """One folder of prepared data, read-only.

    Attributes:
        folder: where it lies.
        dataset: what it holds.

    Raises:
        DataError: a file is missing, has another size than was written, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        try:
            content = json.loads((self.folder / "files.json").read_bytes())
            self.files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in content["files"].items()}
            meta = (self.folder / "meta.json").read_bytes()
            if content["format"] != STORE_FORMAT or hashlib.sha256(meta).hexdigest() != self.files["meta.json"][1]:
                raise ValueError("its meta.json is not what was written")
            for name, (size, _) in self.files.items():
                if (found := (self.folder / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {found} bytes, {size} were written")
            self.dataset = Dataset.model_validate_json(meta)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(self.folder, error) from error

    def array(self, split: str, name: str) -> np.ndarray:
        """Return an array of a split, mapped read-only: bytes are read from disk when they are touched.

        Images: ``x`` uint8 [N, H, W, C], ``y`` int64 [N]. Texts: ``tokens`` [L], unsigned, all end to end, ``starts``
        int64 [N + 1], where each begins and the last ends, ``y`` int64 [N]. Tables: ``x`` float32
        [N, F], ``y`` int64 [N] or float32 [N]. Language: ``tokens`` [L], unsigned.
        """
        if (split, name) not in self._arrays:
            path = self.folder / f"{split}.{name}.npy"
            try:
                # as a plain array: each index into numpy's class of mapped ones takes it microseconds
                self._arrays[split, name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            except (OSError, ValueError) as error:
                raise _damaged(self.folder, error) from error
        return self._arrays[split, name]

    def names(self, split: str) -> list[str]:
        """Return the file that each image of a split came from, in the order of the arrays."""
        names: list[str] = json.loads((self.folder / "names.json").read_bytes())[split]
        return names


def _damaged(folder: Path, error: Exception) -> DataError:
    says = " ".join(str(error).split())
    return DataError(f"prepared data in '{folder}' is damaged: {says}", mend="Run again: it is made anew.")


def prepared_folder(cache: Path) -> Path:
    """Return where the stores of a cache lie."""
    return cache / "prepared"


def open_store(cache: Path, key: str) -> Store | None:
    """Return the store of a key, or None where there is none or one whose content is not what was written.

    Sizes are compared each time; contents are hashed when the system says that a file may have changed since it
    was last hashed.
    """
    folder = prepared_folder(cache) / key
    try:
        store = Store(folder)
        files, _ = list_files(folder)
    except DataError:
        return None
    hashes = fingerprint(folder, files, cache)
    return store if all(hashes.get(name) == sha256 for name, (_, sha256) in store.files.items()) else None
