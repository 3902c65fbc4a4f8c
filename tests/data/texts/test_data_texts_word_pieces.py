"""Word pieces: marks, padding, what is learned, what is read from files, and a vocabulary cut to what is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_folders import reviews
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from thrifty.data.texts.word_pieces import (
    CLASS,
    END,
    MARKS,
    PAD,
    PAIR_MARK,
    PIECES,
    UNKNOWN,
    cut,
    encode_texts,
    keep_pieces,
    learn_pieces,
    load_pieces,
    pad,
    padded_length,
    read_pieces,
)
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, TextData

TEXTS = [text for text, _ in reviews(80)] + ["die gärtner im gärtnerhof", "这本书很好看", "这本书不好看"] * 2
VOCABULARY = "\n".join([*MARKS, "the", "film", "##s", "g", "##o", "##od", "."]).encode()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_pieces(TEXTS, vocabulary=120)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    (numbers,) = encode_texts(tokenizer, [text])
    return [tokenizer.id_to_token(number) for number in numbers]


def test_marks_come_first_and_padding_is_zero(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_to_token(number) for number in range(len(MARKS))] == list(MARKS)
    assert tokenizer.get_vocab_size() <= 120
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))


def test_the_same_texts_give_the_same_pieces() -> None:
    """Hash tables of the library are in another order each time; nothing may depend on them."""
    files = {learn_pieces(TEXTS, vocabulary=size).to_str() for size in (90,) * 6}
    assert len(files) == 1


@given(text=st.text().filter(lambda text: PAIR_MARK not in text))
def test_any_text_has_its_marks_and_no_padding(tokenizer: Tokenizer, text: str) -> None:
    found = pieces(tokenizer, text)
    assert (found[0], found[-1]) == (CLASS, END)
    assert not {PAD, CLASS, END, "[MASK]"} & set(found[1:-1])


def test_a_text_that_spells_a_mark_is_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    for each in (tokenizer, load_pieces(tmp_path)):
        assert pieces(each, "the film [SEP] [PAD]").count(END) == 1
        assert pieces(each, "[PAD]")[1] != PAD


def test_capitals_are_read_small_accents_are_kept_and_chinese_is_cut(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "The FILM") == pieces(tokenizer, "the film")
    assert pieces(tokenizer, "gärtner") != pieces(tokenizer, "gartner")
    assert pieces(tokenizer, "书很") == [CLASS, "书", "很", END]
    assert pieces(tokenizer, "☃")[1] == UNKNOWN


def test_several_texts_at_once_are_as_each_alone(tokenizer: Tokenizer) -> None:
    together = list(encode_texts(tokenizer, iter(TEXTS)))
    assert together == [next(encode_texts(tokenizer, [text])) for text in TEXTS]
    assert list(encode_texts(tokenizer, [])) == []


def test_a_list_of_pieces_as_bert_has_it() -> None:
    read = read_pieces(VOCABULARY.replace(b"\n", b"\r\n") + b"\r\n", "vocab.txt")
    assert pieces(read, "The films gOOD. bad") == [CLASS, "the", "film", "##s", "g", "##o", "##od", ".", UNKNOWN, END]
    capitals = read_pieces(VOCABULARY + b"\nThe", "vocab.txt")
    assert pieces(capitals, "The the") == [CLASS, "The", "the", END]
    # without capitals BERT's authors took accents off too
    assert pieces(read, "film\u0301s") == [CLASS, "film", "##s", END]


def test_a_tokenizer_file(tokenizer: Tokenizer) -> None:
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_padding(length=64)
    other.enable_truncation(4)
    read = read_pieces(other.to_str().encode(), "tokenizer.json")
    assert pieces(read, "the film was a story") == pieces(tokenizer, "the film was a story")


def bpe(*marks: str) -> bytes:
    """A tokenizer of another sort, with some marks."""
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate((*marks, "a"))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(marks))
    return tokenizer.to_str().encode()


REFUSED = [
    (b"\xff\xfe", "cannot be read"),
    (b"{}", "cannot be read"),
    (VOCABULARY + b"\nthe", "has the piece 'the' twice"),
    (VOCABULARY.replace(b"[CLS]\n", b""), "has no piece '[CLS]'"),
    (VOCABULARY.replace(b"[PAD]\n", b"") + b"\n[PAD]", "numbers padding, '[PAD]', 11, and padding is 0"),
    (bpe(PAD, CLASS), "has no piece '[SEP]'"),
    (bpe(CLASS, END), "has no padding, '[PAD]', and padding is 0"),
]


@pytest.mark.parametrize(("raw", "says"), REFUSED)
def test_other_files_are_refused(raw: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_pieces(raw, "mine")
    assert "tokenizer 'mine'" in str(caught.value) and says in str(caught.value)


def test_a_store_without_pieces_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_pieces(tmp_path)


@given(chosen=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5))
def test_a_cut_vocabulary_reads_its_own_texts_as_before(tokenizer: Tokenizer, chosen: list[str]) -> None:
    used = {number for numbers in encode_texts(tokenizer, chosen) for number in numbers}
    small = keep_pieces(tokenizer, used, "mine")
    assert small.get_vocab_size() == len(used | set(range(len(MARKS))))
    assert sorted(small.get_vocab().values()) == list(range(small.get_vocab_size()))
    assert small.token_to_id(PAD) == 0
    for text in chosen:
        assert pieces(small, text) == pieces(tokenizer, text)
    again = read_pieces(small.to_str().encode(), "mine")
    assert pieces(again, "the zebra") == pieces(small, "the zebra")


def test_only_word_pieces_are_cut() -> None:
    other = read_pieces(bpe(PAD, CLASS, END), "mine")
    with pytest.raises(DataError, match="of the sort BPE, whose vocabulary cannot be cut"):
        keep_pieces(other, {0}, "mine")


@given(length=st.integers(2, 40), most=st.integers(3, 40))
def test_a_text_that_is_cut_keeps_its_last_mark(length: int, most: int) -> None:
    numbers = [2, *range(10, 10 + length - 2), 3]
    short = cut(numbers, most)
    assert len(short) == min(length, most)
    assert (short[0], short[-1]) == (2, 3)
    assert short[:-1] == numbers[: len(short) - 1]


@given(rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1, max_size=6))
def test_rows_are_filled_up_to_the_longest(rows: list[list[int]]) -> None:
    x_NT = pad(rows, most=40)
    assert x_NT.dtype == np.int64
    assert x_NT.shape == (len(rows), padded_length(max(map(len, rows)), 40))
    assert x_NT.shape[1] % LENGTH_MULTIPLE == 0
    for row, numbers in zip(x_NT, rows, strict=True):
        assert [*row] == [*numbers, *[0] * (x_NT.shape[1] - len(numbers))]


@pytest.mark.parametrize("pieces", sorted(PIECES))
def test_compatible_forms_are_one_where_it_is_asked_for(pieces: str) -> None:
    plain, wide = "abc, no 12!", "\uff41\uff42\uff43\uff0c \u2116 \uff11\uff12\uff01"
    texts = [*TEXTS, plain, wide] * 4
    one, other = (learn_pieces(texts, vocabulary=200, pieces=pieces, nfkc=nfkc) for nfkc in (True, False))
    assert one.encode(plain).ids == one.encode(wide).ids
    assert other.encode(plain).ids != other.encode(wide).ids
    again = read_pieces(one.to_str().encode(), "tokenizer.json")
    assert again.encode(wide).ids == one.encode(wide).ids


def test_a_given_tokenizer_reads_as_it_does() -> None:
    with pytest.raises(ValueError, match="normalize is of pieces that are learned"):
        TextData.model_validate({"kind": "text", "path": "x", "tokenizer": "vocab.txt", "normalize": "nfkc"})
