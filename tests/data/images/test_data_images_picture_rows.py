"""Images in rows of Parquet: which columns they are told by, what is put aside, and that little of them is held."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_folders import encoded, image, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.images import picture_rows
from thrifty.data.images.image import decode
from thrifty.data.images.picture_columns import PictureColumns, find_picture_columns, picture_files
from thrifty.data.images.picture_rows import Kept, PictureReader, read_pictures
from thrifty.data.inputs import InputFile, list_one
from thrifty.data.look import look
from thrifty.errors import DataError, MissingExtraError
from thrifty.spec import SPLITS, ImageData

LABELS = ("cat", "dog")
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(LABELS)}}
STRUCT = pl.Struct({"bytes": pl.Binary, "path": pl.String})


def rows(path: Path, cells: Sequence[bytes | None], labels: Sequence[Any], *, group: int = 4, **features: Any) -> Path:
    """A file as `datasets` writes it; without features as others do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pl.Series("image", [{"bytes": cell, "path": f"{at}.png"} for at, cell in enumerate(cells)], STRUCT)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pl.DataFrame([images, pl.Series("label", labels)]).write_parquet(path, row_group_size=group, metadata=metadata)
    return path


def pets(path: Path, start: int, count: int) -> Path:
    numbers = range(start, start + count)
    return rows(path, [encoded(image(at)) for at in numbers], [at % 2 for at in numbers], **FEATURES)


def file_of(path: Path) -> InputFile:
    return list_one(path)[0][0]


def prepared(path: Path, cache: Path, **asked: Any) -> Store:
    return prepare(ImageData(kind="image", path=path, **asked), seed=0, cache=cache, emit=silent)


def test_a_published_data_set_is_looked_at_and_prepared(tmp_path: Path) -> None:
    data = tmp_path / "pets"
    pets(data / "data" / "train-00000-of-00002.parquet", 0, 20)
    pets(data / "data" / "train-00001-of-00002.parquet", 20, 20)
    pets(data / "data" / "test-00000-of-00001.parquet", 40, 7)
    (data / "README.md").write_text("about it")
    found = look(data, tmp_path / "cache")
    assert found.says == (
        "pets/: 47 images, 2 labels (cat 51 %, dog 49 %), 12x12 gray, 3 Parquet files, train 40, test 7"
    )
    assert found.job["data"] == {"kind": "image", "path": str(data)}
    assert found.why["data"] == "image column 'image', label column 'label', whose 2 names the schema holds"
    store = prepared(data, tmp_path / "cache")
    assert store.dataset.labels == LABELS
    assert store.dataset.counts["test"] == 7 and sum(store.dataset.counts.values()) == 47
    starts = {"train-00000-of-00002": 0, "train-00001-of-00002": 20, "test-00000-of-00001": 40}
    for part in SPLITS:
        for name, pixels, label in zip(store.names(part), store.array(part, "x"), store.array(part, "y"), strict=True):
            file, _, row = name.removeprefix("data/").partition(".parquet:")
            at = starts[file] + int(row) - 1
            assert np.array_equal(pixels, decode(encoded(image(at)), max_pixels=10**4)) and label == at % 2
    assert store.dataset.cleaning.rejected == {"not a Parquet file": 1}
    assert found.why["data"] in store.dataset.cleaning.notes
    assert prepared(data, tmp_path / "cache").folder == store.folder


COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "by its features": ({"id": "x", "img": b"", "fine_label": 1}, {
        "img": {"_type": "Image"}, "fine_label": {"_type": "ClassLabel", "names": ["a", "b"]}}, "img", "fine_label"),
    "plain bytes": ({"image": b"", "label": "cat"}, {}, "image", "label"),
    "the only other": ({"picture": b"", "breed": "cat"}, {}, "picture", "breed"),
    "named": ({"mask": b"", "image": b"", "class": 3, "size": 4}, {}, "image", "class"),
    "a part of a name": ({"scan": b"", "coarse_label": 3, "size": 4}, {}, "scan", "coarse_label"),
    "no sound": ({"audio": b"", "picture": b"", "label": 1}, {"audio": {"_type": "Audio"}}, "picture", "label"),
}  # fmt: skip


@pytest.mark.parametrize("form", COLUMNS)
def test_columns_are_told(form: str, tmp_path: Path) -> None:
    row, features, wanted, label = COLUMNS[form]
    row = {name: encoded(image(1)) if cell == b"" else cell for name, cell in row.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pl.DataFrame([row]).write_parquet(tmp_path / "a.parquet", metadata=metadata)
    found = find_picture_columns(file_of(tmp_path / "a.parquet"))
    assert (found.image, found.label) == (wanted, label)
    assert found.names == (("a", "b") if form == "by its features" else ())
    assert picture_files([file_of(tmp_path / "a.parquet")])


def test_the_column_of_labels_may_be_named(tmp_path: Path) -> None:
    cells = [{"image": encoded(image(at)), "label": at % 2, "kind": "ab"[at // 12]} for at in range(24)]
    pl.DataFrame(cells).write_parquet(tmp_path / "a.parquet")
    for asked in ("kind", 3):
        assert prepared(tmp_path / "a.parquet", tmp_path / "cache", label=asked).dataset.labels == ("a", "b")
    with pytest.raises(DataError, match=r"no column 'knd' beside its images.*Did you mean 'kind'"):
        prepared(tmp_path / "a.parquet", tmp_path / "cache", label="knd")
    pl.DataFrame(cells).drop("label").with_columns(size=1).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"none of its columns is known.*Set data\.label to one of: kind, size"):
        prepared(tmp_path / "b.parquet", tmp_path / "cache")
    with pytest.raises(DataError, match=r"data\.label names the column 'kind', and no table"):
        prepared(write_images(tmp_path / "folders", {"cat": 4, "dog": 4}), tmp_path / "cache", label="kind")
    with pytest.raises(DataError, match=r"data\.split names the column 'who', and images in Parquet are dealt"):
        prepared(tmp_path / "a.parquet", tmp_path / "cache", split={"group": "who"})


def test_what_cannot_be_used_is_put_aside_by_its_row(tmp_path: Path) -> None:
    good = encoded(image(0))
    cells = [good, None, b"", good[:40], b"x" * 2000, good, good]
    path = rows(tmp_path / "a.parquet", cells, [0, 1, 1, 1, 1, -1, None], group=3, **FEATURES)
    pictures, rejects = read_pictures(file_of(path), None, Kept(), max_file_bytes=1000)
    assert [(each.name, each.label) for each in pictures] == [
        ("a.parquet:1", "cat"), ("a.parquet:3", "dog"), ("a.parquet:4", "dog")
    ]  # fmt: skip
    assert {each.name: each.reason + each.detail for each in rejects} == {
        "a.parquet:2": "no bytes in its cell",
        "a.parquet:5": "too large: 2.0 KiB, over the limit of 1000 B",
        "a.parquet:6": "label without a name: -1",
        "a.parquet:7": "empty label",
    }


def test_what_is_decoded_in_vain_is_put_aside_too(tmp_path: Path) -> None:
    cells = [*(encoded(image(at)) for at in range(20)), b"", encoded(image(20))[:-20], b"no image at all"]
    path = rows(tmp_path / "a.parquet", cells, [at % 2 for at in range(23)], **FEATURES)
    store = prepared(path, tmp_path / "cache")
    assert sum(store.dataset.counts.values()) == 20
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    told = {each["path"]: each["reason"].partition(":")[0] for each in map(json.loads, lines)}
    assert told == {"a.parquet:21": "empty", "a.parquet:22": "truncated", "a.parquet:23": "not an image"}


def test_damage_takes_no_more_than_its_row_group(tmp_path: Path) -> None:
    path = pets(tmp_path / "data" / "train-0.parquet", 0, 12)
    raw = bytearray(path.read_bytes())
    # of the first group's images, behind the file's mark and a page's header
    raw[60:300] = bytes(240)
    path.write_bytes(raw)
    (tmp_path / "data" / "train-1.parquet").write_bytes(raw[:-9])
    pets(tmp_path / "data" / "train-2.parquet", 12, 12)
    found = [read_pictures(file, None, Kept(), max_file_bytes=10**6) for file in list_one(tmp_path / "data")[0]]
    assert [len(pictures) + len(rejects) for pictures, rejects in found] == [12, 1, 12]
    assert found[0][1] and {each.reason for each in found[0][1]} == {"damaged row group"}
    assert found[1][1][0].reason == "no images with labels" and not found[2][1]


@settings(max_examples=8, deadline=None)
@given(count=st.integers(0, 30), group=st.integers(1, 12), most=st.integers(100, 2000))
def test_blocks_hold_each_row_once(count: int, group: int, most: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    cells = [bytes(at) for at in range(count)]
    path = rows(tmp_path_factory.getbasetemp() / "blocks.parquet", cells, [0] * count, group=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_rows, "BLOCK_BYTES", most)
        reader = PictureReader(file_of(path), PictureColumns("image", "label", nested=True), Kept())
    ends = [0, *(each.end for each in reader.blocks)]
    assert ends[-1] == count and [each.start for each in reader.blocks] == ends[:-1]
    assert all(each.size_bytes <= most or len(each.groups) == 1 for each in reader.blocks)
    assert [cell.as_py() for at in range(len(reader.blocks)) for cell in reader.cells(at)] == cells
    assert [reader.cell(row) for row in range(count)] == cells


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 600), flipped=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_damaged_file_is_told(cut: int, flipped: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    raw = bytearray(pets(folder / "whole.parquet", 0, 9).read_bytes())
    raw[-1 - flipped % len(raw)] ^= 1 << bit
    (folder / "broken.parquet").write_bytes(raw[: len(raw) - cut])
    pictures, rejects = read_pictures(file_of(folder / "broken.parquet"), None, Kept(), max_file_bytes=10**6)
    assert len(pictures) + len(rejects) in {1, 9}


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    for raw in (b"", b"PAR1", b"\xff\xff\xff\x7fPAR1", b"\x1c" * 99 + b"\x63\0\0\0PAR1"):
        (tmp_path / "a.parquet").write_bytes(raw)
        with pytest.raises(DataError, match=r"'a\.parquet' is no Parquet file that can be read: "):
            PictureReader(file_of(tmp_path / "a.parquet"), PictureColumns("image", "label", nested=True), Kept())


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pets(tmp_path / "a.parquet", 0, 8)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert look(path, tmp_path / "cache").job["data"]["kind"] == "image"
    with pytest.raises(MissingExtraError, match=r"needs the package 'pyarrow'.*thrifty\[parquet\]"):
        prepared(path, tmp_path / "cache")


def test_few_row_groups_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_rows, "BLOCK_BYTES", 1000)
    path = pets(tmp_path / "a.parquet", 0, 40)
    kept, read = Kept(), []
    pictures, _ = read_pictures(file_of(path), None, kept, max_file_bytes=10**6)
    reader = pictures[0].reader
    assert [(each.start, each.end) for each in reader.blocks] == [(at, at + 4) for at in range(0, 40, 4)]
    real = PictureReader.cells
    monkeypatch.setattr(PictureReader, "cells", lambda self, block: (read.append(block), real(self, block))[1])
    assert [each.read_unchanged() for each in pictures] == [encoded(image(at)) for at in range(40)]
    assert read == list(range(10)) and len(kept) == 2
    monkeypatch.setattr(picture_rows, "MOST_GROUP_BYTES", 10)
    pictures, rejects = read_pictures(file_of(path), None, kept, max_file_bytes=10**6)
    assert not pictures and len(rejects) == 40 and rejects[0].reason == "row group too large"


def test_rows_that_change_meanwhile_stop_the_work(tmp_path: Path) -> None:
    path = pets(tmp_path / "a.parquet", 0, 8)
    (first, *_), _ = read_pictures(file_of(path), None, Kept(), max_file_bytes=10**6)
    pets(path, 8, 8)
    with pytest.raises(DataError, match=r"'a\.parquet:1' changed while the data was being prepared"):
        first.read_unchanged()


def test_other_parquet_is_no_data_of_images(tmp_path: Path) -> None:
    sound = pl.DataFrame({"audio": [b"RIFF1234WAVEfmt "], "label": [1]})
    sound.write_parquet(tmp_path / "sound.parquet")
    assert not picture_files([file_of(tmp_path / "sound.parquet")])
    pl.DataFrame({"text": ["a"], "label": [1]}).write_parquet(tmp_path / "texts.parquet")
    assert not picture_files([file_of(tmp_path / "texts.parquet")])
    (tmp_path / "none.parquet").write_bytes(b"none")
    assert not picture_files([file_of(tmp_path / "none.parquet")])
