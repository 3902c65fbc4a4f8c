"""Texts cut chunk by chunk: the tokens are those of whole texts, whatever is in them, and what is kept is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from data_folders import reviews
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from thrifty.data.texts import chunks
from thrifty.data.texts.chunks import Chunks, Flat, find_locality, joined
from thrifty.data.texts.word_pieces import MARKS, PAIR_MARK, encode_texts, learn_pieces, read_pieces

TEXTS = [text for text, _ in reviews(80)] + ["die gärtner im gärtnerhof", "这本书很好看", "这本书不好看"] * 2
LETTERS = "abcdefghijklmnopqrstuvwxyzäéñ这本书,.!?'-[]▁0123456789"
PIECES = [*MARKS, *LETTERS, *(f"##{each}" for each in LETTERS), "film", "##ing", "the"]


def own(normalizer: normalizers.Normalizer | None, cutter: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    """A ``tokenizer.json`` as others may have written it."""
    raw = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    if normalizer is not None:
        raw.normalizer = normalizer
    if cutter is not None:
        raw.pre_tokenizer = cutter
    raw.add_special_tokens([*MARKS[:-1], AddedToken("[MASK]", lstrip=True, rstrip=True, single_word=True)])
    return read_pieces(raw.to_str().encode(), "tokenizer.json")


METASPACE = pre_tokenizers.Metaspace()
SPLIT = pre_tokenizers.WhitespaceSplit()
LOCAL: dict[str, Callable[[], Tokenizer]] = {
    "list of pieces": lambda: read_pieces("\n".join(PIECES).encode(), "vocab.txt"),
    "list with capitals": lambda: read_pieces("\n".join([*PIECES, "A", "##B"]).encode(), "vocab.txt"),
    "learned word pieces": lambda: learn_pieces(TEXTS, vocabulary=120),
    "learned pairs": lambda: learn_pieces(TEXTS, vocabulary=120, pieces="bpe"),
    "learned unigrams": lambda: learn_pieces(TEXTS, vocabulary=120, pieces="unigram"),
    "composed": lambda: own(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), SPLIT),
    "decomposed": lambda: own(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]),
    ),
    "marks, accents apart": lambda: own(
        normalizers.BertNormalizer(strip_accents=True, handle_chinese_chars=True), METASPACE
    ),
    "marks alone": lambda: own(None, pre_tokenizers.Sequence([METASPACE, pre_tokenizers.Punctuation()])),
}
NOT_LOCAL: dict[str, Callable[[], Tokenizer]] = {
    "characters": lambda: learn_pieces(TEXTS, vocabulary=120, pieces="characters"),
    "no cutter": lambda: own(None, None),
    "bytes": lambda: own(None, pre_tokenizers.ByteLevel()),
    "a pattern": lambda: own(None, pre_tokenizers.Split("a b", "isolated")),
    "a pattern of the normalizer": lambda: own(normalizers.Replace("a b", "c"), SPLIT),
    "marks, at first alone": lambda: own(None, pre_tokenizers.Metaspace(prepend_scheme="first")),
    "marks within": lambda: own(None, pre_tokenizers.Sequence([SPLIT, METASPACE])),
}

# characters that normalizers and cutters treat each in their own way: controls, spaces of all sorts, marks that
# combine, letters that fall apart into a space and a mark, Chinese, and the mark for spaces
ODD = "\0\t\n\r\x0b\x1c\x85\xa0\xad\u0300\u0345\u1680\u2009\u2028\u200b\u3000\ufe70\ufe76\ufb01\ufffd\u2581İßΣς这书🎬"
CHUNK = st.one_of(
    st.sampled_from(["film", "the", "FILM,", "[SEP]", "[MASK]", "[MASK]s", "a[CLS]b", "", "é", "e\u0301", "x" * 101]),
    st.text(st.sampled_from(ODD + "aeAB1.'"), max_size=4),
    st.text(max_size=5),
)
TEXT = st.lists(CHUNK, max_size=6).map(" ".join)
LINES = st.lists(st.one_of(TEXT, st.tuples(TEXT, TEXT).map(PAIR_MARK.join)), min_size=1, max_size=6)


def whole(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return list(encode_texts(tokenizer, texts))


def as_lists(flat: Flat) -> list[list[int]]:
    assert flat.tokens.dtype == np.uint32 and flat.lengths.sum() == len(flat.tokens)
    ends = np.cumsum(flat.lengths)
    return [flat.tokens[a:b].tolist() for a, b in zip(ends - flat.lengths, ends, strict=True)]


@pytest.fixture(scope="module", params=LOCAL)
def local(request: pytest.FixtureRequest) -> Tokenizer:
    made: Tokenizer = LOCAL[request.param]()
    return made


@given(groups=st.lists(LINES, min_size=1, max_size=3))
@settings(max_examples=6)
def test_tokens_are_those_of_whole_texts(local: Tokenizer, groups: list[list[str]]) -> None:
    assert find_locality(local) is not None
    cutter = Chunks(local)
    for texts in groups:
        # what comes again is kept; what is new for the most part is cut whole
        assert as_lists(cutter.encode(texts * 3)) == whole(local, texts * 3)


@pytest.mark.slow
@given(groups=st.lists(LINES, min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_tokens_are_those_of_whole_texts_at_length(local: Tokenizer, groups: list[list[str]]) -> None:
    cutter = Chunks(local)
    for texts in groups:
        assert as_lists(cutter.encode(texts * 3)) == whole(local, texts * 3)


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_what_does_not_follow_from_the_parts_is_cut_whole(name: str) -> None:
    tokenizer = NOT_LOCAL[name]()
    assert find_locality(tokenizer) is None
    texts = ["a b a b film", "a b", ""] * 9
    assert as_lists(Chunks(tokenizer).encode(texts)) == whole(tokenizer, texts)


def test_tokens_added_to_be_found_in_texts_are_not_cut_apart() -> None:
    raw = own(None, SPLIT)
    raw.add_tokens(["the film"])
    assert find_locality(raw) is None
    assert as_lists(Chunks(raw).encode(["the film", "a film"] * 9)) == whole(raw, ["the film", "a film"] * 9)


def test_settings_that_cut_pad_or_draw_are_not_local() -> None:
    cutting, padding = own(None, SPLIT), own(None, SPLIT)
    cutting.enable_truncation(4)
    padding.enable_padding()
    drawing = Tokenizer(models.BPE(dict.fromkeys(MARKS, 0), [], dropout=0.5))
    drawing.pre_tokenizer = SPLIT
    drawing.encode_special_tokens = True
    assert [find_locality(each) for each in (cutting, padding, drawing)] == [None] * 3


def test_chunks_are_cut_once_and_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MOST_CHARACTERS", 40)
    tokenizer = LOCAL["list of pieces"]()
    cutter = Chunks(tokenizer)
    kept = []
    for number in range(9):
        texts = [f"film{number} the film{number % 2} film"] * 4
        assert as_lists(cutter.encode(texts)) == whole(tokenizer, texts)
        kept.append(cutter.kept_characters)
    assert max(kept) <= 40 and kept[0] == kept[1] - len("film1") and min(kept[2:]) < max(kept)


def test_groups_are_the_texts_in_their_order() -> None:
    tokenizer = LOCAL["learned word pieces"]()
    groups = list(Chunks(tokenizer).encode_groups(TEXTS, at_once=100))
    assert len(groups) > 10
    assert as_lists(joined(groups)) == whole(tokenizer, TEXTS)
    assert as_lists(joined(list(Chunks(tokenizer).encode_groups([], at_once=100)))) == []


def test_long_texts_keep_their_last_mark() -> None:
    flat = Flat(np.array([2, 7, 8, 9, 3, 2, 3], np.uint32), np.array([5, 2]))
    assert as_lists(flat.cut(4)) == [[2, 7, 8, 3], [2, 3]]
    assert flat.cut(5) is flat
    assert list(itertools.chain.from_iterable(as_lists(flat))) == flat.tokens.tolist()
