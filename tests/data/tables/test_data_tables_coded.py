"""Cells by their different values are the cells that were there."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.tables import coded
from thrifty.data.tables.coded import Cells, Coder, count_cells

COLUMNS = [
    ["a", "b", "a", "a"],
    ["a", None, " a", "", "a", "a"],
    [None] * 5,
    ["a"],
    [str(n) for n in range(50)],
    # nothing at the beginning says that there are others
    ["x"] * 40 + ["y", None, "z"],
    ["x"] * 20 + [str(n) for n in range(60)],
]


def as_rows(cells: Cells) -> list[str]:
    texts = cells.values.to_list()
    return [texts[place] for place in cells.places().tolist()]


@pytest.mark.parametrize("texts", COLUMNS, ids=[str(each[:3]) + str(len(each)) for each in COLUMNS])
def test_cells_are_those_that_were_there(texts: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "_SAMPLED_ROWS", 10)
    cells = Coder().code(pl.Series("count", texts, dtype=pl.String))
    wanted = [(text or "").strip() for text in texts]
    assert as_rows(cells) == wanted
    assert len(cells) == len(texts)
    assert int(cells.counts().sum()) == len(texts)
    even = np.arange(len(texts)) % 2 == 0
    assert as_rows(cells.of(even)) == wanted[::2]
    counted = count_cells([cells.of(even), cells.of(~even)])
    again = [text for text, count in zip(counted.values.to_list(), counted.counts.tolist(), strict=True)
             for _ in range(count)]  # fmt: skip
    assert sorted(again) == sorted(wanted)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.sampled_from(["", "a", "b ", "\u4e2d", "d" * 9]), min_size=1, max_size=40))
def test_what_differs_little_is_coded(texts: list[str]) -> None:
    cells = Coder().code(pl.Series("a", texts * 3))
    assert cells.codes is not None and cells.codes.dtype == np.uint8
    assert as_rows(cells) == [text.strip() for text in texts * 3]


def test_values_keep_their_codes_from_block_to_block() -> None:
    coder = Coder()
    blocks = [["b", "a", "a", "b"] * 5, ["a", " c", None, "b"] * 5, [str(n) for n in range(50)], ["", "c", "c"] * 9]
    found = [coder.code(pl.Series("a", texts, dtype=pl.String)) for texts in blocks]
    assert [as_rows(cells) for cells in found] == [[(text or "").strip() for text in texts] for texts in blocks]
    assert found[2].codes is None
    assert coder.values is not None
    assert coder.values.to_list() == ["b", "a", "c", "", "c"]
    many = [str(n % 300) for n in range(1000)] + ["x", "y"]
    assert as_rows(Coder().code(pl.Series("a", many))) == many
    for cells in (found[0], found[1], found[3]):
        assert cells.values.to_list() == coder.values.head(len(cells.values)).to_list()
