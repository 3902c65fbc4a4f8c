"""The kinds of data, what each is for, and what every room has to know of it: one row a kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["classify", "language", "mask", "regress", "tag", "transcribe"]
KindName = Literal["audio", "image", "language", "table", "text"]


@dataclass(frozen=True)
class Kind:
    """What a kind of data is.

    Attributes:
        tasks: that it can be for, by name; where a job names none, the only one, or what the data says.
        samples: what people call its samples.
        cleaned: what cleaning counts: ``files`` or ``rows``.
        varies: each sample has a length of its own, and batches are filled up to the longest of theirs.
        tokenized: samples are numbers of tokens, and a tokenizer belongs to them.
        validated: samples that a validation computes at once, at least.
    """

    tasks: tuple[Task, ...]
    samples: str
    cleaned: Literal["files", "rows"]
    varies: bool
    tokenized: bool
    validated: int


KINDS: dict[KindName, Kind] = {
    "audio": Kind(("classify", "transcribe"), "recordings", "files", varies=True, tokenized=False, validated=64),
    "image": Kind(("classify",), "images", "files", varies=False, tokenized=False, validated=256),
    "language": Kind(("language",), "windows of text", "files", varies=False, tokenized=True, validated=16),
    "table": Kind(("classify", "regress"), "rows", "rows", varies=False, tokenized=False, validated=2048),
    "text": Kind(("classify", "mask", "tag"), "texts", "rows", varies=True, tokenized=True, validated=64),
}
