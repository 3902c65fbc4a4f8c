"""A store while it is written: beside its place, flushed, then renamed; a kill at any instant leaves no half store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from thrifty.data.store import STORE_FORMAT, Store, open_store, prepared_folder
from thrifty.errors import StorageError
from thrifty.files import flush_folder, flush_tree, storage_error
from thrifty.spec import Dataset
from thrifty.spec.units import format_bytes

_MEND = "Free some space, or set THRIFTY_CACHE to a folder with room that you may write to."
_PUBLISH_TRIES = 5


class Rows:
    """An array written row after row; the number of rows need not be known before."""

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.dtype, self.row_shape, self.count = dtype, row_shape, 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, rows: np.ndarray) -> None:
        """Write rows [n, *row_shape]."""
        assert rows.shape[1:] == self.row_shape
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.count += len(rows)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._file.seek(0)
                self._file.write(self._header())
        finally:
            self._file.close()

    def _header(self) -> bytes:
        """The .npy header; numpy pads it so that the first axis may grow without moving the data."""
        buffer = io.BytesIO()
        shape = (self.count, *self.row_shape)
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, described)
        return buffer.getvalue()


class Draft:
    """A folder that becomes the store of a key, or goes away.

    Attributes:
        folder: where to write files.
    """

    def __init__(self, cache: Path, key: str, folder: Path) -> None:
        self.cache, self.key, self.folder = cache, key, folder
        self.needed_bytes = 0

    def reserve(self, count: int) -> None:
        """Check that ``count`` more bytes have room.

        Raises:
            StorageError: they have not.
        """
        self.needed_bytes += count
        free = shutil.disk_usage(self.folder).free
        if count > free:
            raise StorageError(
                f"the prepared data needs {format_bytes(self.needed_bytes)} ({self.needed_bytes} bytes) in "
                f"'{prepared_folder(self.cache)}', which has {format_bytes(free)} free",
                mend=_MEND,
            )

    def rows(self, split: str, name: str, dtype: np.dtype, row_shape: tuple[int, ...]) -> Rows:
        """Open an array of a split for writing."""
        return Rows(self.folder / f"{split}.{name}.npy", dtype, row_shape)

    def array(self, split: str, name: str) -> np.ndarray:
        """Return an array that was written, mapped read-only."""
        return np.asarray(np.load(self.folder / f"{split}.{name}.npy", mmap_mode="r"))

    def stored_bytes(self) -> int:
        """Bytes of the arrays written so far."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def publish(self, dataset: Dataset) -> Store:
        """Put the store in its place; where another process was first, its equal one is taken."""
        self.write("meta.json", dataset.model_dump_json(indent=1))
        files = {path.name: [path.stat().st_size, _sha256(path)] for path in sorted(self.folder.iterdir())}
        self.write("files.json", json.dumps({"format": STORE_FORMAT, "files": files}, indent=1))
        flush_tree(self.folder)
        place = prepared_folder(self.cache) / self.key
        for _ in range(_PUBLISH_TRIES):
            try:
                self.folder.rename(place)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise
                if (store := open_store(self.cache, self.key)) is not None:
                    return store
                _put_aside(place)
                continue
            flush_folder(place.parent)
            return Store(place)
        raise StorageError(f"cannot put prepared data in '{place}': it is replaced again and again", mend=_MEND)


@contextlib.contextmanager
def drafting(cache: Path, key: str) -> Iterator[Draft]:
    """Open a draft for a key; whatever is left of it at the end is removed.

    Raises:
        StorageError: the disk is full or the cache cannot be written.
    """
    prepared = prepared_folder(cache)
    draft: Draft | None = None
    try:
        prepared.mkdir(parents=True, exist_ok=True)
        folder, handle = new_folder(prepared, key)
        try:
            draft = Draft(cache, key, folder)
            yield draft
        finally:
            remove_locked(folder, handle)
    except OSError as error:
        needed = draft.needed_bytes if draft else 0
        says = f"the prepared data ({format_bytes(needed)} needed, {needed} bytes)" if needed else "the prepared data"
        raise storage_error(error, prepared, says, mend=_MEND) from error


def new_folder(parent: Path, key: str) -> tuple[Path, int]:
    """Make a temporary folder and hold a lock on it, which ends with this process however it ends."""
    while True:
        folder = parent / f"{key}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir()
        # another process's clean-up may come between making and locking: then make another
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if _lock(handle) and folder.is_dir() and folder.stat().st_ino == os.fstat(handle).st_ino:
                return folder, handle
            os.close(handle)


def remove_locked(folder: Path, handle: int) -> None:
    """Remove a folder of `new_folder`, if it was not renamed, and let go of its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def _lock(handle: int) -> bool:
    """Try to lock; false when another holds it. A file system that locks no folders lets everyone pass."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def remove_leftovers(parent: Path) -> None:
    """Remove temporary folders whose process has died: those that nobody holds locked."""
    for folder in parent.glob("*.tmp-*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def remove_store(cache: Path, key: str) -> bool:
    """Remove a store that is damaged; say whether there was one."""
    place = prepared_folder(cache) / key
    try:
        return _put_aside(place)
    except OSError as error:
        raise storage_error(error, place, "in place of damaged prepared data", mend=_MEND) from error


def _put_aside(place: Path) -> bool:
    aside = place.with_name(f"{place.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        place.rename(aside)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
