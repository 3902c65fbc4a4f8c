"""Splits: shares, at least one each, and that a new sample does not reshuffle the others."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.split import rank, split_by_bytes, split_by_count
from thrifty.spec import SPLITS, Split

SHARES = st.tuples(st.floats(0.01, 0.44), st.floats(0.01, 0.44)).map(lambda s: Split(validation=s[0], test=s[1]))


def ranks(count: int, seed: int = 0) -> dict[str, bytes]:
    return {f"{i}.png": rank(seed, "content", f"{i}.png") for i in range(count)}


@given(count=st.integers(3, 300), split=SHARES, seed=st.integers(0, 9))
def test_counts_are_within_one_of_the_exact_share(count: int, split: Split, seed: int) -> None:
    dealt = Counter(split_by_count(ranks(count, seed), split).values())
    assert dealt.total() == count
    assert set(dealt) == set(SPLITS)
    for part, share in (("validation", split.validation), ("test", split.test)):
        # a split that would round to nothing takes one, or gives way so that training keeps one
        assert abs(dealt[part] - count * share) <= 1 or count < 10


@given(count=st.integers(3, 200), split=SHARES)
def test_a_new_sample_moves_three_others_at_most(count: int, split: Split) -> None:
    before = split_by_count(ranks(count), split)
    after = split_by_count(ranks(count + 1), split)
    assert sum(before[name] != after[name] for name in before) <= 3


def test_another_seed_is_another_split() -> None:
    assert split_by_count(ranks(100, 0), Split()) != split_by_count(ranks(100, 1), Split())


@given(sizes=st.lists(st.integers(1, 10_000), min_size=3, max_size=60), split=SHARES, seed=st.integers(0, 9))
def test_bytes_are_near_their_share(sizes: list[int], split: Split, seed: int) -> None:
    by_name = {f"{i}.png": size for i, size in enumerate(sizes)}
    dealt = split_by_bytes(ranks(len(sizes), seed), by_name, split)
    assert dealt.keys() == by_name.keys()
    assert set(dealt.values()) == set(SPLITS)
    for part, share in (("validation", split.validation), ("test", split.test)):
        held = [by_name[name] for name in dealt if dealt[name] == part]
        # half a document too many or too few, and one more that an empty split was given
        assert len(held) == 1 or abs(sum(held) - share * sum(sizes)) <= 1.5 * max(sizes)


def test_one_huge_document_is_trained_on() -> None:
    sizes = {f"{i}.png": 100 for i in range(40)} | {"0.png": 100_000}
    assert all(split_by_bytes(ranks(40, seed), sizes, Split())["0.png"] == "train" for seed in range(20))


def test_too_few_is_a_programming_error() -> None:
    with pytest.raises(AssertionError):
        split_by_count(ranks(2), Split())
