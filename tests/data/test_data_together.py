"""Samples that belong together stand in one split, whatever the seed."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.together import moment_of, split_together
from thrifty.errors import DataError
from thrifty.spec import SPLITS, Split

KEYS = st.lists(st.integers(0, 30), min_size=12, max_size=200).filter(lambda keys: len(set(keys)) >= 3)


def keyed(keys: list[int]) -> dict[str, str]:
    return {str(place): str(key) for place, key in enumerate(keys)}


@given(keys=KEYS, seed=st.integers(0, 5))
def test_a_group_stands_in_one_split_and_each_split_has_one(keys: list[int], seed: int) -> None:
    dealt = split_together(keyed(keys), Split(group="who"), seed=seed)
    splits = defaultdict(set)
    for name, key in keyed(keys).items():
        splits[key].add(dealt[name])
    assert all(len(each) == 1 for each in splits.values())
    assert set(dealt.values()) == set(SPLITS)


@given(keys=KEYS)
def test_by_time_nothing_is_trained_on_that_is_later_than_what_is_held_out(keys: list[int]) -> None:
    dealt = split_together(keyed(keys), Split(time="when"), seed=0)
    moments = defaultdict(list)
    for name, key in keyed(keys).items():
        moments[dealt[name]].append(int(key))
    assert max(moments["train"]) < min(moments["validation"])
    assert max(moments["validation"]) < min(moments["test"])


def test_shares_come_near_what_was_asked_for() -> None:
    keys = {str(place): str(place // 5) for place in range(1000)}
    for split in (Split(group=1, validation=0.2, test=0.1), Split(time=1, validation=0.2, test=0.1)):
        dealt = list(split_together(keys, split, seed=3).values())
        assert [dealt.count(part) for part in SPLITS] == pytest.approx([700, 200, 100], abs=5)


def test_another_seed_deals_other_groups() -> None:
    keys = {str(place): str(place // 5) for place in range(1000)}
    one, other = (split_together(keys, Split(group=1), seed=seed) for seed in (0, 1))
    assert one != other == split_together(keys, Split(group=1), seed=1)


@pytest.mark.parametrize(("split", "says"), [(Split(group="who"), "2 groups"), (Split(time=4), "2 moments")])
def test_too_few_to_split_is_said(split: Split, says: str) -> None:
    with pytest.raises(DataError, match=f"has {says}, and each of 3 splits needs one"):
        split_together({"a": "1", "b": "2", "c": "2"}, split, seed=0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0),
        (" 1e3 ", 1000.0),
        ("1970-01-01", 0.0),
        ("1970-01-01 01:00", 3600.0),
        ("1970-01-01T01:00+01:00", 0.0),
    ],
)
def test_moments_are_numbers_or_dates(text: str, seconds: float) -> None:
    assert moment_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "32/13/2020"])
def test_what_is_no_moment_is_nan(text: str) -> None:
    assert moment_of(text) != moment_of(text)
