"""Lists the files of a data folder, with what the system knows of them; follows no link out of the folder."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from thrifty.errors import DataError, nearest
from thrifty.spec import Cleaning

DUPLICATE = "duplicate"
DUPLICATE_ACROSS = "duplicate across splits"
NEAR_COPY, NEAR_COPY_ACROSS = "near copy", "near copy across splits"
CANNOT_BE_READ = "cannot be read"
TABLE_SUFFIXES = (".tsv", ".csv", ".jsonl")
# of tables of columns; the last three are those of the machine learning repository of UCI
CELL_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".data", ".train", ".test")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file: its name relative to the data folder (printable, ``/`` between the parts), and its identity on disk.

    Modification and change time are in nanoseconds since 1970.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def suffix(self) -> str:
        return suffix_of(self.name)


def suffix_of(name: str) -> str:
    """Return what follows the last dot of a file's name, with it, in lower case.

    >>> suffix_of("Photos/1.JPG"), suffix_of("notes")
    ('.jpg', '')
    """
    # of each of the many files, several times: a Path takes a fifth of the time that preparing small images does
    own = name[name.rfind("/") + 1 :].lstrip(".")
    return own[dot:].lower() if (dot := own.rfind(".")) > 0 else ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A file that is not used; ``reason`` is counted, ``detail`` follows it in the line of ``rejects.jsonl``."""

    name: str
    reason: str
    detail: str = ""


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, the commonest first.

    >>> count_reasons([Reject("a.png", "truncated"), Reject("b.png", "truncated", ": no end marker")])
    {'truncated': 2}
    """
    counts = Counter(reject.reason for reject in rejects)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def cleaned(
    kept: int, reasons: Mapping[str, int], notes: Iterable[str], repaired: Mapping[str, int] | None = None
) -> Cleaning:
    """Return the account of cleaning: what is kept, and what is not by reason, as `count_reasons` has it.

    >>> cleaned(7, {"truncated": 2, "duplicate": 1}, []).seen
    10
    """
    return Cleaning(
        seen=kept + sum(reasons.values()),
        kept=kept,
        rejected=dict(reasons),
        duplicates=sum(reasons.get(each, 0) for each in (DUPLICATE, NEAR_COPY)),
        across_splits=sum(reasons.get(each, 0) for each in (DUPLICATE_ACROSS, NEAR_COPY_ACROSS)),
        repaired=dict(repaired or {}),
        notes=tuple(notes),
    )


def reject_lines(rejects: Iterable[Reject]) -> str:
    """Return the content of ``rejects.jsonl``: a line ``{"path", "reason"}`` each."""
    return "".join(json.dumps({"path": r.name, "reason": r.reason + r.detail}) + "\n" for r in rejects)


def list_files(folder: Path) -> tuple[list[InputFile], list[Reject]]:
    """List every file below a folder, sorted by name; names that begin with a dot are passed over.

    Links to files inside the folder are files; all other links, and pipes and devices, are rejects.

    Raises:
        DataError: the folder is missing, is a file, or cannot be read; the nearest name beside it is given.
    """
    if not folder.is_dir():
        raise _missing(folder)
    files: list[InputFile] = []
    rejects: list[Reject] = []
    root = folder.resolve()
    for entry in _walk(root, rejects, root):
        name = _name(entry.path, root)
        if entry.is_symlink() and (problem := _link_problem(entry, root)):
            rejects.append(Reject(name, problem))
            continue
        try:
            facts = entry.stat()
        except OSError as error:
            rejects.append(Reject(name, CANNOT_BE_READ, f": {error.strerror}"))
            continue
        if not stat.S_ISREG(facts.st_mode):
            rejects.append(Reject(name, "not a regular file"))
            continue
        files.append(
            InputFile(name, entry.path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino),
        )
    return sorted(files, key=lambda file: file.name), sorted(rejects, key=lambda reject: reject.name)


def list_one(path: Path) -> tuple[list[InputFile], list[Reject]]:
    """List a file that is named itself, under its own name, or every file below a folder as `list_files`."""
    if not path.is_file():
        return list_files(path)
    facts = path.stat()
    only = InputFile(
        _name(str(path.resolve()), path.resolve().parent), str(path), facts.st_size, facts.st_mtime_ns,
        facts.st_ctime_ns, facts.st_ino,
    )  # fmt: skip
    return [only], []


def _missing(folder: Path) -> DataError:
    if folder.exists():
        return DataError(f"'{folder}' is a file, not a folder", mend="Set data.path to the folder that holds the data.")
    parent = folder.parent
    beside = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    near = nearest(folder.name, beside)
    mend = "Set data.path to the folder that holds the data."
    if not parent.is_dir():
        mend = f"Its parent '{parent}' does not exist either. {mend}"
    return DataError(f"there is no data folder '{folder}'", nearest=str(parent / near) if near else "", mend=mend)


def _walk(folder: Path | str, rejects: list[Reject], root: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        if str(folder) == str(root):
            raise DataError(f"the data folder '{folder}' cannot be read: {error.strerror}") from error
        rejects.append(Reject(_name(str(folder), root), "folder cannot be read", f": {error.strerror}"))
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, rejects, root)
        else:
            yield entry


def _link_problem(entry: os.DirEntry[str], root: Path) -> str:
    target = Path(entry.path).resolve()
    if not target.is_relative_to(root):
        return "link that leaves the folder"
    if not target.exists():
        return "link to nothing"
    return "link to a folder" if target.is_dir() else ""


def _name(path: str, root: Path) -> str:
    """Relative name as printable text: bytes that are no UTF-8 are written out, so that it can stand in JSON."""
    inside = f"{root}".rstrip("/") + "/"
    relative = path[len(inside) :] if path.startswith(inside) else "."
    return os.fsencode(relative).decode("utf-8", "backslashreplace")
