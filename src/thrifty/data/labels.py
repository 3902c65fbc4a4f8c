"""Class folders: which there are, in which order they are numbered, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from thrifty.data.image import IMAGE_SUFFIXES
from thrifty.errors import DataError

_LAYOUT = "Images lie in one folder per class: {}/cat/1.png, {}/dog/2.png."


def label_of(name: str) -> str:
    """Return the label of an image: the first folder of its relative name.

    >>> label_of("cat/garden/1.png")
    'cat'
    """
    return name.split("/", 1)[0]


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort labels the way they are numbered: as numbers when all are, else as text.

    >>> in_order(["10", "9", "0"]), in_order(["b", "a"])
    (('0', '9', '10'), ('a', 'b'))
    """
    labels = list(labels)
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def check_class_folders(folder: Path, names: Collection[str]) -> None:
    """Check that a folder has at least two class folders with something in each.

    Args:
        folder: the data folder.
        names: relative names of all that was found in it.

    Raises:
        DataError: it has not.
    """
    labels = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    labels = [label for label in labels if not (folder / label).is_symlink()]
    mend = _LAYOUT.format(folder.name, folder.name)
    if not labels:
        loose = sum(1 for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)
        found = (
            f"{loose} images lie directly in it" if loose else f"{len(names)} other files in it" if names else "empty"
        )
        raise DataError(f"'{folder}' has no class folders ({found}; links to folders are not followed)", mend=mend)
    used = {label_of(name) for name in names if "/" in name}
    for label in in_order(labels):
        if label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") not in used:
            raise DataError(f"class folder '{label}' in '{folder}' is empty", mend="Fill it or remove it.")
    if len(labels) == 1:
        raise DataError(f"'{folder}' has one class only, '{labels[0]}': there is nothing to tell apart", mend=mend)
