"""Replace a whole folder at once: a kill at any instant leaves the old one or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from thrifty.files import flush_folder, flush_tree, writing

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_STALE_SECONDS = 3600.0


@contextlib.contextmanager
def replacing(folder: Path, purpose: str) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well it takes the place of ``folder``, else it is removed.

    The new folder is flushed to disk before it is renamed. Where the file system can exchange two names (Linux,
    ``renameat2``) there is no instant without a folder; elsewhere the old one stands aside for that instant as
    ``.<name>.old``, and `recover` puts it back after a kill.

    Raises:
        StorageError: the disk is full or the place read-only; the old folder is untouched.
    """
    parent = folder.parent
    with writing(folder, purpose):
        parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        _sweep(folder)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=parent))
        try:
            yield fresh
            fresh.chmod(0o755)  # mkdtemp keeps its folders to their owner
            flush_tree(fresh)
            _put(fresh, folder)
            flush_folder(parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back a folder that stood aside when its replacement was cut short."""
    aside = _aside(folder)
    if aside.is_dir() and not folder.exists():
        aside.rename(folder)


def _put(fresh: Path, folder: Path) -> None:
    """Rename ``fresh`` to ``folder``; what was there is then at ``fresh``, or gone."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        aside = _aside(folder)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        fresh.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot (man 2 renameat2)."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if swap(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sweep(folder: Path) -> None:
    """Remove what a killed write left behind; young ones may belong to a writer that still lives."""
    for left in folder.parent.glob(f".{folder.name}.*.new"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
