"""Archives as folders: each is unpacked once, beside what is prepared; no name or link in it may lead out of there."""

from __future__ import annotations

import contextlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from thrifty.data.draft import new_folder, remove_leftovers, remove_locked
from thrifty.data.fingerprint import fingerprint
from thrifty.data.images.shards import holds_samples
from thrifty.data.inputs import CANNOT_BE_READ, list_one
from thrifty.errors import DataError
from thrifty.files import storage_error
from thrifty.spec.units import format_bytes

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
# what an archive may unpack to: so much in any case, and so many times its own size
LEAST_BYTES, MOST_RATIO = 1 << 30, 200
MOST_FILES = 10_000_000
_CHUNK_BYTES = 1 << 20
_PLACE = "unpacked"
# of the flags of a file in a zip (PKWARE APPNOTE 6.3, section 4.4.4)
_ENCRYPTED = 1
_MEND = "Free some space, or set THRIFTY_CACHE to a folder with room that you may write to."
_ANEW = "Fetch it again, or pack it anew."
_BY_HAND = "Unpack it yourself if you trust it, and give the folder."


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
        raise DataError(f"archive '{path}' {CANNOT_BE_READ}", mend="Give yourself the right to read it.")
    place = cache / _PLACE / sha256[:20]
    if not place.is_dir():
        remove_leftovers(place.parent)
        _unpack(path, place)
    return _within(place)


@contextlib.contextmanager
def told_of(path: Path, folder: Path) -> Iterator[None]:
    """Let errors about the folder that an archive was unpacked to tell of the archive: nobody knows the folder."""
    try:
        yield
    except DataError as error:
        if folder == path:
            raise
        # a name of the archive's own may stand in an example too
        mend = error.mend.replace(f"{folder.name}/", "") if folder.parent.name == _PLACE else error.mend
        raise DataError(error.what.replace(str(folder), str(path)), mend=mend, nearest=error.nearest) from error


def _within(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return _within(entries[0]) if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack(path: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder, handle = new_folder(place.parent, place.name)
        try:
            (_of_zip if path.name.lower().endswith(".zip") else _of_tar)(path, folder, _Limit(path))
            if not any(folder.iterdir()):
                raise DataError(f"archive '{path}' is empty", mend=_ANEW)
            # one call for all files: each flushed for itself, many small ones take minutes
            os.sync()
            if not place.is_dir():
                folder.rename(place)
        finally:
            remove_locked(folder, handle)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # gzip and bz2 say so of what is damaged, and have no number of the system's
        if error.errno is None:
            raise _damaged(path, error) from error
        raise storage_error(error, place.parent, f"what is in archive '{path}'", mend=_MEND) from error


def _damaged(path: Path, error: Exception) -> DataError:
    # of tar the first line says it, and more say how each packing failed
    says = next(iter(str(error).splitlines()), type(error).__name__).removesuffix(":")
    return DataError(f"archive '{path}' cannot be unpacked: {says}", mend=_ANEW)


class _Limit:
    """Counts what is unpacked, and ends it where it is too much."""

    def __init__(self, path: Path) -> None:
        self._path, self._names, self._bytes = path, set[str](), 0
        self._most = max(LEAST_BYTES, MOST_RATIO * path.stat().st_size)

    def file(self, name: str) -> None:
        """Count a file that is no folder; one that stands there twice would be lost in the other's place."""
        if name in self._names:
            raise DataError(
                f"archive '{self._path}' holds two files named '{name}'",
                mend="Pack it anew with one of them, or unpack it yourself and give the folder.",
            )
        self._names.add(name)
        if len(self._names) > MOST_FILES:
            raise DataError(f"archive '{self._path}' holds over {MOST_FILES:,} files", mend=_BY_HAND)

    def bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._most:
            raise DataError(
                f"archive '{self._path}' unpacks to over {format_bytes(self._most)}, {MOST_RATIO} times its size or "
                f"{format_bytes(LEAST_BYTES)}",
                mend=_BY_HAND,
            )


def _of_tar(path: Path, folder: Path, limit: _Limit) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"archive '{path}' is not unpacked: this Python checks no names", mend="Take Python 3.11.4 or later."
        )
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not member.isdir():
                    limit.file(str(PurePosixPath(member.name)))
                limit.bytes(member.size)
                with _no_folder(path, member.name):
                    archive.extract(member, folder, set_attrs=False, filter="data")
    except tarfile.SpecialFileError as error:
        raise DataError(f"archive '{path}' is not unpacked: '{error.tarinfo.name}' is a device or a pipe") from error
    except tarfile.FilterError as error:
        raise _leads_out(path, error.tarinfo.name) from error


def _leads_out(path: Path, name: str) -> DataError:
    return DataError(f"archive '{path}' is not unpacked: '{name}' would lead out of its folder", mend=_BY_HAND)


@contextlib.contextmanager
def _no_folder(path: Path, name: str) -> Iterator[None]:
    """Say what is wrong where a file is to lie in another that is no folder, or the other way round."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"archive '{path}' is not unpacked: '{name}' is a file and a folder", mend=_ANEW) from error


def _of_zip(path: Path, folder: Path, limit: _Limit) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = PurePosixPath(info.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(info.external_attr >> 16):
                raise _leads_out(path, info.filename)
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"archive '{path}' is not unpacked: it needs a password", mend=_BY_HAND)
            to = folder / name
            with _no_folder(path, info.filename):
                if info.is_dir():
                    to.mkdir(parents=True, exist_ok=True)
                    continue
                limit.file(str(name))
                to.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, to.open("wb") as target:
                    _copy(source.read, target.write, limit)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], limit: _Limit) -> None:
    while chunk := read(_CHUNK_BYTES):
        limit.bytes(len(chunk))
        write(chunk)
