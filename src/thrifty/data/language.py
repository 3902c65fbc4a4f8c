"""Text to tokens and back: a byte-level BPE tokenizer, trained here, encoding in bounded memory.

Every text can be encoded, and decoding gives it back byte for byte (Sennrich et al. 2016; bytes as in GPT-2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from thrifty.errors import DataError

END_TOKEN = "<|end|>"
END_ID = 0
TOKENIZER_FILE = "tokenizer.json"
IGNORED_TARGET = -100
_PIECE_CHARACTERS = 65_536
_CUT_WINDOW = 4096
_CHARACTERS_AT_ONCE = 1 << 20


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """Learn a byte-level BPE tokenizer: the end token, the 256 bytes, and the commonest pairs up to ``vocabulary``.

    It has fewer tokens where the texts hold fewer pairs that occur twice. The same texts give the same tokenizer.

    >>> tokenizer = train_tokenizer(["low lower lowest"] * 9, vocabulary=260)
    >>> tokenizer.decode(tokenizer.encode("slow \\N{SNOWMAN}").ids)
    'slow ☃'
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    assert tokenizer.token_to_id(END_TOKEN) == END_ID
    return _safe(tokenizer)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a store or a bundle.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise DataError(f"tokenizer '{path}' cannot be read: {error}") from error
    if tokenizer.token_to_id(END_TOKEN) != END_ID:
        raise DataError(f"tokenizer '{path}' has no token '{END_TOKEN}' with number {END_ID}")
    return _safe(tokenizer)


def _safe(tokenizer: Tokenizer) -> Tokenizer:
    """Make a text that spells the end token be read as text; the library's file does not keep this setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def pieces(text: str) -> Iterator[str]:
    """Cut a long text into pieces of bounded length whose tokens, put together, are those of the whole text.

    The tokenizer never joins a lone space or line end with what stands before it, so that is where to cut. Text
    without one for thousands of characters is cut anyway; it still decodes to the same text.
    """
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = next((at for at in range(end, end - _CUT_WINDOW, -1) if _is_seam(text, at)), end)
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _is_seam(text: str, at: int) -> bool:
    return text[at] in " \n" and not text[at - 1].isspace() and at + 1 < len(text) and not text[at + 1].isspace()


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Encode texts of any length into one stream: the end token, a text, the end token, the next text, …

    Yields the stream in parts, arrays of token numbers. Some parts are encoded at once, on all cores.
    """
    cut = ((place == 0, piece) for text in texts for place, piece in enumerate(pieces(text)))
    for group in _groups(cut):
        encodings = tokenizer.encode_batch_fast([piece for _, piece in group])
        for (begins, _), encoding in zip(group, encodings, strict=True):
            yield np.array([END_ID, *encoding.ids] if begins else encoding.ids, np.int64)


def _groups(cut: Iterable[tuple[bool, str]]) -> Iterator[list[tuple[bool, str]]]:
    group: list[tuple[bool, str]] = []
    size = 0
    for begins, piece in cut:
        group.append((begins, piece))
        size += len(piece)
        if size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
