"""Files that are hashed as they are read: turned back to their beginning they are hashed anew, and changes show."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from thrifty.data.inputs import list_one
from thrifty.data.unchanged import open_unchanged
from thrifty.errors import DataError

RAW = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(RAW).hexdigest()


@pytest.mark.parametrize("first", [0, 100, 2**20 + 1, len(RAW)], ids=str)
@pytest.mark.parametrize("second", [0, 7, len(RAW)], ids=str)
def test_a_file_turned_back_is_hashed_whole(tmp_path: Path, first: int, second: int) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(RAW)
    (file,), _ = list_one(path)
    with open_unchanged(file, SHA256) as stream:
        assert stream.read(first) == RAW[:first]
        stream.seek(0)
        assert stream.read(second) == RAW[:second]
    with pytest.raises(DataError, match=r"'a\.tsv' changed"), open_unchanged(file, "another") as stream:
        stream.read(first)
        stream.seek(0)


def test_it_is_turned_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(RAW)
    (file,), _ = list_one(path)
    with open_unchanged(file, SHA256) as stream, pytest.raises(io.UnsupportedOperation, match="beginning alone"):
        stream.seek(2**21)
