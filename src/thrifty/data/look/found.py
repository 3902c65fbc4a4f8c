"""What a first look at data finds, and the words that all looks share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thrifty.data.inputs import InputFile, Reject
from thrifty.data.labels import in_order
from thrifty.data.unpacked import SUFFIXES as ARCHIVES

SHOWN_LABELS = 4
MEND = (
    "Point it at class folders of images (cat/1.png, dog/2.png), at tar shards of them (1.png, 1.cls), at images in "
    "Parquet or as arrays (.npz, IDX), at tables of texts and labels (train.tsv), or at a folder of text or source "
    "files."
)


@dataclass(frozen=True)
class Look:
    """What a folder seems to hold.

    Attributes:
        kind: ``image``, ``text`` or ``language``.
        says: one line for people.
        job: a job to start from, ready for YAML; its path is the one that was given.
        why: the reason of each choice in ``job``, by its key, such as ``model`` and ``data.files``.
    """

    kind: str
    says: str
    job: dict[str, Any]
    why: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """The files that a look goes by.

    Attributes:
        path: of the data, as it was given.
        files: all of them that can be read.
        rejects: those put aside unread.
    """

    path: Path
    files: list[InputFile]
    rejects: list[Reject]


# Says what the files are, or None where they are not of its kind.
Recogniser = Callable[[Seen], Look | None]


def job_name(path: Path) -> str:
    """Name a job after its folder or table, with the characters that a name may hold."""
    own = path.resolve().name
    if path.is_file():
        own = next((own[: -len(suffix)] for suffix in ARCHIVES if own.lower().endswith(suffix)), path.stem)
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in own).strip(".-")
    return name[:100] or "job"


def shown(path: Path) -> str:
    """Name the data for people."""
    return path.name if path.is_file() else f"{path.name}/"


def shares(counts: Counter[str]) -> str:
    """Say how often each label comes, or between which bounds where there are many."""
    labels = in_order(counts)
    if len(labels) <= SHOWN_LABELS:
        total = counts.total()
        return ", ".join(f"{label} {counts[label] / total:.0%}".replace("%", " %") for label in labels)
    fewest, most = min(counts.values()), max(counts.values())
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{', '.join(labels[: SHOWN_LABELS - 1])}, … {labels[-1]}; {each} each"
