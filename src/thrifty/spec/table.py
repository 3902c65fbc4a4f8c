"""`Table`: what the columns of a table are, and how a row becomes the numbers that a model takes."""

from __future__ import annotations

from typing import Literal

from thrifty.spec.plain import Plain

MONTHS, WEEKDAYS, HOURS = 12, 7, 24
ColumnKind = Literal["number", "category", "boolean", "date"]


class Column(Plain):
    """One column that a model learns from; what it says is of the training split.

    Attributes:
        name: in the header, or its number from 1.
        kind: ``number``, ``category``, ``boolean`` or ``date``.
        edges: of numbers, and of dates in seconds since 1970: rising values between which quantiles lie.
        values: of categories, the known ones, by their code; of booleans, in lower case.
        format: of dates, as polars reads it.
        missing: cells of the training split were empty, so that being empty has a code.
    """

    name: str
    kind: ColumnKind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    format: str = ""
    missing: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it gives a number beside its codes."""
        return self.kind in {"number", "date"}

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Values of each code that it gives, 0 not counted.

        >>> Column(name="c", kind="category", values=("a", "b"), missing=True).code_sizes
        (3,)
        >>> Column(name="d", kind="date", edges=(0.0, 1.0), format="%Y-%m-%d").code_sizes
        (12, 7)
        """
        if self.kind in {"category", "boolean"}:
            return (len(self.values) + self.missing,)
        parts = (MONTHS, WEEKDAYS, *([HOURS] if "%H" in self.format else [])) if self.kind == "date" else ()
        return (*parts, *([1] if self.missing else []))


class Table(Plain):
    """How rows become float32 [N, numbers + codes].

    Numbers come first: where a value stands among the quantiles of the training split, 0 to 1. Codes follow, as whole
    numbers below ``vocabulary``, no two columns' the same; 0 stands for what is not known, or for nothing to say.

    Attributes:
        columns: those that are learned from, in the order of the table.
        target: the column that is told.
        mean, deviation: of numbers to tell, by which they are standardised: of the training split, in their own units.
    """

    columns: tuple[Column, ...]
    target: str
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def numbers(self) -> int:
        """Numbers of a row."""
        return sum(column.is_number for column in self.columns)

    @property
    def codes(self) -> int:
        """Codes of a row."""
        return sum(len(column.code_sizes) for column in self.columns)

    @property
    def vocabulary(self) -> int:
        """Values of all codes together, 0 among them."""
        return 1 + sum(sum(column.code_sizes) for column in self.columns)
