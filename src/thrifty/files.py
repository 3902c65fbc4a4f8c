"""Files that survive a kill at any instant: written beside, flushed to disk, then renamed; and a lock on a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from thrifty.errors import BusyError, DiskFullError, StorageError
from thrifty.spec.units import format_bytes

_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(error: OSError, path: Path, purpose: str, *, mend: str = "") -> StorageError:
    """Say what the system's refusal to write means for the user: a full disk, a read-only folder, or other."""
    if error.errno in _FULL:
        free = "unknown"
        with contextlib.suppress(OSError):
            free = format_bytes(shutil.disk_usage(_existing(path)).free)
        return DiskFullError(
            f"the disk is full: cannot write {purpose} to '{path}' ({free} free)",
            mend=mend or "Free some space, then run again.",
        )
    if error.errno in _UNWRITABLE:
        what, own = f"cannot write {purpose}: '{path}' is read-only for this user", "Choose a folder you may write to."
    else:
        what, own = f"cannot write {purpose} to '{path}': {error.strerror or error}", ""
    return StorageError(what, mend=mend or own)


def _existing(path: Path) -> Path:
    return path if path.exists() or path.parent == path else _existing(path.parent)


@contextlib.contextmanager
def writing(path: Path, purpose: str, *, mend: str = "") -> Iterator[None]:
    """Turn an operating system's refusal to write inside the block into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, purpose, mend=mend) from error
    except RuntimeError as error:
        # torch.save and safetensors end a refused write with an error of their own, which hides the system's
        if isinstance(error.__context__, OSError):
            raise storage_error(error.__context__, path, purpose, mend=mend) from error
        raise


def write_atomic(
    path: Path,
    content: str | bytes | Callable[[BinaryIO], object],
    *,
    purpose: str = "a file",
    more_follow: bool = False,
) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, never a part.

    Args:
        path: the file; its folder is made.
        content: text, bytes, or a function that writes to the open binary file it is given.
        purpose: what the file is, for the error.
        more_follow: another file will be written to the folder, and until then a power cut may lose this one.

    Raises:
        StorageError: the disk is full or the folder read-only; the old file is untouched.
    """
    with writing(path, purpose):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        if not more_follow:
            flush_folder(path.parent)


class _Hashing:
    """A binary file that takes the sha256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self.bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        written = self._file.write(data)
        self.bytes += written
        return written

    def flush(self) -> None:
        self._file.flush()


def write_hashed(
    path: Path, content: Callable[[BinaryIO], object], *, purpose: str = "a file", more_follow: bool = False
) -> tuple[str, int]:
    """Write a file as `write_atomic` does, and return its sha256, taken while it is written, and its bytes.

    Args:
        path, purpose, more_follow: as for `write_atomic`.
        content: writes to the binary file it is given, from the beginning to the end.
    """
    made: list[_Hashing] = []

    def hashed(file: BinaryIO) -> None:
        made[:] = [_Hashing(file)]
        content(cast(BinaryIO, made[0]))

    write_atomic(path, hashed, purpose=purpose, more_follow=more_follow)
    return made[0].sha256.hexdigest(), made[0].bytes


def append(path: Path, data: bytes, *, purpose: str = "a file") -> None:
    """Add to the end of a file; where it cannot be added whole, the file stays as it was.

    Raises:
        StorageError: the disk is full or the folder read-only.
    """
    with writing(path, purpose), path.open("ab", buffering=0) as file:
        before = file.tell()
        done = 0
        try:
            while done < len(data):
                done += file.write(data[done:])
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def flush_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Make every file of a small folder durable before it is renamed into place."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            flush_folder(path)
    flush_folder(folder)


@contextlib.contextmanager
def hold(folder: Path, purpose: str) -> Iterator[None]:
    """Hold a folder for this process alone; the lock goes with the process, however it ends.

    Raises:
        BusyError: another process holds it; its id is named.
        StorageError: the folder cannot be written.
    """
    path = folder / "lock"
    with writing(folder, purpose):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise BusyError(
                f"{purpose} '{folder}' is held by process {owner}",
                mend="Wait for it to end, or stop it, then run again.",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
