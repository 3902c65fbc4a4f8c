"""Lines that are read all at once are what they are one by one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.inputs import list_one
from thrifty.data.tables import blocks
from thrifty.data.tables.blocks import Block, read_blocks
from thrifty.data.tables.layout import Layout
from thrifty.errors import DataError

LAYOUT = Layout(",", ("a", "b", "c"), 1)
PIECES = ["1", "x y", " z", "", ",", ",", ",", "\n", "\r\n", "\u00e9", "'", "#", "1,2,3\n", "4,,6\n", "?,b,\n"]


def read(path: Path, most_bytes: int = 40) -> tuple[list[list[str]], list[int], list[str]]:
    (file,), _ = list_one(path)
    found: list[Block] = list(read_blocks(file, hashlib.sha256(path.read_bytes()).hexdigest(), LAYOUT, most_bytes))
    rows = [[cell or "" for cell in row] for block in found for row in block.frame.iter_rows()]
    says = [f"{each.name} {each.reason}{each.detail}" for block in found for each in block.rejects]
    return (
        [[cell.strip() for cell in row] for row in rows],
        [at for block in found for at in block.lines.tolist()],
        says,
    )


@settings(max_examples=40, deadline=None)
@given(text=st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_even_lines_are_what_they_are_one_by_one(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes(("a,b,c\n" + text).encode())
    together = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_even", lambda *_: None)
        assert read(path) == together


def test_even_lines_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_plain", None)
    (tmp_path / "a.csv").write_text("a,b,c\n" + "1,,3\n" * 5)
    assert read(tmp_path / "a.csv") == ([["1", "", "3"]] * 5, [2, 3, 4, 5, 6], [])


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["1", "2"], "b": ["", "x"], "c": ["3", "4"]}).write_parquet(tmp_path / "d[1].parquet")
    pl.DataFrame({"a": ["9"], "b": ["9"], "c": ["9"]}).write_parquet(tmp_path / "d1.parquet")
    assert read(tmp_path / "d[1].parquet") == ([["1", "", "3"], ["2", "x", "4"]], [1, 2], [])


def test_parquet_that_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": ["1"], "b": ["2"], "c": ["3"]}).write_parquet(path)
    (file,), _ = list_one(path)
    with pytest.raises(DataError, match=r"'a\.parquet' changed while the data was being prepared"):
        list(read_blocks(file, "0" * 64, LAYOUT, 40))
