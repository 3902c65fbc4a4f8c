"""Cells of a table as numbers: quantiles and values learned from the training split, and rows encoded by them.

Shapes: N rows, F numbers and codes of a row, as `thrifty.spec.table.Table` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thrifty.data.tables.coded import Cells, Counted
from thrifty.data.tables.columns import Found, dates_of, numbers_of, texts_of
from thrifty.spec.table import Column, Table

if TYPE_CHECKING:
    import polars as pl

EDGES = 129
# rarer values are hardly learned: they are taken for unknown, which new ones are too
FEWEST_SEEN = 3
MOST_CODES = 1000
MIDDLE = 0.5


def learn_column(name: str, found: Found, cells: Counted) -> Column:
    """Learn from the cells of the training split how a column is encoded.

    >>> import polars as pl
    >>> counted = Counted(pl.Series("a", ["1", "2", "4", None]), np.array([5, 1, 2, 1]))
    >>> learn_column("a", Found("number", ""), counted).edges
    (1.0, 2.0, 4.0)
    """
    import polars as pl

    kind = found.kind
    if kind in {"number", "date"}:
        values = _values_of(cells.values, kind, found.format)
        missing = bool(values.null_count())
        edges = edges_of(values.drop_nulls().to_numpy(), cells.counts[values.is_not_null().to_numpy()])
        return Column(name=name, kind=kind, edges=edges, format=found.format, missing=missing)
    frame = pl.DataFrame({"text": _lowered(texts_of(cells.values), kind), "count": cells.counts})
    counts = frame.group_by("text").sum().filter(pl.col("text").is_not_null()).sort(["count", "text"], descending=True)
    empty = int(cells.counts.sum()) - int(counts["count"].sum())
    fewest = FEWEST_SEEN if len(counts) > 2 else 1
    common = [value for value, count in counts.iter_rows() if count >= fewest][:MOST_CODES]
    return Column(name=name, kind=kind, values=tuple(sorted(common)), missing=empty >= fewest)


def edges_of(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Rising values that cut others into parts of like number, at most 128.

    All values are edges where they are few. A value that fills a part alone is one, and the quantiles are those of the
    rest: of a column that is nearly always zero the others are still told apart.

    Args:
        values: in any order, [V]; some may be equal.
        counts: how often each comes, once at least, [V].

    >>> edges_of(np.array([2.0, 0.0, 1.0]), np.array([1, 500, 1]))
    (0.0, 1.0, 2.0)
    """
    order = np.argsort(values)
    values, counts = values[order], counts[order]
    firsts = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    distinct, counts = values[firsts], np.add.reduceat(counts, firsts) if len(firsts) else counts
    if len(distinct) > EDGES:
        heavy = counts > counts.sum() / (EDGES - 1)
        quantiles = _quantiles(distinct[~heavy], counts[~heavy], max(2, EDGES - int(heavy.sum())))
        distinct = np.unique(np.concatenate([distinct[heavy], quantiles]))
    return tuple(map(float, distinct))


def _quantiles(values: NDArray[np.float64], counts: NDArray[np.int64], parts: int) -> NDArray[np.float64]:
    """So many quantiles of rising values that come more than once, from the least to the most, as `numpy.quantile`."""
    if not len(values):
        return values
    ends = np.cumsum(counts)
    places = np.linspace(0, 1, parts) * (ends[-1] - 1)
    below = np.floor(places)
    low, high = (values[np.searchsorted(ends, np.minimum(at, ends[-1] - 1), "right")] for at in (below, below + 1))
    share = places - below
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


def encode(columns: Mapping[str, Cells], table: Table) -> NDArray[np.float32]:
    """Encode rows: float32 [N, F]; a cell of another kind than its column counts as empty."""
    count = len(columns[table.columns[0].name])
    x_NF = np.zeros((count, table.numbers + table.codes), np.float32)
    number, code, first = 0, table.numbers, 1
    for column in table.columns:
        cells = columns[column.name]
        if column.is_number:
            values = _values_of(cells.values, column.kind, column.format)
            x_NF[:, number] = cells.spread(_places(values, column.edges).astype(np.float32))
            number += 1
            codes = _codes_of_number(cells.values, values, column)
        else:
            codes = iter([_codes_of_value(_lowered(texts_of(cells.values), column.kind), column)])
        for each, size in zip(codes, column.code_sizes, strict=True):
            x_NF[:, code] = cells.spread(np.where(each > 0, each + (first - 1), 0).astype(np.float32))
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
    known: dict[str | None, int] = {value: at for at, value in enumerate(column.values, 1)}
    if column.missing:
        known[None] = len(column.values) + 1
    return np.array([known.get(text, 0) for text in texts.to_list()], np.int64)


def _lowered(texts: pl.Series, kind: str) -> pl.Series:
    return texts.str.to_lowercase() if kind == "boolean" else texts
