"""The sha256 of files, read only when the system says that they may have changed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from thrifty.data.inputs import InputFile
from thrifty.errors import StorageError
from thrifty.files import write_atomic

_FORMAT = 1
# a task for each small file costs as much as the file, and so does the buffer that a large one is read through
_TASK_FILES, _SMALL_BYTES = 16, 1 << 20
# A file written within one tick of the file system's clock after it was hashed keeps its time stamp (git calls this
# racy). Linux stamps by its timer, 4 to 10 ms; a stamp without fractions comes from a system that counts in seconds
# (FAT counts in twos). A network server's clock that lags by more is not seen.
_FINE_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000


def fingerprint(folder: Path, files: Iterable[InputFile], cache: Path) -> dict[str, str]:
    """Return the sha256 (hex) of each file by its name; an empty string for one that cannot be read.

    What was hashed before and has kept its size, times and inode is not read again. The memory of it lies under
    ``cache/stat``; where that cannot be written, everything is read each time.
    """
    memory = cache / "stat" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:20]}.json"
    known = _load(memory)
    fresh: dict[str, list[int | str]] = {}
    stale: list[InputFile] = []
    for file in files:
        entry = known.get(file.name)
        if entry is not None and entry[:4] == _identity(file) and not _racy(file, int(entry[4])):
            fresh[file.name] = entry
        else:
            stale.append(file)
    unreadable: dict[str, str] = {}
    tasks = [stale[start : start + _TASK_FILES] for start in range(0, len(stale), _TASK_FILES)]
    with ThreadPoolExecutor() as pool:
        entries = itertools.chain.from_iterable(pool.map(lambda files: [_hash(file) for file in files], tasks))
        for file, entry in zip(stale, entries, strict=True):
            if entry[5]:
                fresh[file.name] = entry
            else:
                unreadable[file.name] = ""
    if stale or fresh.keys() != known.keys():
        with contextlib.suppress(StorageError):
            content = json.dumps({"format": _FORMAT, "files": fresh}, separators=(",", ":"))
            write_atomic(memory, content, purpose="the memory of file contents")
    return {name: str(entry[5]) for name, entry in fresh.items()} | unreadable


def _identity(file: InputFile) -> list[int]:
    return [file.size, file.mtime_ns, file.ctime_ns, file.inode]


def _racy(file: InputFile, hashed_at_ns: int) -> bool:
    newest = max(file.mtime_ns, file.ctime_ns)
    tick = _COARSE_TICK_NS if file.mtime_ns % 1_000_000_000 == 0 else _FINE_TICK_NS
    return newest + tick >= hashed_at_ns


def _hash(file: InputFile) -> list[int | str]:
    """Entry of the memory: identity when it was listed, the time just before it was read, the sha256 ("" if unread)."""
    hashed_at_ns = time.time_ns()
    try:
        if file.size <= _SMALL_BYTES:
            digest = hashlib.sha256(Path(file.path).read_bytes()).hexdigest()
        else:
            with Path(file.path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        digest = ""
    return [*_identity(file), hashed_at_ns, digest]


def _load(memory: Path) -> dict[str, list[int | str]]:
    """Read the memory; one that is missing, damaged or of another format is empty, since it can be made again."""
    try:
        content = json.loads(memory.read_bytes())
        if content["format"] != _FORMAT:
            return {}
        return {name: entry for name, entry in content["files"].items() if _is_entry(entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 6
        and all(type(part) is int for part in entry[:5])
        and isinstance(entry[5], str)
    )
