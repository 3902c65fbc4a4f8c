"""Which document, or which part of one, goes to which split: by the names of files, dealt whole, or cut by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from thrifty.data.inputs import InputFile
from thrifty.data.split import HELD_OUT, SPLIT_NAMES, split_by_bytes
from thrifty.spec import SPLITS, LanguageData, Split


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of a text that is kept on disk.

    Attributes:
        file: that holds it.
        row: in the file, from 1; 0 where the file is the document.
        text_bytes, characters: how long it is, in UTF-8 and in Unicode.
        rank: its place in the seeded order.
        given: the split that its file is named after; empty where none is.
    """

    file: InputFile
    row: int
    text_bytes: int
    characters: int
    rank: bytes
    given: str

    @property
    def name(self) -> str:
        return f"{self.file.name}:{self.row}" if self.row else self.file.name


@dataclass(frozen=True, slots=True)
class Part:
    """The next ``characters`` of a document, and the split that they go to."""

    split: str
    characters: int


def given_splits(names: Sequence[str]) -> dict[str, str]:
    """Tell the split of each file where all are named after one, or lie in a folder that is, and some are to train on.

    A looser rule would take a file of source such as ``test_loop.py`` for a split.

    >>> given_splits(["wiki.train.txt", "wiki.valid.txt"]), given_splits(["valid.txt", "test.txt"])
    ({'wiki.train.txt': 'train', 'wiki.valid.txt': 'validation'}, {})
    """
    found = {name: _named_after(name) for name in names}
    return found if all(found.values()) and "train" in found.values() and len(set(found.values())) > 1 else {}


def held_out_alone(names: Sequence[str]) -> str:
    """Say so where all files are named after splits and none is to train on, which `given_splits` then passes over.

    >>> held_out_alone(["valid.txt", "test.txt"])
    'files are named after test and validation, and none after what is trained on: their names are not gone by'
    >>> held_out_alone(["train.txt", "test.txt"]), held_out_alone(["test.txt", "a.txt"])
    ('', '')
    """
    found = [_named_after(name) for name in names]
    if not found or not all(found) or "train" in found:
        return ""
    parts = " and ".join(sorted(set(found)))
    return f"files are named after {parts}, and none after what is trained on: their names are not gone by"


def _named_after(name: str) -> str:
    path = PurePosixPath(name.lower())
    words = [*path.name.split(".")[::-1], *path.parent.parts[::-1]]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def deal_documents(data: LanguageData, documents: Sequence[Document], notes: list[str]) -> list[list[Part]]:
    """Return the parts of each document, one after the other; a note says how they were dealt.

    What files say is kept; the held-out splits that no file is named after come from the documents to train on.
    Whole documents are dealt where there are enough to give each split one, unless the job says otherwise.
    """
    parts = [[Part(each.given, each.characters)] for each in documents]
    missing = [split for split in HELD_OUT if all(each.given != split for each in documents)]
    if not missing:
        return parts
    free = [number for number, each in enumerate(documents) if each.given in {"", "train"}]
    if (data.split_by or ("documents" if len(free) > len(missing) else "position")) == "documents":
        ranks = {str(number): documents[number].rank for number in free}
        sizes = {str(number): documents[number].text_bytes for number in free}
        dealt = split_by_bytes(ranks, sizes, data.split, missing)
        for number in free:
            parts[number] = [Part(dealt[str(number)], documents[number].characters)]
        return parts
    for number in free:
        parts[number] = by_position(documents[number].characters, data.split, missing)
    shares = ", ".join(f"{split} the next {getattr(data.split, split):.0%}" for split in SPLITS if split in missing)
    many = "each document" if len(free) > 1 else "the text"
    notes.append(f"split by position: {many} is trained on from its beginning, {shares}".replace("%", " %"))
    return parts


def by_position(characters: int, split: Split, missing: Sequence[str]) -> list[Part]:
    """Cut a text: its beginning is trained on, what follows validates, its end tests.

    >>> by_position(100, Split(), ["test", "validation"])
    [Part(split='train', characters=80), Part(split='validation', characters=10), Part(split='test', characters=10)]
    """
    counts = {name: int(characters * getattr(split, name) + 0.5) for name in SPLITS if name in missing}
    counts = {"train": characters - sum(counts.values()), **counts}
    return [Part(name, count) for name, count in counts.items() if count]
