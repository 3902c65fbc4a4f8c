"""The documents that are kept, read again from their files: part by part, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thrifty.data.documents.dealing import Document, Part
from thrifty.data.documents.files import Text, read_documents
from thrifty.data.inventory import Inventory
from thrifty.spec import LanguageData
from thrifty.spec.units import format_bytes

# Merges of a few thousand pairs change little beyond this much text, and training reads about 10 MB a second.
TOKENIZER_TEXT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Corpus:
    """The kept documents with their parts, to be read again."""

    data: LanguageData
    inventory: Inventory
    documents: Sequence[Document]
    parts: Sequence[Sequence[Part]]

    def texts(self, numbers: Sequence[int], split: str = "") -> Iterator[tuple[str, Iterator[str]]]:
        """Go through documents as they lie in their files: each part with its split and its chunks.

        Args:
            numbers: of the documents, those of a file together.
            split: whose parts alone are wanted; all when left out.
        """
        by_file: dict[str, dict[int, int]] = {}
        for number in numbers:
            document = self.documents[number]
            by_file.setdefault(document.file.name, {})[document.row] = number
        for rows in by_file.values():
            file = self.documents[next(iter(rows.values()))].file
            for text in read_documents(self.data, file, self.inventory.hashes[file.name]):
                if isinstance(text, Text) and text.row in rows:
                    chunks = _Chunks(text.chunks)
                    for part in self.parts[rows[text.row]]:
                        taken = chunks.take(part.characters)
                        if split in {"", part.split}:
                            yield part.split, taken
                        # who stopped early leaves the rest to the next part
                        for _ in taken:
                            pass

    def training(self, notes: list[str]) -> Iterator[str]:
        """Texts to train the tokenizer on: all of the training split, or as much of its seeded order as is enough."""
        chosen: list[int] = []
        found = 0
        for number in sorted(range(len(self.documents)), key=lambda number: self.documents[number].rank):
            mine = sum(part.characters for part in self.parts[number] if part.split == "train")
            if mine and found < TOKENIZER_TEXT_BYTES:
                chosen.append(number)
                found += self.documents[number].text_bytes
        read = 0
        for _, chunks in self.texts(sorted(chosen), "train"):
            for chunk in chunks:
                if read >= TOKENIZER_TEXT_BYTES:
                    break
                read += len(chunk.encode())
                yield chunk
        if read >= TOKENIZER_TEXT_BYTES:
            notes.append(f"the tokenizer was trained on {format_bytes(read)} of the training text")


class _Chunks:
    """Chunks of a text, of which some characters are taken at a time."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks, self._rest = chunks, ""

    def take(self, characters: int) -> Iterator[str]:
        """Take the next of them, or what is left."""
        while characters > 0:
            self._rest = self._rest or next(self._chunks, "")
            if not self._rest:
                return
            taken, self._rest = self._rest[:characters], self._rest[characters:]
            characters -= len(taken)
            yield taken
