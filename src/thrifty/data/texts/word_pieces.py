"""Texts to token numbers by pieces, as BERT reads them: [CLS] first, [SEP] last, 0 for padding.

Word pieces: a word is cut from the left into the longest pieces that are known, those after the first marked by ``##``
(Schuster and Nakajima 2012; Devlin et al. 2019); a word that cannot be cut so is unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from thrifty.data.documents.tokenizer import TOKENIZER_FILE, settled
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE

PAD, UNKNOWN, CLASS, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
MARKS = (PAD, UNKNOWN, CLASS, END, MASK)
PAD_ID = 0
CONTINUES = "##"
# between the two texts of a pair; no single text holds one, since tables are read with spaces in their place
PAIR_MARK = "\t"
LONGEST_WORD = 100
_CHARACTERS_AT_ONCE = 1 << 20


def learn_pieces(texts: Iterable[str], *, vocabulary: int, pieces: str = "wordpiece", nfkc: bool = False) -> Tokenizer:
    """Learn a tokenizer by one of `PIECES`; the same texts give the same one.

    Capitals are read as small letters; accents are kept, since outside English they tell words apart.

    Args:
        texts: to learn from.
        vocabulary: pieces at most, the marks included; but every character that occurs twice is one.
        pieces: ``wordpiece``, ``bpe``, ``unigram``, or ``characters``.
        nfkc: read forms that Unicode holds to be compatible, such as letters of full width, as one.

    >>> tokenizer = learn_pieces(["low lower lowest slow"] * 9, vocabulary=40)
    >>> [tokenizer.id_to_token(number) for number in tokenizer.encode("Lower slower").ids]
    ['[CLS]', 'lower', 'slow', '##e', '##r', '[SEP]']
    """
    return PIECES[pieces](texts, vocabulary, nfkc)


def _learn_word_pieces(texts: Iterable[str], vocabulary: int, nfkc: bool) -> Tokenizer:
    """The marks, the characters, and the commonest pairs within a word; each Chinese character is a word."""
    normalizer = _normalizer(nfkc)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(word, count))
    known = {word: count for word, count in words.items() if all(characters[each] > 1 for each in word)}
    first = sorted({word[0] for word in known})
    later = sorted({each for word in known for each in word[1:]})
    # The library numbers what continues a word by the order of a hash table, another in each process, and breaks ties
    # by number; given as special tokens they have their numbers before. It also wants every character for itself.
    alone = [each for each in later if each not in set(first)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary + len(alone),
        min_frequency=2,
        special_tokens=[*MARKS, *first, *(CONTINUES + each for each in later), *alone],
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    raw = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.train_from_iterator((" ".join([word] * count) for word, count in known.items()), trainer)
    numbers = raw.get_vocab()
    pieces = [piece for piece in sorted(numbers, key=numbers.__getitem__) if piece not in set(alone)]
    return _of_pieces(pieces, normalizer)


def _learn_bpe(texts: Iterable[str], vocabulary: int, nfkc: bool) -> Tokenizer:
    """The commonest pairs within a word joined again and again (Sennrich et al. 2016); a word begins with U+2581."""
    kept, _ = _common_characters(texts, nfkc)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=list(MARKS), show_progress=False
    )
    raw = _of_words(Tokenizer(models.BPE(unk_token=UNKNOWN)), nfkc)
    raw.train_from_iterator(kept, trainer)
    return _marking(raw, TOKENIZER_FILE)


def _learn_unigram(texts: Iterable[str], vocabulary: int, nfkc: bool) -> Tokenizer:
    """The pieces that make the texts likeliest (Kudo 2018): of Chinese, which has no spaces, they are words."""
    kept, characters = _common_characters(texts, nfkc)
    trainer = trainers.UnigramTrainer(
        vocab_size=max(vocabulary, characters + len(MARKS) + 1),  # the library wants them all
        special_tokens=list(MARKS),
        unk_token=UNKNOWN,
        show_progress=False,
    )
    raw = _of_words(Tokenizer(models.Unigram()), nfkc)
    raw.train_from_iterator(kept, trainer)
    return _marking(settled(raw, kept, MARKS, unknown=MARKS.index(UNKNOWN)), TOKENIZER_FILE)


def _common_characters(texts: Iterable[str], nfkc: bool) -> tuple[list[str], int]:
    """Put spaces in the place of characters that occur once, and count the others."""
    normalizer = _normalizer(nfkc, chinese_apart=False)
    kept = [normalizer.normalize_str(text) for text in texts]
    counts = Counter(each for text in kept for each in text)
    rare = {ord(each): " " for each, count in counts.items() if count < 2}
    return [text.translate(rare) for text in kept], len(counts) - len(rare)


def _of_words(tokenizer: Tokenizer, nfkc: bool) -> Tokenizer:
    """Have a tokenizer read words, punctuation apart, each with a mark where a space stood before it."""
    tokenizer.normalizer = _normalizer(nfkc, chinese_apart=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _learn_characters(texts: Iterable[str], vocabulary: int, nfkc: bool) -> Tokenizer:
    """Each character that occurs twice, spaces too; the commonest where there are more than ``vocabulary``."""
    normalizer = _normalizer(nfkc, chinese_apart=False)
    counts = Counter(each for text in texts for each in normalizer.normalize_str(text))
    common = sorted((each for each in counts if counts[each] > 1), key=lambda each: (-counts[each], each))
    numbers = {token: number for number, token in enumerate([*MARKS, *common[: vocabulary - len(MARKS)]])}
    # pairs that are never joined leave single characters
    tokenizer = Tokenizer(models.BPE(numbers, [], unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(MARKS))
    return _marking(tokenizer, TOKENIZER_FILE)


def _normalizer(nfkc: bool, *, chinese_apart: bool = True) -> normalizers.Normalizer:
    own = normalizers.BertNormalizer(lowercase=True, strip_accents=False, handle_chinese_chars=chinese_apart)
    return normalizers.Sequence([normalizers.NFKC(), own]) if nfkc else own


# Each takes texts, the most pieces, and whether to read NFKC forms, and returns a tokenizer that puts the marks around
# a text.
PIECES: dict[str, Callable[[Iterable[str], int, bool], Tokenizer]] = {
    "wordpiece": _learn_word_pieces,
    "bpe": _learn_bpe,
    "unigram": _learn_unigram,
    "characters": _learn_characters,
}


def read_pieces(raw: bytes, name: str) -> Tokenizer:
    """Read word pieces: the lines of a ``vocab.txt`` as BERT's authors publish it, or a ``tokenizer.json``.

    A list without capitals is for text without: it is read in small letters, without accents, as BERT's was.

    Raises:
        DataError: it cannot be read, lacks a mark, or has another padding than 0.
    """
    try:
        text = raw.decode("utf-8")
        if text.lstrip().startswith("{"):
            tokenizer = Tokenizer.from_str(text)
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return _checked(_marking(tokenizer, name), name)
    except DataError:
        raise
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise DataError(
            f"tokenizer '{name}' cannot be read: {' '.join(str(error).split())[:200]}",
            mend="It is a vocab.txt with a piece on each line, or the tokenizer.json of the tokenizers library.",
        ) from error
    pieces = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    if len(set(pieces)) < len(pieces):
        twice = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise DataError(f"tokenizer '{name}' has the piece {twice[:50]!r} twice", mend="A piece stands on one line.")
    for mark in (PAD, UNKNOWN, CLASS, END):
        if mark not in pieces:
            raise DataError(f"tokenizer '{name}' has no piece '{mark}'", mend=_WANTED)
    capitals = any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
    return _checked(_of_pieces(pieces, normalizers.BertNormalizer(lowercase=not capitals)), name)


def load_pieces(folder: Path) -> Tokenizer:
    """Read the word pieces of a store or a bundle.

    Raises:
        DataError: they are missing or damaged.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"tokenizer '{path}' cannot be read: {error.strerror}") from error
    return read_pieces(raw, str(path))


def keep_pieces(tokenizer: Tokenizer, used: Collection[int], name: str) -> Tokenizer:
    """Return the tokenizer with the marks and the pieces of some numbers alone, in their order, numbered anew.

    A text whose pieces are all kept is cut as before: the longest piece at each place is still there.

    Raises:
        DataError: it is of another sort than word pieces.
    """
    content = json.loads(tokenizer.to_str())
    if content["model"].get("type") != "WordPiece":
        raise DataError(
            f"tokenizer '{name}' is of the sort {content['model'].get('type')}, whose vocabulary cannot be cut",
            mend="Leave out data.cut_vocabulary: only word pieces (WordPiece) are told apart by use.",
        )
    numbers = {**tokenizer.get_vocab()}
    wanted = set(used) | {numbers[mark] for mark in MARKS if mark in numbers}
    kept = [piece for piece in sorted(numbers, key=numbers.__getitem__) if numbers[piece] in wanted]
    content["model"]["vocab"] = {piece: number for number, piece in enumerate(kept)}
    added = [each for each in content["added_tokens"] if each["content"] in content["model"]["vocab"]]
    content["added_tokens"] = [{**each, "id": content["model"]["vocab"][each["content"]]} for each in added]
    content["post_processor"] = None
    return _marking(Tokenizer.from_str(json.dumps(content)), name)


def encode_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield the token numbers of each text, [CLS] first, [SEP] last and in a pair; some at once, on all cores."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield from _encoded(tokenizer, group)
            group, size = [], 0
    yield from _encoded(tokenizer, group)


def paired(text: str) -> str | tuple[str, str]:
    """Tell a pair of texts from one, as the tokenizer takes them.

    >>> paired("is it so?\\tyes"), paired("it is")
    (('is it so?', 'yes'), 'it is')
    """
    first, mark, second = text.partition(PAIR_MARK)
    return (first, second) if mark else text


def cut(numbers: list[int], length: int) -> list[int]:
    """Cut a text to ``length`` tokens, its last mark kept.

    >>> cut([2, 7, 8, 9, 3], 4)
    [2, 7, 8, 3]
    """
    return numbers if len(numbers) <= length else [*numbers[: length - 1], numbers[-1]]


def padded_length(longest: int, most: int) -> int:
    """Return the length that texts are padded to: the next multiple of `LENGTH_MULTIPLE`, at most ``most``.

    >>> padded_length(9, 64), padded_length(16, 64), padded_length(61, 62)
    (16, 16, 62)
    """
    return min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, most)


def pad(rows: Sequence[Sequence[int]], most: int) -> np.ndarray:
    """Put texts into one array, int64 [N, T], filled up with 0; T as `padded_length` of the longest.

    >>> pad([[2, 7, 3], [2, 3]], most=3).tolist()
    [[2, 7, 3], [2, 3, 0]]
    """
    x_NT = np.full((len(rows), padded_length(max(map(len, rows)), most)), PAD_ID, np.int64)
    for row, numbers in zip(x_NT, rows, strict=True):
        row[: len(numbers)] = numbers
    return x_NT


_WANTED = f"A list of word pieces holds {PAD}, {UNKNOWN}, {CLASS} and {END}, {PAD} on its first line."


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    pairs = [paired(text) for text in texts]
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(pairs)] if texts else []


def _of_pieces(pieces: Sequence[str], normalizer: normalizers.Normalizer) -> Tokenizer:
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.WordPiece(
            numbers, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD, continuing_subword_prefix=CONTINUES
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES)
    tokenizer.add_special_tokens([mark for mark in MARKS if mark in numbers])
    return _marking(tokenizer, "vocab.txt")


def _marking(tokenizer: Tokenizer, name: str) -> Tokenizer:
    """Make a tokenizer put the marks around each text, and read a text that spells a mark as text."""
    ids = {mark: tokenizer.token_to_id(mark) for mark in (CLASS, END)}
    missing = [mark for mark, number in ids.items() if number is None]
    if missing:
        raise DataError(f"tokenizer '{name}' has no piece '{missing[0]}'", mend=_WANTED)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLASS} $A {END}", pair=f"{CLASS} $A {END} $B {END}", special_tokens=list(ids.items())
    )
    # the library's file does not keep this setting
    tokenizer.encode_special_tokens = True
    return tokenizer


def _checked(tokenizer: Tokenizer, name: str) -> Tokenizer:
    if (found := tokenizer.token_to_id(PAD)) != PAD_ID:
        has = f"numbers padding, '{PAD}', {found}" if found is not None else f"has no padding, '{PAD}'"
        raise DataError(f"tokenizer '{name}' {has}, and padding is {PAD_ID}", mend=_WANTED)
    return tokenizer
