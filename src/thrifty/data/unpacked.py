"""Archives as folders: each is unpacked once, beside what is prepared; no name or link in it may lead out of there."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from thrifty.data.draft import new_folder, remove_leftovers, remove_locked
from thrifty.data.fingerprint import fingerprint
from thrifty.data.inputs import CANNOT_BE_READ, list_one
from thrifty.data.shards import holds_samples
from thrifty.errors import DataError
from thrifty.files import storage_error
from thrifty.spec.units import format_bytes

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
# what an archive may unpack to: so much in any case, and so many times its own size
LEAST_BYTES, MOST_RATIO = 1 << 30, 200
MOST_FILES = 10_000_000
_CHUNK_BYTES = 1 << 20
_MEND = "Free some space, or set THRIFTY_CACHE to a folder with room that you may write to."


def is_archive(name: str) -> bool:
    """Say whether a file of this name is unpacked.

    >>> is_archive("cifar10.tar.xz"), is_archive("photos.ZIP"), is_archive("labels-idx1-ubyte.gz")
    (True, True, False)
    """
    return name.lower().endswith(SUFFIXES)


def unpacked(path: Path, cache: Path) -> Path:
    """Return the folder that holds what is in an archive; a path that is none comes back as it is, and so does a shard.

    The same content is unpacked once, wherever the archive lies. Where all of it lies in one folder, that is it.

    Args:
        path: of a file or folder.
        cache: under which archives are unpacked.

    Raises:
        DataError: it cannot be read, holds a name or link that leads out of its folder, or too much.
        StorageError: there is no room for it.
    """
    if not (path.is_file() and is_archive(path.name)) or holds_samples(path):
        return path
    (file,), _ = list_one(path)
    sha256 = fingerprint(path, [file], cache)[file.name]
    if not sha256:
        raise DataError(f"archive '{path}' {CANNOT_BE_READ}")
    place = cache / "unpacked" / sha256[:20]
    if not place.is_dir():
        remove_leftovers(place.parent)
        _unpack(path, place)
    return _within(place)


def _within(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return _within(entries[0]) if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack(path: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder, handle = new_folder(place.parent, place.name)
        try:
            (_of_zip if path.name.lower().endswith(".zip") else _of_tar)(path, folder, _Limit(path))
            # one call for all files: each flushed for itself, many small ones take minutes
            os.sync()
            if not place.is_dir():
                folder.rename(place)
        finally:
            remove_locked(folder, handle)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"archive '{path}' cannot be unpacked: {error}") from error
    except OSError as error:
        raise storage_error(error, place.parent, f"what is in archive '{path}'", mend=_MEND) from error


class _Limit:
    """Counts what is unpacked, and ends it where it is too much."""

    def __init__(self, path: Path) -> None:
        self._path, self._files, self._bytes = path, 0, 0
        self._most = max(LEAST_BYTES, MOST_RATIO * path.stat().st_size)

    def file(self) -> None:
        self._files += 1
        if self._files > MOST_FILES:
            raise DataError(f"archive '{self._path}' holds over {MOST_FILES:,} files")

    def bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._most:
            raise DataError(
                f"archive '{self._path}' unpacks to over {format_bytes(self._most)}, {MOST_RATIO} times its size or "
                f"{format_bytes(LEAST_BYTES)}",
                mend="Unpack it yourself if you trust it, and give the folder.",
            )


def _of_tar(path: Path, folder: Path, limit: _Limit) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"archive '{path}' is not unpacked: this Python checks no names", mend="Take Python 3.11.4 or later."
        )
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                limit.file()
                limit.bytes(member.size)
                archive.extract(member, folder, set_attrs=False, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"archive '{path}' is not unpacked: {error}") from error


def _of_zip(path: Path, folder: Path, limit: _Limit) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            limit.file()
            name = PurePosixPath(info.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"archive '{path}' is not unpacked: '{info.filename}' would lead out of its folder")
            to = folder / name
            if info.is_dir():
                to.mkdir(parents=True, exist_ok=True)
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, to.open("wb") as target:
                _copy(source.read, target.write, limit)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], limit: _Limit) -> None:
    while chunk := read(_CHUNK_BYTES):
        limit.bytes(len(chunk))
        write(chunk)
