"""What the columns of a table are: numbers, categories, booleans or dates; told from every cell, and explained.

Counts of batches are added up, so that no table need fit into memory.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thrifty.data.layout import MISSING
from thrifty.spec.table import ColumnKind

if TYPE_CHECKING:
    import polars as pl

BOOLEANS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"))
# Where both read all cells the first is taken, and said.
DATE_FORMATS = (
    *("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"),
    *("%Y-%m-%d %H:%M", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y年%m月%d日"),
)
# fewer cells of another kind are taken for empty ones, and counted
MOSTLY = 0.99
_MISSING_IN_ANY_CASE = sorted(
    {"".join(each) for word in MISSING for each in itertools.product(*zip(word.lower(), word.upper(), strict=True))}
)
# beyond so many, further values are not told apart
MOST_VALUES, MOST_NUMBERS = 100_000, 1000
NUMBER_NAMES = frozenset(["id", "index", "row", "rowid", "row_id", "uuid", "guid", "key", "column 1", "unnamed: 0"])


@dataclass
class Tally:
    """What the cells of one column were.

    Attributes:
        cells: counted.
        empty: of them.
        numbers: of the others, those that are finite numbers.
        infinite: those that are infinite.
        dates: those that each format reads; a format that most cells are not in is dropped.
        values: how often each value came.
        crowded: there were more values than are told apart.
    """

    cells: int = 0
    empty: int = 0
    numbers: int = 0
    infinite: int = 0
    dates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DATE_FORMATS, 0))
    values: Counter[str] = field(default_factory=Counter)
    crowded: bool = False

    def add(self, cells: pl.Series) -> None:
        """Count the cells of a batch."""
        there = texts_of(cells).drop_nulls()
        self.cells += len(cells)
        self.empty += len(cells) - len(there)
        numbers = numbers_of(cells)
        self.infinite += int(numbers.is_infinite().sum())
        self.numbers += int(numbers.is_finite().sum())
        counts = there.value_counts(sort=True)
        if not self.mostly_numbers:
            self._count_dates(counts[cells.name], counts["count"], self.filled - len(there))
        most = MOST_NUMBERS if self.mostly_numbers else MOST_VALUES
        self.crowded = self.crowded or len(counts) > most
        for value, count in counts.head(most).iter_rows():
            if value in self.values or len(self.values) < most:
                self.values[value] += count
            else:
                self.crowded = True

    def _count_dates(self, values: pl.Series, counts: pl.Series, before: int) -> None:
        """Count the cells of a batch that formats read; ``before`` of it others were looked at."""
        for form in list(self.dates):
            found = self.dates[form] + int(counts.filter(dates_of(values, form).is_not_null()).sum())
            if before and found < MOSTLY * self.filled:
                del self.dates[form]
            else:
                self.dates[form] = found

    @property
    def filled(self) -> int:
        """Cells that hold something."""
        return self.cells - self.empty

    @property
    def mostly_numbers(self) -> bool:
        """Whether the cells that hold something are numbers, but for a few."""
        return self.numbers + self.infinite >= MOSTLY * self.filled


@dataclass(frozen=True)
class Found:
    """What a column is.

    Attributes:
        kind: of a column that is learned from; an empty string for one that tells nothing.
        why: what that was told from, or why it tells nothing.
        format: of dates.
        odd: cells that are none of its kind and are taken for empty.
    """

    kind: ColumnKind | str
    why: str
    format: str = ""
    odd: int = 0


def tell(name: str, tally: Tally) -> Found:
    """Tell what a column is by its cells.

    >>> import polars as pl
    >>> tally = Tally()
    >>> tally.add(pl.Series("age", ["31", "?", "42"]))
    >>> tell("age", tally).kind
    'number'
    """
    filled, values = tally.filled, len(tally.values)
    if not filled:
        return Found("", "it is empty")
    if values == 1 and not tally.empty:
        return Found("", "all cells are the same")
    lone = values >= filled or tally.crowded
    if lone and filled > 1 and name.lower() in NUMBER_NAMES:
        return Found("", "it numbers the rows")
    if tally.mostly_numbers:
        return Found("number", "numbers" if tally.crowded else f"{values:,} numbers", odd=filled - tally.numbers)
    lowered = {value.lower() for value in tally.values}
    for pair in BOOLEANS:
        if lowered == set(pair):
            return Found("boolean", f"{pair[1]} or {pair[0]}")
    for form, count in tally.dates.items():
        if count >= MOSTLY * filled:
            other = "%d/%m/%Y" if form == "%m/%d/%Y" and tally.dates.get("%d/%m/%Y", 0) >= MOSTLY * filled else ""
            doubt = "; day before month would read them all too" if other else ""
            return Found("date", f"dates like {form}{doubt}", form, filled - count)
    if (values > filled / 2 and values > 20) or tally.crowded:
        return Found("", "nearly every cell is another text")
    return Found("category", f"{values:,} values")


def texts_of(cells: pl.Series) -> pl.Series:
    """Cells as text; None for those that say that there is nothing."""
    import polars as pl

    texts = cells.cast(pl.String)
    return texts.set(texts.is_in(_MISSING_IN_ANY_CASE), None)


def numbers_of(cells: pl.Series) -> pl.Series:
    """Cells as float64; None for those that are no number."""
    import polars as pl

    if cells.dtype.is_numeric():
        return cells.cast(pl.Float64).fill_nan(None)
    return cells.str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)


def times_of(cells: pl.Series) -> pl.Series:
    """Cells as numbers, or as seconds since 1970 where they are dates of one format; None for the rest."""
    numbers = numbers_of(cells)
    if numbers.null_count() < len(cells):
        return numbers
    texts = texts_of(cells)
    read = max((dates_of(texts, form) for form in DATE_FORMATS), key=lambda times: len(times) - times.null_count())
    return read.dt.epoch("us").cast(float) / 1e6


def dates_of(cells: pl.Series, form: str) -> pl.Series:
    """Cells as points in time; None for those that are not written so."""
    import polars as pl

    if "%H" not in form:
        return cells.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    return cells.str.to_datetime(form, strict=False, time_unit="us")
