"""Reads files whose content is known by its hash: what was changed since is an error, never half of each."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from thrifty.data.inputs import InputFile
from thrifty.errors import DataError

_AGAIN = "Wait until nothing writes to the data folder, then run again."
_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def open_unchanged(file: InputFile, sha256: str) -> Iterator[BinaryIO]:
    """Open a file whose hash is known; when the block ends the rest of it is read, and the hash compared.

    It may be turned back to its beginning, and nowhere else.

    Raises:
        DataError: it has changed since it was hashed, or is gone.
    """
    with _open(file) as raw:
        hashing = _Hashing(raw, file.name)
        yield cast(BinaryIO, io.BufferedReader(hashing, _CHUNK_BYTES))
        while hashing.read(_CHUNK_BYTES):
            pass
    if hashing.digest.hexdigest() != sha256:
        raise changed(file.name)


def _open(file: InputFile) -> io.FileIO:
    try:
        return Path(file.path).open("rb", buffering=0)
    except OSError as error:
        raise gone(file.name, error) from error


def changed(name: str) -> DataError:
    """Say that what was hashed is not what is there now."""
    return DataError(f"'{name}' changed while the data was being prepared", mend=_AGAIN)


def gone(name: str, error: OSError) -> DataError:
    """Say that what was there cannot be read any more."""
    return DataError(f"'{name}' was there and now cannot be read: {error.strerror}", mend=_AGAIN)


class _Hashing(io.RawIOBase):
    """A file that hashes what is read of it."""

    def __init__(self, inside: io.FileIO, name: str) -> None:
        self._inside, self._name, self.digest = inside, name, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._inside.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("what is hashed as it is read may be turned back to its beginning alone")
        self.digest = hashlib.sha256()
        return self._inside.seek(0)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        try:
            count = self._inside.readinto(view) or 0
        except OSError as error:
            raise gone(self._name, error) from error
        self.digest.update(view[:count])
        return count
