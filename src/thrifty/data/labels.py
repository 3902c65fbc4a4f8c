"""Class folders, within splits or not: which there are, how classes are numbered, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from thrifty.data.images.image import IMAGE_SUFFIXES
from thrifty.data.inputs import TABLE_SUFFIXES, suffix_of
from thrifty.data.split import SPLIT_NAMES
from thrifty.errors import DataError

_LAYOUT = "{}s lie in one folder per class: {}/cat/1{}, {}/dog/2{}."


@dataclass(frozen=True)
class Files:
    """The files that hold samples: what one is called, the suffixes they have, and one of these for an example."""

    what: str
    suffixes: frozenset[str]
    example: str


IMAGES = Files("image", IMAGE_SUFFIXES, ".png")


@dataclass(frozen=True)
class Folders:
    """How images lie in folders: one for each class, or those in one for each split.

    Attributes:
        by_split: the outer folders are splits.
    """

    by_split: bool = False

    def label(self, name: str) -> str:
        """Return the label of an image by its relative name.

        >>> Folders().label("cat/garden/1.png"), Folders(by_split=True).label("train/cat/1.png")
        ('cat', 'cat')
        """
        parts = name.split("/")
        if self.by_split and not self.split(name):
            return ""
        return parts[self.by_split] if len(parts) > self.by_split + 1 else ""

    def split(self, name: str) -> str:
        """Return the split that an image's folder is named after; nothing where classes are the outer folders.

        >>> Folders().split("cat/1.png"), Folders(by_split=True).split("val/cat/1.png")
        ('', 'validation')
        """
        return SPLIT_NAMES.get(name.split("/")[0].lower(), "") if self.by_split else ""


def folders_of(names: Iterable[str], suffixes: Collection[str] = IMAGE_SUFFIXES) -> Folders:
    """Tell how images, or files of other suffixes, lie, by the relative names of files: where all of their outer
    folders are named after splits, training among them, they are splits. Folders that hold none of them say nothing.

    >>> folders_of(["train/cat/1.png", "test/dog/2.png"]), folders_of(["train/1.png", "plane/2.png"])
    (Folders(by_split=True), Folders(by_split=False))
    """
    inside = [name.split("/") for name in names if "/" in name and suffix_of(name) in suffixes]
    outer = {SPLIT_NAMES.get(parts[0].lower(), "") for parts in inside}
    return Folders("train" in outer and len(outer) > 1 and "" not in outer and any(len(parts) > 2 for parts in inside))


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort labels the way they are numbered: as numbers when all are, else as text.

    >>> in_order(["10", "9", "0"]), in_order(["b", "a"])
    (('0', '9', '10'), ('a', 'b'))
    """
    labels = list(labels)
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def check_class_folders(folder: Path, names: Collection[str], files: Files = IMAGES) -> None:
    """Check that a folder has at least two class folders with something in each; or that each of its splits has.

    Args:
        folder: the data folder.
        names: relative names of all that was found in it.
        files: that classes hold.

    Raises:
        DataError: it has not.
    """
    folders = folders_of(names, files.suffixes)
    if folders.by_split:
        for part in sorted({name.split("/")[0] for name in names if folders.split(name)}):
            inside = {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}
            _check_classes(folder / part, inside, files)
    else:
        _check_classes(folder, names, files)


def _check_classes(folder: Path, names: Collection[str], files: Files) -> None:
    labels = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    labels = [label for label in labels if not (folder / label).is_symlink()]
    mend = _LAYOUT.format(files.what.capitalize(), folder.name, files.example, folder.name, files.example)
    if not labels:
        loose = sum(1 for name in names if suffix_of(name) in files.suffixes)
        found = (
            f"{loose} {files.what}s lie directly in it"
            if loose
            else f"{len(names)} other files in it"
            if names
            else "empty"
        )
        tables = sorted(name for name in names if loose and suffix_of(name) in TABLE_SUFFIXES)
        if tables:
            found += f", and no column of '{tables[0]}' names most of them"
            mend += " Or a row of a table names each: cells of .csv are split by commas, of .tsv by tabs."
        raise DataError(f"'{folder}' has no class folders ({found}; links to folders are not followed)", mend=mend)
    used = {name.split("/")[0] for name in names if "/" in name}
    for label in in_order(labels):
        if label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") not in used:
            raise DataError(f"class folder '{label}' in '{folder}' is empty", mend="Fill it or remove it.")
    if len(labels) == 1:
        raise DataError(f"'{folder}' has one class only, '{labels[0]}': there is nothing to tell apart", mend=mend)
