"""Text to tokens and back: a tokenizer trained here, and encoding in bounded memory.

Pieces over bytes encode every text, and decoding gives it back byte for byte (bytes as in GPT-2). Characters give back
those that were learned; one number stands for all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from thrifty.errors import DataError

END_TOKEN = "<|end|>"
END_ID = 0
# Unicode's own sign for a character that cannot be shown
UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"
TOKENIZER_FILE = "tokenizer.json"
IGNORED_TARGET = -100
# what the tokenizers that are learned here never join with what stands before it, where it stands alone
SEAMS = " \n"
_ESTIMATIONS = 3
_PIECE_CHARACTERS = 65_536
_CUT_WINDOW = 4096
_CHARACTERS_AT_ONCE = 1 << 20
ItemT = TypeVar("ItemT")


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, pieces: str = "bpe") -> Tokenizer:
    """Learn a tokenizer by one of `PIECES`; the same texts give the same one.

    Args:
        texts: to learn from; a long one may come in several.
        vocabulary: tokens at most, the end token included; there are fewer where the texts hold too little.
        pieces: ``bpe`` or ``unigram`` over bytes, or ``characters``.

    >>> tokenizer = train_tokenizer(["low lower lowest"] * 9, vocabulary=260)
    >>> tokenizer.decode(tokenizer.encode("slow \\N{SNOWMAN}").ids)
    'slow ☃'
    """
    tokenizer = PIECES[pieces]((piece for text in texts for piece in cut([text])), vocabulary)
    assert tokenizer.token_to_id(END_TOKEN) == END_ID
    return safe(tokenizer)


def _learn_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Join the commonest pair of pieces again and again, from the 256 bytes on (Sennrich et al. 2016)."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    return _over_bytes(Tokenizer(models.BPE()), trainer, texts)


def _learn_unigram(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Keep the pieces that make the texts likeliest where each piece is drawn by itself (Kudo 2018)."""
    texts = list(texts)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned = _over_bytes(Tokenizer(models.Unigram()), trainer, texts)
    return settled(learned, texts, (END_TOKEN,))


def settled(learned: Tokenizer, texts: Sequence[str], marks: Sequence[str], unknown: int | None = None) -> Tokenizer:
    """Give the pieces of a unigram tokenizer the same numbers and likelihoods in every process.

    The library finds the same pieces each time, but likelihoods that differ by the order of a hash table. They are
    estimated anew: from the fewest pieces that make up each word, then from the likeliest.

    Args:
        learned: by the library.
        texts: that it was learned from.
        marks: tokens that come first, in their order.
        unknown: number of the mark for what no piece spells.
    """
    pieces = [*marks, *sorted(learned.get_vocab().keys() - set(marks))]
    scores = np.full(len(pieces), -1.0)
    for _ in range(_ESTIMATIONS):
        learned.model = models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unknown)
        counts = np.full(len(pieces), 0.5)
        for group in _groups(texts, len):
            for encoding in learned.encode_batch_fast(group):
                counts += np.bincount(encoding.ids, minlength=len(pieces))
        scores = np.log(counts / counts.sum())
    learned.model = models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unknown)
    return learned


def _over_bytes(tokenizer: Tokenizer, trainer: trainers.Trainer, texts: Iterable[str]) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _learn_characters(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Take each character for a token, the commonest where there are more; another is read as U+FFFD."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    counts.pop(UNKNOWN_CHARACTER, None)
    marks = (END_TOKEN, UNKNOWN_CHARACTER)
    common = sorted(counts, key=lambda each: (-counts[each], each))[: vocabulary - len(marks)]
    numbers = {token: number for number, token in enumerate([*marks, *sorted(common)])}
    # pairs that are never joined leave single characters
    tokenizer = Tokenizer(models.BPE(numbers, [], unk_token=UNKNOWN_CHARACTER))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_TOKEN])
    return tokenizer


# Each takes texts and the most tokens, and returns a tokenizer whose first is the end token.
PIECES: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {
    "bpe": _learn_bpe,
    "unigram": _learn_unigram,
    "characters": _learn_characters,
}


def load_tokenizer(folder: Path, end: int = END_ID) -> Tokenizer:
    """Read the tokenizer of a store or a bundle.

    Args:
        folder: where it lies.
        end: number of its end token.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise DataError(f"tokenizer '{path}' cannot be read: {error}") from error
    if tokenizer.id_to_token(end) is None:
        raise DataError(f"tokenizer '{path}' has no token with number {end}, which ends a document")
    return safe(tokenizer)


def safe(tokenizer: Tokenizer) -> Tokenizer:
    """Make a text that spells the end token be read as text; the library's file does not keep this setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def cut(chunks: Iterable[str], seams: str = SEAMS, *, dropped: bool = False) -> Iterator[str]:
    """Cut a long text, which comes in chunks, into pieces whose tokens, put together, are those of the whole text.

    The tokenizer never joins a lone space or line end with what stands before it, so that is where to cut. Text
    without one for thousands of characters is cut anyway; it still decodes to the same text.

    Args:
        chunks: of the text.
        seams: characters to cut before.
        dropped: a space that is cut at is left out, by a tokenizer that puts one before each text.
    """
    text = ""
    for chunk in chunks:
        text, start = text + chunk, 0
        while len(text) - start > _PIECE_CHARACTERS:
            end = start + _PIECE_CHARACTERS
            place = next((at for at in range(end, end - _CUT_WINDOW, -1) if _is_seam(text, at, seams)), end)
            yield text[start:place]
            start = place + (dropped and text[place] == " ")
        text = text[start:]
    if text:
        yield text


def _is_seam(text: str, at: int, seams: str = SEAMS) -> bool:
    return text[at] in seams and not text[at - 1].isspace() and at + 1 < len(text) and not text[at + 1].isspace()


def cutting_of(tokenizer: Tokenizer) -> tuple[str, bool]:
    """Tell how a given tokenizer's texts are cut: the arguments ``seams`` and ``dropped`` of `cut`.

    One may join punctuation and line ends, so cuts are before spaces alone; one that puts a space before each text, as
    Llama's does, has another for one that is cut at.
    """
    whole, first, later, bare = (
        tokenizer.encode(text, add_special_tokens=False).ids for text in ("one two", "one", " two", "two")
    )
    return " ", whole != first + later and whole == first + bare


def encode(
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, Iterable[str]]],
    end: int = END_ID,
    cutting: tuple[str, bool] = (SEAMS, False),
) -> Iterator[tuple[str, np.ndarray]]:
    """Encode texts of any length into streams: the end token, a text, the end token, the next text, …

    Some pieces are encoded at once, on all cores.

    Args:
        tokenizer: as trained here, or given.
        texts: each with the name of its stream, and in chunks.
        end: number of the end token.
        cutting: of long texts, as `cutting_of` has it.

    Yields:
        The name of a stream and its next token numbers, int64.
    """
    seams, dropped = cutting
    pieces = (
        (name, place == 0, piece)
        for name, chunks in texts
        for place, piece in enumerate(cut(chunks, seams, dropped=dropped))
    )
    for group in _groups(pieces, lambda piece: len(piece[-1])):
        encodings = tokenizer.encode_batch_fast([piece for _, _, piece in group])
        for (name, begins, _), encoding in zip(group, encodings, strict=True):
            yield name, np.array([end, *encoding.ids] if begins else encoding.ids, np.int64)


def _groups(items: Iterable[ItemT], size_of: Callable[[ItemT], int]) -> Iterator[list[ItemT]]:
    """Put items together that are to be encoded at once: some characters, since an encoding takes far more memory."""
    group: list[ItemT] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
