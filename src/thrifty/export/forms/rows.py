"""Rows of a table in, labels or numbers out.

Shapes: N rows, F numbers and codes of a row, K labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError, nearest
from thrifty.export.engines import compute_of
from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, described, labelled, misnamed, named, softmax
from thrifty.spec import BundleInfo
from thrifty.spec.table import Column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

Cells = tuple[str | None, ...]
_SHOWN = 50


class Rows:
    """Cells by the names of their columns to labels, or to numbers in their own unit."""

    takes: Takes = "row"
    says = 'one row as JSON, such as {"age": 39}'
    options: Sequence[str] = ()
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        assert info.data.table is not None
        self._table, self._labels, self._compute = info.data.table, info.data.labels, compute_of(model)
        # the cells of a column are a tensor too; one whose column has the name of the raw input comes in rows alone
        kinds = {column.name: "FP64" if column.kind == "number" else "BYTES" for column in self._table.columns}
        self.inputs: Signature = {"row": ("BYTES", (-1,))} | {
            name: (kind, (-1,)) for name, kind in kinds.items() if name != "row"
        }
        self.outputs = labelled(self._labels) if self._labels else {"value": ("FP32", (-1,))}

    def row(self, raw: str | Mapping[str, Any]) -> Cells:
        """Take the cells of a row, in the order of the columns; those that are left out are empty.

        Args:
            raw: cells by the names of their columns, or the same as a JSON object.

        Raises:
            RequestError: it is no such thing, names a column that there is not, or a cell cannot be read.
        """
        cells = _parsed(raw) if isinstance(raw, str) else raw
        if not isinstance(cells, Mapping):
            raise RequestError(f"a row is an object of cells by their columns, not a {type(cells).__name__}")
        names = [column.name for column in self._table.columns]
        for name in cells:
            if name not in names:
                raise RequestError(
                    f"there is no column '{str(name)[:_SHOWN]}'",
                    nearest=nearest(name, names),
                    mend=f"There are: {', '.join(names)[:200]}.",
                )
        return tuple(_cell(column, cells.get(column.name)) for column in self._table.columns)

    def encoded(self, rows: Sequence[Cells]) -> NDArray[np.float32]:
        """Encode rows as those that the model learned from: float32 [N, F]."""
        import polars as pl

        from thrifty.data.tables.coded import cells_of
        from thrifty.data.tables.features import encode

        names = [column.name for column in self._table.columns]
        frame = pl.DataFrame(list(rows), schema=dict.fromkeys(names, pl.String), orient="row")
        return encode(cells_of(frame), self._table)

    def answers(self, rows: Sequence[Cells]) -> list[dict[str, Any]]:
        """Tell the labels of rows, or their numbers."""
        import numpy as np

        x_NF = self.encoded(rows)
        out = np.concatenate([self._compute(x_NF[at : at + ROWS_AT_ONCE]) for at in range(0, len(x_NF), ROWS_AT_ONCE)])
        if self._labels:
            return named(self._labels, softmax(out))
        values = out.flatten().astype(np.float64) * self._table.deviation + self._table.mean
        return [{"value": value} for value in values.astype(np.float32)]

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Name the label and all probabilities, or give the number."""
        return described(self._labels, answer) if self._labels else {"value": float(answer["value"])}

    def made_up(self) -> Cells:
        """Return a row of empty cells."""
        return (None,) * len(self._table.columns)

    def probe(self) -> str:
        """Answer an empty row."""
        return misnamed(self._compute(self.encoded([self.made_up()])), max(1, len(self._labels)))


def _parsed(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise RequestError(f"the row {raw[:_SHOWN]!r} is not JSON", mend=f"It is {Rows.says}.") from None


def _cell(column: Column, value: Any) -> str | None:
    """A cell as text, as it would stand in a file."""
    from thrifty.data.tables.layout import MISSING, is_number

    if isinstance(value, bool):
        value = "true" if value else "false"
    if value is None or isinstance(value, int | float):
        value = None if value is None else repr(value)
    elif not isinstance(value, str):
        raise RequestError(f"a cell is a text, a number, true, false or null; '{column.name}' is {_kind(value)}")
    if value is None or value.strip().lower() in MISSING:
        return None
    text: str = value.strip()
    if column.kind == "number" and not (is_number(text) and abs(float(text)) < float("inf")):
        raise RequestError(f"column '{column.name}' holds numbers, and {text[:_SHOWN]!r} is none")
    if column.kind == "date" and not _is_date(text, column.format):
        raise RequestError(f"column '{column.name}' holds dates like {column.format}, and {text[:_SHOWN]!r} is none")
    # half of a surrogate pair, which JSON can spell, has no UTF-8
    return text.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "an object"


@lru_cache(maxsize=4096)  # of a day it costs 90 µs, and days come again
def _is_date(text: str, form: str) -> bool:
    import polars as pl

    from thrifty.data.tables.columns import dates_of

    return not dates_of(pl.Series([text]), form).has_nulls()
