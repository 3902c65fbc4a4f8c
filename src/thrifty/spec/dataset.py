"""`Dataset`: what prepared data is, and the report of how it was cleaned; the file ``meta.json`` of a store."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from thrifty.spec.kinds import KINDS, KindName, Task
from thrifty.spec.plain import Plain
from thrifty.spec.sound import Sound
from thrifty.spec.table import Table

SPLITS = ("train", "validation", "test")
# Texts are padded up to a multiple of so many tokens: matrix kernels work on tiles (16 rows of AMX, 8 of tensor cores),
# a batch shape seen before reuses what was planned and allocated for it, and half of it, 4 tokens a text, is little.
LENGTH_MULTIPLE = 8


class Cleaning(Plain):
    """What cleaning kept and what it put aside.

    Attributes:
        seen: files looked at, or rows of tables of texts.
        kept: those that are in the store.
        rejected: files that are not, by reason; each is a line of ``rejects.jsonl``.
        duplicates: exact copies of another kept file in the same split; kept once, the copies are rejected.
        across_splits: copies that would have stood in two splits; kept on the held-out side alone.
        repaired: kept, but not whole, by what was done to them.
        notes: what else a user should know, a sentence each.
    """

    seen: int
    kept: int
    rejected: dict[str, int]
    duplicates: int
    across_splits: int
    repaired: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Dataset(Plain):
    """What a store holds, as the planner, the loop and the bundle need to know it.

    Attributes:
        kind: of its samples.
        task: what it was prepared for; its kind's own when left out.
        key: content key of the store: of the inputs, the data section of the job, the seed, and the code.
        counts: samples in each split: images, texts, or windows of ``length`` tokens.
        labels: class names in the order of their numbers; of transcripts what tokens stand for, from token 1 on; empty
            for language and where words are hidden.
        label_counts: training samples by label, or how often each token is said in them.
        shape: of one sample: ``(channels, height, width)``, or ``(length,)``, of texts that of the longest, or
            ``(frames, width)`` of the longest recording, or ``(width,)``, the numbers and codes of a table's row.
        mean, std: per channel, of the training split, of pixels scaled to 0..1, or of the numbers of a frame; empty for
            texts, language and tables.
        crop: as in the job; images only.
        vocabulary: tokens in the vocabulary, of transcripts with the blank; of tables values of codes; 0 for images.
        tokens: tokens in each split; empty for images; of recordings their frames.
        text_bytes: bytes of raw text in each split; empty for images.
        source_bytes: bytes of the raw files read.
        stored_bytes: bytes of the arrays in the store.
        lengths: of texts and recordings, samples in each split by their length: at place i those of over ``8 i`` to
            ``8 (i + 1)`` tokens or frames (`LENGTH_MULTIPLE`); of language, documents as windows cut them.
        cleaning: the report.
        sound: of recordings, how they become frames.
        table: of tables, how a row becomes numbers, and what is told.
        separator: of pairs of texts, the number of the token that ends each; 0 where there are none.
        end: of language, the number of the token before each document.
        marks: where words are hidden, numbers of the tokenizer's marks; the first is the one that hides.
    """

    kind: KindName
    task: Task
    key: str
    counts: dict[str, int]
    labels: tuple[str, ...]
    label_counts: dict[str, int]
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: Literal["center", "none", "letterbox"]
    vocabulary: int
    tokens: dict[str, int]
    text_bytes: dict[str, int]
    source_bytes: int
    stored_bytes: int
    cleaning: Cleaning
    lengths: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    sound: Sound | None = None
    table: Table | None = None
    marks: tuple[int, ...] = ()
    separator: int = 0
    end: int = 0

    @model_validator(mode="before")
    @classmethod
    def _own_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and "task" not in values and values.get("kind") in KINDS:
            return {**values, "task": KINDS[values["kind"]].tasks[0]}
        return values

    @property
    def piece(self) -> float:
        """Tokens of a document in a window, in the mean; 0 of what is not told as documents."""
        pieces = sum(self.lengths.get("train", ()))
        return self.tokens["train"] / pieces if self.kind == "language" and pieces else 0.0

    @property
    def length(self) -> int:
        """Tokens of the longest sample; 0 of samples that are no row of them."""
        return self.shape[0] if KINDS[self.kind].tokenized else 0
