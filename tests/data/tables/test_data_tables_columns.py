"""What columns are told to be, and what of them is encoded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.tables.coded import Cells, Coder, cells_of, count_cells
from thrifty.data.tables.columns import Tally, tell
from thrifty.data.tables.features import EDGES, edges_of, encode, learn_column
from thrifty.spec.table import Table

KINDS = [
    (["1", "2.5", "-3e4", ""], "number", "3 numbers"),
    (["1", "?", "n/a", "3", "NaN"], "number", "2 numbers"),
    (["1"] * 99 + ["2"] * 100 + ["inf"], "number", "3 numbers"),
    (["0", "1", "0"], "number", "2 numbers"),
    (["True", "false", "true"], "boolean", "true or false"),
    (["yes", "No"], "boolean", "yes or no"),
    (["red", "blue", "red", "?"], "category", "2 values"),
    (["2020-01-02", "2021-03-04"], "date", "dates like %Y-%m-%d"),
    (["2020-01-02 10:11:12", "2021-03-04 00:00:00"], "date", "dates like %Y-%m-%d %H:%M:%S"),
    (["13/01/2020", "14/01/2020"], "date", "dates like %d/%m/%Y"),
    (["01/02/2020", "03/04/2020"], "date", "day before month would read them all too"),
    (["", "?", "NA"], "", "it is empty"),
    (["same", "same"], "", "all cells are the same"),
    ([f"user {n}" for n in range(50)], "", "nearly every cell is another text"),
    # a few cells of another kind are taken for empty; more make another kind
    ([str(n) for n in range(199)] + ["lost"], "number", "200 numbers"),
    (["1", "2", "lost"], "category", "3 values"),
]


def coded(cells: pl.Series) -> Cells:
    return Coder().code(cells)


def tallied(
    cells: list[str], name: str = "a", batches: int = 1, cells_as: Callable[[pl.Series], Cells] = Cells
) -> Tally:
    tally = Tally()
    for part in np.array_split(np.array(cells, dtype=object), batches):
        tally.add(count_cells([cells_as(pl.Series(name, part.tolist(), dtype=pl.String))]))
    return tally


@pytest.mark.parametrize(("cells", "kind", "why"), KINDS, ids=[f"{row[1]} {row[2]}" for row in KINDS])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("cells_as", [Cells, coded], ids=["plain", "coded"])
def test_a_column_is_told_by_its_cells(
    cells: list[str], kind: str, why: str, batches: int, cells_as: Callable[[pl.Series], Cells]
) -> None:
    found = tell("a", tallied(cells, batches=batches, cells_as=cells_as))
    assert found.kind == kind
    assert why in found.why


def test_what_numbers_the_rows_tells_nothing() -> None:
    cells = [str(n) for n in range(30)]
    assert tell("id", tallied(cells, "id")).why == "it numbers the rows"
    assert tell("age", tallied(cells, "age")).kind == "number"


def test_odd_cells_are_counted() -> None:
    assert tell("a", tallied([str(n) for n in range(199)] + ["lost"])).odd == 1


def test_values_that_fill_a_part_are_edges_and_leave_the_rest_theirs() -> None:
    values = np.concatenate([np.zeros(10_000), np.arange(1, 1001)])
    edges = edges_of(values, np.ones(len(values), np.int64))
    assert edges[0] == 0.0
    assert EDGES - 2 <= len(edges) <= EDGES
    assert list(edges) == sorted(set(edges))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), heavy=st.integers(0, 3))
def test_edges_are_quantiles_of_the_cells_counted_or_not(seed: int, heavy: int) -> None:
    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.normal(size=700), draw.integers(0, 300, 400), np.repeat(np.arange(heavy), 200)])
    distinct, counts = np.unique(values, return_counts=True)
    common = distinct[counts > len(values) / (EDGES - 1)]
    rest = values[~np.isin(values, common)]
    quantiles = np.quantile(rest, np.linspace(0, 1, EDGES - len(common)))
    wanted = tuple(np.unique(np.concatenate([common, quantiles])).tolist())
    assert edges_of(distinct, counts) == edges_of(values, np.ones(len(values), np.int64)) == wanted


def one(cells: list[str | None], learned: list[str | None] | None = None) -> np.ndarray:
    series = pl.Series("a", cells if learned is None else learned, dtype=pl.String)
    column = learn_column("a", tell("a", tallied([cell or "" for cell in series])), count_cells([coded(series)]))
    frame = pl.DataFrame({"a": pl.Series(cells, dtype=pl.String)})
    return encode(cells_of(frame), Table(columns=(column,), target="y"))


ENCODED = [
    (["1", "2", "3"], ["0", "1", "2.5", "9"], [[0], [0], [0.75], [1]]),
    # an empty cell is the middle, and its code says so where training had some
    (["1", "3", ""], ["1", "", "3"], [[0, 0], [0.5, 1], [1, 0]]),
    (["1", "3"], ["", "lost"], [[0.5], [0.5]]),
    (["a", "b", "a", "b"], ["a", "b", "c", ""], [[1], [2], [0], [0]]),
    (["a"] * 3 + ["b"] * 3 + [""] * 3, ["b", ""], [[2], [3]]),
    (["yes", "no"], ["NO", "Yes", "maybe"], [[1], [2], [0]]),
    (["2020-01-01", "2020-01-03"], ["2020-01-02", "lost"], [[0.5, 1, 12 + 4], [0.5, 0, 0]]),
]


@pytest.mark.parametrize(("learned", "cells", "wanted"), ENCODED, ids=[str(row[1]) for row in ENCODED])
def test_cells_are_encoded(learned: list[str], cells: list[str], wanted: list[list[float]]) -> None:
    assert one(cells, learned).tolist() == pytest.approx(np.array(wanted))


def test_rare_values_are_taken_for_unknown() -> None:
    learned = ["a"] * 5 + ["b"] * 5 + ["c"] * 2
    assert one(["a", "b", "c"], learned).ravel().tolist() == [1, 2, 0]


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=300))
def test_numbers_keep_their_order(values: list[float]) -> None:
    cells = {"a": Cells(pl.Series("a", values))}
    column = learn_column("a", tell("a", tallied(["0", "1"])), count_cells(cells.values()))
    places = encode(cells, Table(columns=(column,), target="y"))[:, 0]
    assert ((places >= 0) & (places <= 1)).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(places[order].astype(np.float64)) >= 0).all()
