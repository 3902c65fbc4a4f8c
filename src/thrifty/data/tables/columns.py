"""What the columns of a table are: numbers, categories, booleans or dates; told from every cell, and explained.

Counts of batches are added up, so that no table need fit into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thrifty.data.tables.coded import Cells, Counted
from thrifty.data.tables.layout import MISSING
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
# what no format reads has nothing of this; numbers may have a sign and space before them
_DATE_LIKE = r"\d\s*[-/.年]\s*[-+]?\d"
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
        values: those that came, as the keys; the commonest of the first batch first.
        crowded: there were more values than are told apart.
    """

    cells: int = 0
    empty: int = 0
    numbers: int = 0
    infinite: int = 0
    dates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DATE_FORMATS, 0))
    values: dict[str, None] = field(default_factory=dict)
    crowded: bool = False

    def add(self, cells: Counted) -> None:
        """Count cells; further ones of the same column may follow."""
        import polars as pl

        value, number = pl.col("value"), pl.col("value").cast(pl.Float64, strict=False)
        # all at once: on a few values, asking takes longer than answering
        found = pl.DataFrame({"value": cells.values, "count": cells.counts}).select(
            "count",
            text=_text(value),
            finite=number.is_finite().fill_null(False),
            infinite=number.is_infinite().fill_null(False),
            date_like=value.cast(pl.String).str.contains(_DATE_LIKE).fill_null(False),
        )
        self.cells += len(cells)
        self.numbers += _counted(found, "finite")
        self.infinite += _counted(found, "infinite")
        filled = found.filter(pl.col("text").is_not_null())
        count = int(filled["count"].sum())
        self.empty += len(cells) - count
        if not self.mostly_numbers:
            self._count_dates(filled.filter("date_like"), self.filled - count)
        # once there are more than are told apart, further ones tell nothing
        if not self.crowded:
            self._note_values(filled.sort("count", descending=True, maintain_order=True)["text"])

    def _note_values(self, values: pl.Series) -> None:
        most = MOST_NUMBERS if self.mostly_numbers else MOST_VALUES
        for some in (values.head(4 * most), values.slice(4 * most)):
            for value in some.unique(maintain_order=True).to_list() if not self.crowded else ():
                if value not in self.values and len(self.values) == most:
                    self.crowded = True
                    break
                self.values[value] = None

    def _count_dates(self, filled: pl.DataFrame, before: int) -> None:
        """Count the cells of a batch that formats read; ``before`` of it others were looked at."""
        for form in list(self.dates):
            found = self.dates[form]
            if len(filled):
                found += int(filled["count"].filter(dates_of(filled["text"], form).is_not_null()).sum())
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
    >>> from thrifty.data.tables.coded import count_cells
    >>> tally = Tally()
    >>> tally.add(count_cells([Cells(pl.Series("age", ["31", "?", "42"]))]))
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
        return Found("number", "many numbers" if tally.crowded else f"{values:,} numbers", odd=filled - tally.numbers)
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

    return cells.to_frame("cell").select(_text(pl.col("cell")).alias(cells.name)).to_series()


def _text(cell: pl.Expr) -> pl.Expr:
    import polars as pl

    text = cell.cast(pl.String)
    return pl.when(~text.is_in(_MISSING_IN_ANY_CASE)).then(text)


def numbers_of(cells: pl.Series) -> pl.Series:
    """Cells, without space around them, as float64; None for those that are no number."""
    import polars as pl

    if cells.dtype.is_numeric():
        return cells.cast(pl.Float64).fill_nan(None)
    return cells.cast(pl.Float64, strict=False).fill_nan(None)


def time_format(column: Iterable[Cells], tally: Tally) -> str | None:
    """Tell how a column writes times: in the format that reads most of its cells; an empty string for numbers, None
    where it holds neither.
    """
    if tally.numbers or tally.infinite:
        return ""
    read = dict.fromkeys(DATE_FORMATS, 0)
    for cells in column:
        texts, counts = texts_of(cells.values), cells.counts()
        for form in DATE_FORMATS:
            read[form] += int(counts[dates_of(texts, form).is_not_null().to_numpy()].sum())
    best = max(DATE_FORMATS, key=read.__getitem__)
    return best if read[best] else None


def times_of(cells: pl.Series, form: str) -> pl.Series:
    """Cells as numbers, or as seconds since 1970 where ``form`` is that of dates; None for the rest."""
    if not form:
        return numbers_of(cells)
    return dates_of(texts_of(cells), form).dt.epoch("us").cast(float) / 1e6


def dates_of(cells: pl.Series, form: str) -> pl.Series:
    """Cells as points in time; None for those that are not written so."""
    import polars as pl

    if "%H" not in form:
        return cells.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    return cells.str.to_datetime(form, strict=False, time_unit="us")


def _counted(found: pl.DataFrame, flag: str) -> int:
    """How many cells have a flag."""
    return int(found["count"].filter(found[flag]).sum())
