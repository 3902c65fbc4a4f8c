"""Texts into tokens chunk by chunk: what stands between two spaces is cut once, wherever it comes again.

A tokenizer takes a text through a normalizer, cuts it before the model sees it, and has the model cut each piece alone.
Where neither of the first two looks across a space, the tokens of a text are those of its chunks, end to end.

- No normalizer of `_NORMALIZERS` does: each changes characters one by one, or composes and decomposes them, and a space
  neither composes with another character nor lets marks past it (Unicode Standard Annex 15: it is a starter).
- Every cutter of `_CUTTERS` ends a piece at each space and drops it, and those of `_CUTTERS_WITHIN` cut pieces further.
- ``Metaspace`` puts a mark in the place of each space and before the text, and cuts before each mark: the same, but for
  chunks that are empty once normalized, or begin with a space or mark, so that two marks come together or one is not
  put. Texts that hold such a chunk are cut whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from thrifty.data.texts.word_pieces import CLASS, END, PAIR_MARK, encode_texts

if TYPE_CHECKING:
    import polars as pl

_NORMALIZERS = ("BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD")
_CUTTERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_CUTTERS_WITHIN = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits")
_MARK = "\u2581"
# chunks are handed over in lists, which the library shares out among cores
_CHUNKS_A_LIST = 2000
# Characters of the chunks that are kept; beyond them all are forgotten. English has a million in its commonest 100,000.
MOST_CHARACTERS = 1 << 25
# of so much of a group of texts in new chunks, as of Chinese, little is saved
_MOSTLY_NEW = 0.5


@dataclass(frozen=True)
class Flat:
    """Texts end to end: ``tokens`` uint32 [L] and the length of each, int64 [N]."""

    tokens: np.ndarray
    lengths: np.ndarray

    def cut(self, length: int) -> Flat:
        """Cut the texts to ``length`` tokens, the last mark of each kept."""
        if not (self.lengths > length).any():
            return self
        ends = np.cumsum(self.lengths)
        place = np.arange(len(self.tokens)) - np.repeat(ends - self.lengths, self.lengths)
        from_end = np.repeat(ends, self.lengths) - np.arange(len(self.tokens))
        kept = (place < length - 1) | (from_end == 1)
        return Flat(self.tokens[kept], np.minimum(self.lengths, length))


def joined(parts: Sequence[Flat]) -> Flat:
    """Put texts behind one another.

    >>> joined([Flat(np.array([2, 7, 3], np.uint32), np.array([3])), Flat(np.array([2, 3], np.uint32), np.array([2]))])
    Flat(tokens=array([2, 7, 3, 2, 3], dtype=uint32), lengths=array([3, 2]))
    """
    none = Flat(np.zeros(0, np.uint32), np.zeros(0, np.int64))
    parts = parts or [none]
    return Flat(np.concatenate([each.tokens for each in parts]), np.concatenate([each.lengths for each in parts]))


@dataclass(frozen=True)
class Locality:
    """How the chunks of a tokenizer's texts hang together.

    Attributes:
        marked: spaces become marks, so that an empty chunk, or one that begins with a mark, needs the one before it.
    """

    marked: bool


def find_locality(tokenizer: Tokenizer) -> Locality | None:
    """Say whether a tokenizer cuts each chunk of a text for itself; None where that does not follow from its parts.

    >>> from thrifty.data.texts.word_pieces import learn_pieces
    >>> [find_locality(learn_pieces(["low lower"] * 9, vocabulary=40, pieces=each)) for each in ("bpe", "characters")]
    [Locality(marked=True), None]
    """
    content = json.loads(tokenizer.to_str())
    # a token that is no mark is looked for in the text before all else
    plain = tokenizer.encode_special_tokens and all(each["special"] for each in content["added_tokens"])
    if not plain or content["model"].get("dropout") or content["truncation"] or content["padding"]:
        return None
    if any(each["type"] not in _NORMALIZERS for each in _steps(content["normalizer"], "normalizers")):
        return None
    cutters = _steps(content["pre_tokenizer"], "pretokenizers")
    if not cutters or any(each["type"] not in _CUTTERS_WITHIN for each in cutters[1:]):
        return None
    first = cutters[0]
    if first["type"] in _CUTTERS:
        return Locality(marked=False)
    always = first.get("prepend_scheme") == "always" and first.get("split") and first.get("replacement") == _MARK
    return Locality(marked=True) if first["type"] == "Metaspace" and always else None


def _steps(part: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """The steps of a tokenizer's part, those of sequences within sequences too."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for each in part[several] for step in _steps(each, several)]


class Chunks:
    """Cuts texts by a tokenizer, and remembers the tokens of their chunks; the tokens are those of `encode_texts`.

    >>> from thrifty.data.texts.word_pieces import learn_pieces
    >>> chunks = Chunks(learn_pieces(["low lower lowest slow"] * 9, vocabulary=40))
    >>> chunks.encode(["low low slow low", "slow"]).lengths
    array([6, 3])
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._locality = find_locality(tokenizer)
        marks = [tokenizer.token_to_id(mark) for mark in (CLASS, END)]
        self._class, self._end = (number for number in marks if number is not None)
        self._forget()

    def _forget(self) -> None:
        self._places: dict[str, int] = {}
        self.kept_characters = 0
        # of each chunk known: where its tokens begin, how many there are, and whether it can stand behind any other
        self._starts, self._counts, self._alone = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
        self._tokens = np.zeros(0, np.uint32)

    def encode(self, texts: Sequence[str]) -> Flat:
        """Cut texts; of a pair, which `PAIR_MARK` parts, both, each closed by a mark."""
        if self._locality is None or not texts:
            return self._whole(texts)
        import polars as pl

        parts = [text.split(PAIR_MARK, 1) for text in texts] if any(PAIR_MARK in text for text in texts) else None
        segments = pl.Series(texts if parts is None else [one for each in parts for one in each], dtype=pl.String)
        segments_of = np.ones(len(texts), np.int64) if parts is None else np.array([len(each) for each in parts])
        chunks = segments.str.split(" ")
        numbers = self._numbers(chunks.explode(), int(segments.str.len_chars().sum()))
        if numbers is None:
            return self._whole(texts)
        chunks_of = chunks.list.len().to_numpy().astype(np.int64)
        alone = self._alone[numbers]
        if alone.all():
            return self._assembled(numbers, chunks_of, segments_of)
        begins = np.cumsum(segments_of) - segments_of
        local = np.logical_and.reduceat(np.logical_and.reduceat(alone, np.cumsum(chunks_of) - chunks_of), begins)
        by_segment = np.repeat(local, segments_of)
        easy = self._assembled(numbers[np.repeat(by_segment, chunks_of)], chunks_of[by_segment], segments_of[local])
        hard = self._whole([text for text, by_chunks in zip(texts, local.tolist(), strict=True) if not by_chunks])
        return _merged(easy, hard, local)

    def encode_groups(self, texts: Iterable[str], at_once: int) -> Iterator[Flat]:
        """Cut texts, about so many characters at once: what is worked on at a time stays small."""
        group: list[str] = []
        size = 0
        for text in texts:
            group.append(text)
            size += len(text)
            if size >= at_once:
                yield self.encode(group)
                group, size = [], 0
        if group:
            yield self.encode(group)

    def _whole(self, texts: Sequence[str]) -> Flat:
        rows = [np.array(numbers, np.uint32) for numbers in encode_texts(self._tokenizer, texts)]
        return Flat(np.concatenate([np.zeros(0, np.uint32), *rows]), np.array([len(row) for row in rows], np.int64))

    def _numbers(self, chunks: pl.Series, characters: int) -> np.ndarray | None:
        """The number of each chunk, those that are new learned; None where most of the texts is new."""
        import polars as pl

        different = chunks.unique(maintain_order=True)
        names = different.to_list()
        new = [name for name in names if name not in self._places]
        size = sum(map(len, new))
        if size > _MOSTLY_NEW * characters:
            return None
        if self.kept_characters + size > MOST_CHARACTERS:
            self._forget()
            new, size = names, sum(map(len, names))
        if new:
            self._learn(new, size)
        own = np.fromiter(map(self._places.__getitem__, names), np.int64, len(names))
        found: np.ndarray = own[chunks.cast(pl.Enum(different)).to_physical().to_numpy()]
        return found

    def _learn(self, chunks: list[str], size: int) -> None:
        lists = [chunks[at : at + _CHUNKS_A_LIST] for at in range(0, len(chunks), _CHUNKS_A_LIST)]
        # the library says of each token which of the list it is of
        found = self._tokenizer.encode_batch(lists, is_pretokenized=True, add_special_tokens=False)
        counts = np.concatenate(
            [
                np.bincount(np.array(each.word_ids, np.int64), minlength=len(own))
                for each, own in zip(found, lists, strict=True)
            ]
        )
        start = len(self._tokens)
        self._tokens = np.concatenate([self._tokens, *(np.array(each.ids, np.uint32) for each in found)])
        self._starts = np.concatenate([self._starts, start + np.cumsum(counts) - counts])
        self._counts = np.concatenate([self._counts, counts])
        self._alone = np.concatenate([self._alone, [self._stands_alone(chunk) for chunk in chunks]])
        self._places |= dict(zip(chunks, range(len(self._places), len(self._places) + len(chunks)), strict=True))
        self.kept_characters += size

    def _stands_alone(self, chunk: str) -> bool:
        assert self._locality is not None
        if not self._locality.marked:
            return True
        normalizer = self._tokenizer.normalizer
        found = chunk if normalizer is None else normalizer.normalize_str(chunk)
        return bool(found) and not found.startswith((" ", _MARK))

    def _assembled(self, numbers: np.ndarray, chunks_of: np.ndarray, segments_of: np.ndarray) -> Flat:
        """Tokens of texts: chunks, how many a segment has, and how many segments a text has."""
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        # the tokens of one chunk follow each other where they are kept and where they go
        shift = np.repeat(self._starts[numbers] - (ends - counts), counts)
        tokens = self._tokens[shift + np.arange(len(shift))]
        until = np.concatenate([[0], ends])[np.cumsum(chunks_of)]
        of_segment = np.diff(until, prepend=0) + 1
        last = np.cumsum(segments_of)
        of_segment[last - segments_of] += 1
        closes = np.cumsum(of_segment)
        lengths = np.diff(closes[last - 1], prepend=0)
        opens = np.cumsum(lengths) - lengths
        found = np.empty(int(lengths.sum()), np.uint32)
        inner = np.ones(len(found), bool)
        inner[closes - 1] = inner[opens] = False
        found[inner], found[opens], found[closes - 1] = tokens, self._class, self._end
        return Flat(found, lengths)


def _merged(one: Flat, other: Flat, first: np.ndarray) -> Flat:
    """Put texts back among each other: ``first`` bool [N] says which are of ``one``."""
    lengths = np.empty(len(first), np.int64)
    lengths[first], lengths[~first] = one.lengths, other.lengths
    of_one = np.repeat(first, lengths)
    tokens = np.empty(len(of_one), np.uint32)
    tokens[of_one], tokens[~of_one] = one.tokens, other.tokens
    return Flat(tokens, lengths)
