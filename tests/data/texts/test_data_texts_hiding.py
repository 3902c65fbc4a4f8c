"""Words are hidden by their place and the epoch alone, in the published shares, and marks never."""

from __future__ import annotations

import numpy as np
import pytest
from data_folders import text_store
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Batches, Store, sweep
from thrifty.data.documents.tokenizer import IGNORED_TARGET
from thrifty.data.texts.hiding import Hiding
from thrifty.spec import Batching

MARKS, VOCABULARY = (4, 0, 1, 2, 3), 200
LENGTHS = tuple(np.random.default_rng(0).integers(2, 30, 41).tolist())


def made_up(texts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts end to end, each between two marks, and where they begin."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 30, texts)
    ends = np.cumsum(lengths)
    tokens = draw.integers(5, VOCABULARY, ends[-1]).astype(np.uint16)
    tokens[ends - lengths], tokens[ends - 1] = 2, 3
    return tokens, ends - lengths


def test_shares_are_the_published_ones() -> None:
    tokens, begins = made_up(3000)
    x, y = Hiding(MARKS, VOCABULARY, salt=7)(tokens, np.arange(len(tokens)), begins)
    told, words = y != IGNORED_TARGET, ~np.isin(tokens, MARKS)
    assert not (told & ~words).any()
    assert np.array_equal(y[told], tokens[told])
    assert np.array_equal(x[~told], tokens[~told])
    # a little over 15 %: of each text at least one
    assert 0.15 < told.sum() / words.sum() < 0.18
    assert np.add.reduceat(told, begins).min() == 1
    assert (x[told] == MARKS[0]).mean() == pytest.approx(0.8, abs=0.02)
    assert (x[told] == tokens[told]).mean() == pytest.approx(0.1, abs=0.02)
    assert not np.isin(x[told & (x != MARKS[0])], MARKS).any()


@given(first=st.integers(0, 39), salt=st.integers(0, 2**63 - 1))
def test_a_text_is_hidden_the_same_whoever_is_beside_it(first: int, salt: int) -> None:
    tokens, begins = made_up(40)
    places, hiding = np.arange(len(tokens)) + 1000, Hiding(MARKS, VOCABULARY, salt)
    x, y = hiding(tokens, places, begins)
    at = begins[first]
    some_x, some_y = hiding(tokens[at:], places[at:], begins[first:] - at)
    assert np.array_equal(some_x, x[at:])
    assert np.array_equal(some_y, y[at:])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = text_store(tmp_path_factory.mktemp("stores"), LENGTHS)
    found.dataset = found.dataset.model_copy(update={"task": "mask", "marks": (0,), "labels": ()})
    return found


def told(batches: list[dict[str, np.ndarray]]) -> set[tuple[int, int]]:
    """Every place that is asked for by what is given and what is wanted there."""
    return {
        (int(given), int(wanted))
        for batch in batches
        for given, wanted in zip(batch["x"].ravel(), batch["y"].ravel(), strict=True)
        if wanted != IGNORED_TARGET
    }


@pytest.mark.parametrize("batching", ["padded", "by_length", "packed"])
def test_micro_batches_hide_what_their_step_hides(store: Store, batching: Batching) -> None:
    whole, parts = (Batches(store, batch=41, micro=micro, seed=3, batching=batching) for micro in (41, 7))
    for step in range(2):
        for batch in (*whole.step(step), *parts.step(step)):
            assert batch["x"].shape == batch["y"].shape
        assert told(whole.step(step)) == told(parts.step(step))
    assert told(whole.step(0)) != told(whole.step(1)), "each epoch hides others"


def test_a_sweep_hides_the_same_each_time(store: Store) -> None:
    first, second = (list(sweep(store, "test", 8)) for _ in range(2))
    assert all(np.array_equal(one["y"], other["y"]) for one, other in zip(first, second, strict=True))
    assert sum(int((batch["y"] != IGNORED_TARGET).any(axis=1).sum()) for batch in first) == len(LENGTHS)
