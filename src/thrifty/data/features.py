"""Cells of a table as numbers: quantiles and values learned from the training split, and rows encoded by them.

Shapes: N rows, F numbers and codes of a row, as `thrifty.spec.table.Table` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thrifty.data.columns import Found, dates_of, numbers_of, texts_of
from thrifty.spec.table import Column, Table

if TYPE_CHECKING:
    import polars as pl

EDGES = 129
# rarer values are hardly learned: they are taken for unknown, which new ones are too
FEWEST_SEEN = 3
MOST_CODES = 1000
MIDDLE = 0.5


def learn_column(name: str, found: Found, cells: pl.Series) -> Column:
    """Learn from the cells of the training split how a column is encoded.

    >>> import polars as pl
    >>> learn_column("a", Found("number", ""), pl.Series("a", ["1", "2", "4", None])).edges
    (1.0, 2.0, 4.0)
    """
    kind = found.kind
    if kind in {"number", "date"}:
        values = _values_of(cells, kind, found.format)
        missing = bool(values.null_count())
        edges = edges_of(values.drop_nulls().to_numpy())
        return Column(name=name, kind=kind, edges=edges, format=found.format, missing=missing)
    texts = _lowered(texts_of(cells), kind)
    counts = texts.drop_nulls().value_counts(sort=True)
    fewest = FEWEST_SEEN if len(counts) > 2 else 1
    common = [value for value, count in counts.iter_rows() if count >= fewest][:MOST_CODES]
    missing = texts.null_count() >= fewest
    return Column(name=name, kind=kind, values=tuple(sorted(common)), missing=missing)


def edges_of(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Rising values that cut others into parts of like number, at most 128.

    All values are edges where they are few. A value that fills a part alone is one, and the quantiles are those of the
    rest: of a column that is nearly always zero the others are still told apart.

    >>> edges_of(np.array([0.0] * 500 + [1.0, 2.0]))
    (0.0, 1.0, 2.0)
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > EDGES:
        heavy = distinct[counts > len(values) / (EDGES - 1)]
        rest = values[~np.isin(values, heavy)]
        quantiles = np.quantile(rest, np.linspace(0, 1, max(2, EDGES - len(heavy)))) if len(rest) else rest
        distinct = np.unique(np.concatenate([heavy, quantiles]))
    return tuple(map(float, distinct))


def encode(frame: pl.DataFrame, table: Table) -> NDArray[np.float32]:
    """Encode rows: float32 [N, F]; a cell of another kind than its column counts as empty."""
    x_NF = np.zeros((len(frame), table.numbers + table.codes), np.float32)
    number, code, first = 0, table.numbers, 1
    for column in table.columns:
        cells = frame[column.name]
        if column.is_number:
            values = _values_of(cells, column.kind, column.format)
            x_NF[:, number] = _places(values, column.edges)
            number += 1
            codes = _codes_of_number(cells, values, column)
        else:
            codes = iter([_codes_of_value(_lowered(texts_of(cells), column.kind), column)])
        for each, size in zip(codes, column.code_sizes, strict=True):
            x_NF[:, code] = np.where(each > 0, each + (first - 1), 0)
            code += 1
            first += size
    return x_NF


def _values_of(cells: pl.Series, kind: str, form: str) -> pl.Series:
    """Numbers, or seconds since 1970, float64; None where there is none that is finite."""
    if kind == "date":
        return dates_of(texts_of(cells), form).dt.epoch("us").cast(float) / 1e6
    numbers = numbers_of(cells)
    return numbers.set(numbers.is_infinite(), None)


def _places(values: pl.Series, edges: tuple[float, ...]) -> NDArray[np.float64]:
    """Where each value stands among the edges, 0 to 1, between two of them by its distance; the middle of none."""
    there = values.is_not_null().to_numpy()
    if len(edges) < 2:
        return np.full(len(values), MIDDLE)
    places = np.interp(values.fill_null(edges[0]).to_numpy(), edges, np.linspace(0, 1, len(edges)))
    return np.where(there, places, MIDDLE)


def _codes_of_number(cells: pl.Series, values: pl.Series, column: Column) -> Iterator[NDArray[np.int64]]:
    """The parts of a date, and whether there is a value; each from 1, 0 for nothing to say."""
    if column.kind == "date":
        time = dates_of(texts_of(cells), column.format)
        parts = [time.dt.month(), time.dt.weekday(), *([time.dt.hour() + 1] if "%H" in column.format else [])]
        yield from (part.cast(int).fill_null(0).to_numpy() for part in parts)
    if column.missing:
        yield values.is_null().cast(int).to_numpy()


def _codes_of_value(texts: pl.Series, column: Column) -> NDArray[np.int64]:
    """The place of each known value, from 1; after them that of an empty cell; 0 for all others."""
    import polars as pl

    known = {value: at for at, value in enumerate(column.values, 1)}
    codes = texts.replace_strict(known, default=0, return_dtype=pl.Int64) if known else texts.is_null().cast(int) * 0
    empty = len(known) + 1 if column.missing else 0
    return codes.set(texts.is_null(), empty).to_numpy()


def _lowered(texts: pl.Series, kind: str) -> pl.Series:
    return texts.str.to_lowercase() if kind == "boolean" else texts
