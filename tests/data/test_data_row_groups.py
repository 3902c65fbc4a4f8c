"""Row groups of Parquet: what its footer says of them, and footers that are damaged."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.row_groups import row_groups
from thrifty.errors import DataError


def written(path: Path, rows: int, group: int) -> Path:
    cells = {"image": [{"bytes": b"x" * at, "path": "a"} for at in range(rows)], "label": list(range(rows))}
    pl.DataFrame(cells).write_parquet(path, row_group_size=group, metadata={"huggingface": "{}"})
    return path


@settings(max_examples=15)
@given(rows=st.integers(0, 90), group=st.integers(1, 40))
def test_groups_hold_each_row_once(rows: int, group: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp() / "a.parquet", rows, group)
    found = row_groups(str(path), path.name)
    assert sum(each.rows for each in found) == rows
    assert [each.start for each in found] == [sum(other.rows for other in found[:at]) for at in range(len(found))]
    assert all(set(each.column_bytes) == {"image", "label"} for each in found)
    assert all(each.column_bytes["image"] > 0 for each in found)


@settings(max_examples=30)
@given(cut=st.integers(0, 600), flipped=st.integers(0, 599), bit=st.integers(0, 7))
def test_a_damaged_footer_is_told(cut: int, flipped: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    raw = bytearray(written(folder / "whole.parquet", 9, 4).read_bytes())
    raw[-1 - flipped % len(raw)] ^= 1 << bit
    broken = folder / "broken.parquet"
    broken.write_bytes(raw[: len(raw) - cut])
    try:
        found = row_groups(str(broken), broken.name)
        assert all(isinstance(each.rows, int) for each in found)
    except DataError as error:
        assert "'broken.parquet' is no Parquet file that can be read" in str(error)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    for raw in (b"", b"PAR1", b"\xff\xff\xff\x7fPAR1", b"\x1c" * 99 + b"\x63\0\0\0PAR1"):
        (tmp_path / "a.parquet").write_bytes(raw)
        with pytest.raises(DataError, match=r"'a\.parquet' is no Parquet file that can be read: "):
            row_groups(str(tmp_path / "a.parquet"), "a.parquet")
