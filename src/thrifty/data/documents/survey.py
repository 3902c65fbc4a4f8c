"""Documents read through once: what tells copies apart, where each stands in the seeded order, and what is no text."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from thrifty.data.documents.dealing import Document, given_splits
from thrifty.data.documents.files import Text, UnusableTextError, read_documents
from thrifty.data.documents.near_copies import BINS, near_copies, sketch
from thrifty.data.encodings import UTF8
from thrifty.data.inputs import DUPLICATE, DUPLICATE_ACROSS, NEAR_COPY, NEAR_COPY_ACROSS, Reject
from thrifty.data.inventory import Inventory
from thrifty.data.split import HELD_OUT, rank
from thrifty.spec import LanguageData

# sketches of so many take 256 MiB
MOST_COMPARED = 1_000_000


@dataclass(frozen=True)
class Survey:
    """The documents of all files in order, what tells copies apart, and what was put aside.

    ``digests`` are of each document's text; ``sketches`` [N, K] of those that have one, whose numbers are ``sketched``.
    """

    documents: list[Document]
    digests: list[bytes]
    sketches: np.ndarray
    sketched: list[int]
    rejects: list[Reject]
    encodings: dict[str, list[str]]


def survey_documents(data: LanguageData, inventory: Inventory, seed: int) -> Survey:
    """Read every document once.

    Raises:
        DataError: a file is damaged, has no column of texts, or has changed since it was hashed.
    """
    given = given_splits([file.name for file in inventory.files])
    found = Survey([], [], np.empty((0, BINS), np.uint32), [], [], defaultdict(list))
    sketches: list[np.ndarray] = []
    for file in inventory.files:
        sha256 = inventory.hashes[file.name]
        for text in read_documents(data, file, sha256):
            if isinstance(text, Reject):
                found.rejects.append(text)
                continue
            read = _Reading(text)
            name = f"{file.name}:{text.row}" if text.row else file.name
            try:
                drawn = sketch(read) if data.copies == "near" else None
                read.finish()
            except UnusableTextError as error:
                found.rejects.append(Reject(name, *error.problem))
                continue
            if read.blank:
                found.rejects.append(Reject(name, "empty"))
                continue
            if drawn is not None and len(sketches) < MOST_COMPARED:
                found.sketched.append(len(found.documents))
                sketches.append(drawn)
            place = rank(seed, read.digest.hexdigest() if text.row else sha256, name)
            document = Document(file, text.row, read.text_bytes, read.characters, place, given.get(file.name, ""))
            found.documents.append(document)
            found.digests.append(read.digest.digest())
            if text.encoding != UTF8 and not text.row:
                found.encodings[text.encoding].append(file.name)
    return replace(found, sketches=np.stack(sketches)) if sketches else found


class _Reading:
    """A text, counted and hashed while another reads its chunks."""

    def __init__(self, text: Text) -> None:
        self._chunks, self.digest = text.chunks, hashlib.sha256()
        self.text_bytes, self.characters, self.blank = 0, 0, True

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            raw = chunk.encode("utf-8")
            self.digest.update(raw)
            self.text_bytes += len(raw)
            self.characters += len(chunk)
            self.blank = self.blank and not chunk.strip()
            yield chunk

    def finish(self) -> None:
        """Read what is left of it."""
        for _ in self:
            pass


def without_copies(survey: Survey) -> tuple[list[Document], list[Reject]]:
    """Keep one of equal and of nearly equal texts: the one furthest towards the held-out splits, of lowest rank."""
    documents = survey.documents
    order = sorted(range(len(documents)), key=lambda at: (_place(documents[at].given), documents[at].rank))
    first: dict[bytes, int] = {}
    copies = {at: first.setdefault(survey.digests[at], at) for at in order}
    copies = {at: kept for at, kept in copies.items() if at != kept}
    row_of = {at: row for row, at in enumerate(survey.sketched) if at not in copies}
    near = near_copies(survey.sketches, [row_of[at] for at in order if at in row_of])
    nearly = {survey.sketched[row]: survey.sketched[kept] for row, kept in near.items()}
    rejects = []
    for found, reasons in ((copies, (DUPLICATE, DUPLICATE_ACROSS)), (nearly, (NEAR_COPY, NEAR_COPY_ACROSS))):
        for at, kept in found.items():
            reason = reasons[documents[at].given != documents[kept].given]
            rejects.append(Reject(documents[at].name, reason, f": {documents[kept].name}"))
    return [each for at, each in enumerate(documents) if at not in copies and at not in nearly], rejects


def _place(given: str) -> int:
    return HELD_OUT.index(given) if given in HELD_OUT else len(HELD_OUT)
