"""Packed rows: every text once, little filler, groups of like length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.texts.packing import MOST_GROUPS, groups_of, pack, places_of, row_size
from thrifty.spec import LENGTH_MULTIPLE

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=60).map(np.array)


@given(tokens=st.integers(1, 1 << 20))
def test_a_row_is_filled_by_little(tokens: int) -> None:
    size = row_size(tokens)
    assert tokens <= size <= max(tokens * 33 / 32, tokens + LENGTH_MULTIPLE - 1)
    assert row_size(size) == size and size % LENGTH_MULTIPLE == 0


def test_rows_have_few_sizes() -> None:
    assert len({row_size(tokens) for tokens in range(4096, 8192)}) <= 33


@given(lengths=LENGTHS)
def test_texts_lie_by_length_and_fill_the_row(lengths: np.ndarray) -> None:
    order, whole = pack(lengths)
    assert sorted(order[order < len(lengths)]) == list(range(len(lengths)))
    assert (whole[order < len(lengths)] == lengths[order[order < len(lengths)]]).all()
    assert (np.diff(whole) >= 0).all() and whole[-1] == lengths.max(), "no filler is longer than the longest"
    assert whole.sum() == row_size(int(lengths.sum()))


@given(lengths=LENGTHS)
def test_each_token_has_one_place(lengths: np.ndarray) -> None:
    _, whole = pack(lengths)
    tokens = int(whole.sum())
    places = places_of(whole)
    assert 1 <= len(places) <= MOST_GROUPS
    flat = np.concatenate([places[key].ravel() for key in sorted(places)])
    assert flat[flat < tokens].tolist() == list(range(tokens))
    assert flat.max() <= tokens
    counts = np.concatenate([(places[key] < tokens).sum(1) for key in sorted(places)])
    assert counts.tolist() == whole.tolist()
    assert [(end - begin, longest) for begin, end, longest in groups_of(whole)] == [
        places[key].shape for key in sorted(places)
    ]
