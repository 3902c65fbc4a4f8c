"""Near copies: sketches estimate what two texts share, and one of those that are nearly equal is kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.documents import near_copies as near_copies_module
from thrifty.data.documents.near_copies import BINS, SHINGLE_BYTES, near_copies, sketch


def words(seed: int, count: int = 400) -> list[str]:
    return [f"w{number}" for number in np.random.default_rng(seed).integers(0, 10_000, count)]


def changed(text: list[str], every: int) -> str:
    return " ".join("other" if place % every == 0 else word for place, word in enumerate(text))


def jaccard(first: str, second: str) -> float:
    a, b = ({text[at : at + SHINGLE_BYTES] for at in range(len(text) - SHINGLE_BYTES + 1)} for text in (first, second))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("every", [3, 10, 25, 60, 1000])
def test_a_sketch_estimates_the_jaccard_index(every: int) -> None:
    errors = []
    for seed in range(20):
        text = words(seed)
        first, second = sketch([" ".join(text)]), sketch([changed(text, every)])
        assert first is not None
        assert second is not None
        errors.append((first == second).mean() - jaccard(" ".join(text), changed(text, every)))
    # 20 estimates of 64 bins each: a deviation of 0.5 / sqrt(1280) at most, three of them allowed
    assert abs(np.mean(errors)) < 0.042


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_chunks_and_case_and_spaces_make_no_difference(cuts: list[int]) -> None:
    text = " ".join(words(1, 300))
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b].upper() for a, b in itertools.pairwise(places)]
    assert (sketch(text.split(" ")) == sketch([text.replace(" ", " \n  ")])).all()
    # a chunk that ends within a word parts it: few shingles are others
    assert (sketch(chunks) == sketch([text])).mean() > 0.6


def test_blocks_of_a_long_text_join(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(words(2, 2000))
    whole = sketch([text])
    monkeypatch.setattr(near_copies_module, "_CHUNK_BYTES", 500)
    assert (sketch([text]) == whole).all()


def test_short_texts_have_no_sketch() -> None:
    assert sketch(["two words"]) is None
    assert sketch([]) is None
    assert sketch(["a b c d e f " * 20]) is not None


def test_the_first_in_the_order_is_kept() -> None:
    text = words(3)
    texts = [" ".join(text), changed(text, 200), " ".join(words(4)), changed(text, 5), " ".join(words(4))]
    sketches = np.stack([each for each in (sketch([text]) for text in texts) if each is not None])
    assert sketches.shape == (5, BINS)
    assert near_copies(sketches, [0, 1, 2, 3, 4]) == {1: 0, 4: 2}
    assert near_copies(sketches, [4, 3, 2, 1, 0]) == {2: 4, 0: 1}
    assert near_copies(sketches, [0, 2, 3]) == {}
    assert near_copies(sketches[:0], []) == {}
