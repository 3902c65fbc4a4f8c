"""What trees are given of a prepared table is what stood in it."""

from __future__ import annotations

import numpy as np
import polars as pl
from benchmarks.baselines import as_it_was

from thrifty.data.tables.coded import cells_of
from thrifty.data.tables.features import encode
from thrifty.spec import Table
from thrifty.spec.table import Column


def test_numbers_and_codes_come_back() -> None:
    columns = (
        Column(name="age", kind="number", edges=(0.0, 10.0, 100.0), missing=True),
        Column(name="job", kind="category", values=("clerk", "cook")),
        Column(name="pay", kind="number", edges=(1.0, 2.0, 4.0)),
        Column(name="member", kind="boolean", values=("false", "true"), missing=True),
    )
    frame = pl.DataFrame(
        {"age": ["5", None, "64"], "job": ["cook", "judge", "clerk"], "pay": ["3", "1.5", "4"],
         "member": ["true", None, "false"]}
    )  # fmt: skip
    table = Table(columns=columns, target="rich")
    found = as_it_was(encode(cells_of(frame), table), table)
    wanted = [[5, 3, 2, 2], [np.nan, 1.5, 0, 3], [64, 4, 1, 1]]
    assert np.allclose(found, wanted, equal_nan=True, rtol=1e-5)
