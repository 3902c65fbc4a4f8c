"""Images as arrays: IDX and npz are read as published data sets have them, and what is wrong with one is told."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import encoded, image, write_images
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.images import arrays as data_arrays
from thrifty.data.images.arrays import Labelled, read_idx, read_labelled
from thrifty.data.look import look
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}
IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    dtype = next(name for name in CODES if np.dtype(name) == array.dtype)
    head = bytes([0, 0, CODES[dtype], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def pixels(count: int, *more: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 6, *more), np.uint8)


def digits(count: int) -> np.ndarray:
    return (np.arange(count) % 3).astype(np.uint8)


def only(contents: dict[str, bytes]) -> Labelled:
    (found,) = read_labelled(contents)
    return found


@given(
    array=st.sampled_from(list(CODES)).flatmap(lambda each: arrays_of.arrays(each, arrays_of.array_shapes(max_dims=4)))
)
def test_an_idx_file_holds_what_was_written(array: np.ndarray) -> None:
    for name, raw in (("a.idx3-ubyte", idx(array)), ("a-idx3-ubyte.gz", gzip.compress(idx(array)))):
        np.testing.assert_array_equal(read_idx(name, raw), array)


def test_images_and_labels_of_idx_go_together_by_their_names() -> None:
    x, y = pixels(9), digits(9)
    contents = {
        f"mnist/{IMAGES}.gz": gzip.compress(idx(x)), f"mnist/{LABELS}": idx(y),
        "mnist/t10k-images.idx3-ubyte": idx(x[:4]), "mnist/t10k-labels.idx1-ubyte": idx(y[:4]),
    }  # fmt: skip
    train, test = read_labelled(contents)
    assert (train.name, train.split, test.split) == (f"mnist/{IMAGES}.gz", "train", "test")
    assert train.images.shape == (9, 8, 6, 1) and (train.images[..., 0] == x).all()
    assert train.labels == tuple("012012012") and test.labels == tuple("0120")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("x_train", "y_train", "x_test", "y_test"), ["train", "test"]),
        (("train_images", "train_labels", "val_images", "val_labels"), ["train", "validation"]),
        (("images", "labels"), [""]),
        (("data", "target"), [""]),
        (("X", "y"), [""]),
    ],
)
def test_arrays_of_npz_go_together_by_their_names(names: tuple[str, ...], splits: list[str]) -> None:
    arrays = {name: pixels(6, 3) if number % 2 == 0 else digits(6) for number, name in enumerate(names)}
    found = list(read_labelled({"some.npz": npz(**arrays)}))
    assert [each.split for each in found] == splits
    assert all((each.images == pixels(6, 3)).all() and each.labels == tuple("012012") for each in found)


def test_a_file_named_after_a_split_is_it() -> None:
    assert only({"data/val.npz": npz(x=pixels(6), y=digits(6))}).split == "validation"


PIXELS: dict[str, tuple[np.ndarray, list[int]]] = {
    "bytes": (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
    "truth": (np.array([False, True, True]), [0, 255, 255]),
    "shares": (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),
    "bytes as floats": (np.array([0.0, 7.0, 255.0]), [0, 7, 255]),
    "16 bits": (np.array([0, 257 * 7, 65_535], np.uint16), [0, 7, 255]),
    "few levels": (np.array([0, 1, 1], np.int64), [0, 1, 1]),
}


@pytest.mark.parametrize("kind", PIXELS)
def test_numbers_become_pixels(kind: str) -> None:
    numbers, expected = PIXELS[kind]
    found = only({"a.npz": npz(x=np.tile(numbers[:, None, None], (1, 4, 4)), y=digits(3))})
    assert found.images.dtype == np.uint8 and found.images[:, 0, 0, 0].tolist() == expected


def test_channels_may_come_first() -> None:
    x = pixels(5, 3)
    found = only({"a.npz": npz(x=np.moveaxis(x, -1, 1), y=digits(5))})
    assert (found.images == x).all()


@pytest.mark.parametrize("labels", [digits(5)[:, None].astype(np.int64), np.array(["0", "1", "2", "0", "1"])])
def test_labels_are_numbers_or_names(labels: np.ndarray) -> None:
    assert only({"a.npz": npz(x=pixels(5), y=labels)}).labels == tuple("01201")


BROKEN: dict[str, tuple[dict[str, bytes], str]] = {
    "no labels": ({IMAGES: idx(pixels(4))}, f"'{IMAGES}' has no labels beside it: there is no '{LABELS}'"),
    "labels misnamed": (
        {IMAGES: idx(pixels(4)), "trian-labels-idx1-ubyte": idx(digits(4))}, "Did you mean 'trian-labels-idx1-ubyte'"
    ),
    "fewer labels": ({IMAGES: idx(pixels(4)), LABELS: idx(digits(3))}, "has 4 images and 3 labels"),
    "no IDX": ({IMAGES: b"\x89PNG\r\n", LABELS: idx(digits(4))}, "no IDX file: it begins with the bytes 89 50 4e"),
    "empty": ({IMAGES: b"", LABELS: idx(digits(4))}, "begins with the bytes of no file"),
    "cut off": ({IMAGES: idx(pixels(4))[:-1], LABELS: idx(digits(4))}, "4 x 8 x 6 and should hold 192 bytes .* 191"),
    "no sizes": ({IMAGES: bytes([0, 0, 8, 3, 0]), LABELS: idx(digits(4))}, "ends within its sizes"),
    "no gzip": ({IMAGES + ".gz": idx(pixels(4)), LABELS: idx(digits(4))}, "cannot be unpacked: Not a gzipped file"),
    "half a gzip": (
        {IMAGES + ".gz": gzip.compress(idx(pixels(4)))[:-20], LABELS: idx(digits(4))}, "cannot be unpacked: "
    ),
    "no zip": ({"a.npz": b"nothing"}, "'a.npz' cannot be read as arrays"),
    "objects": ({"a.npz": npz(x=np.array([{}, {}]), y=digits(2))}, "cannot be read as arrays: .*allow_pickle"),
    "no images": ({"a.npz": npz(weights=pixels(4), y=digits(4))}, "^'a.npz' holds the arrays weights, y, .*Name"),
    "a vector": ({"a.npz": npz(x=np.zeros((4, 64)), y=digits(4))}, r"have the shape \(4, 64\)"),
    "five channels": ({"a.npz": npz(x=pixels(4, 5), y=digits(4))}, r"\[N, H, W\], or that with 1 or 3 channels"),
    "no pixels": ({"a.npz": npz(x=np.zeros((4, 0, 6)), y=digits(4))}, r"shape \(4, 0, 6, 1\)"),
    "below zero": ({"a.npz": npz(x=np.full((4, 8, 6), -1.0), y=digits(4))}, "numbers from -1 to -1; pixels are from 0"),
    "no number": ({"a.npz": npz(x=np.full((4, 8, 6), np.nan), y=digits(4))}, "hold NaN or infinity"),
    "endless": ({"a.npz": npz(x=np.full((4, 8, 6), np.inf), y=digits(4))}, "hold NaN or infinity"),
    "names": ({"a.npz": npz(x=np.full((4, 8, 6), "a"), y=digits(4))}, "are of type <U1; numbers are pixels"),
    "shares of labels": ({"a.npz": npz(x=pixels(4), y=np.ones((4, 3)))}, r"shape \(4, 3\) and the type float64"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_is_told(what: str) -> None:
    contents, says = BROKEN[what]
    with pytest.raises(DataError, match=says):
        list(read_labelled(contents))


def test_a_small_file_may_not_unpack_to_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_arrays, "MOST_BYTES", 1 << 20)
    zeros = np.zeros((40, 256, 256), np.uint8)
    for contents in (
        {IMAGES + ".gz": gzip.compress(idx(zeros)), LABELS: idx(digits(40))},
        {"a.npz": npz(x=zeros, y=digits(40))},
    ):
        with pytest.raises(DataError, match=r"unpacks to .*1\.0 MiB"):
            list(read_labelled(contents))


@given(raw=st.binary(max_size=40))
def test_any_bytes_are_an_array_or_an_error(raw: bytes) -> None:
    for name in ("a-images-idx3-ubyte", "a-images-idx3-ubyte.gz", "a.npz"):
        with pytest.raises(DataError):
            list(read_labelled({name: raw, "a-labels-idx1-ubyte": idx(digits(2))}))


def prepared(path: Path, cache: Path, **more: Any) -> Store:
    return prepare(ImageData(kind="image", path=path, **more), seed=0, cache=cache, emit=silent)


def write_idx(folder: Path, train: int = 60, test: int = 12) -> Path:
    folder.mkdir()
    x, y = pixels(train + test), digits(train + test)
    for name, part in (("train", slice(train)), ("t10k", slice(train, None))):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(x[part]))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(y[part]))
    return folder


def test_a_given_split_is_kept_and_what_is_missing_dealt(tmp_path: Path) -> None:
    store = prepared(write_idx(tmp_path / "mnist"), tmp_path / "cache")
    assert store.dataset.counts == {"train": 54, "validation": 6, "test": 12}
    assert store.dataset.labels == ("0", "1", "2") and store.dataset.shape == (1, 8, 8)
    assert all("t10k" in name for name in store.names("test"))
    assert not any("t10k" in name for part in ("train", "validation") for name in store.names(part))
    assert "nothing is named after validation: dealt from the training images" in store.dataset.cleaning.notes


def test_pixels_come_through_as_they_were(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    (tmp_path / "all.npz").write_bytes(npz(x=x, y=digits(60)))
    store = prepared(tmp_path / "all.npz", tmp_path / "cache")
    seen = set()
    for part in SPLITS:
        for name, row, label in zip(store.names(part), store.array(part, "x"), store.array(part, "y"), strict=True):
            number = int(name.rpartition(":")[2])
            seen.add(number)
            assert (row == x[number]).all() and label == number % 3
    assert seen == set(range(60))


def test_copies_over_given_splits_stay_on_the_held_out_side(tmp_path: Path) -> None:
    x, y = pixels(60), digits(60)
    x[0], x[3] = x[57], x[6]
    parts = {"train": slice(40), "val": slice(40, 50), "test": slice(50, None)}
    arrays = {f"x_{part}": x[each] for part, each in parts.items()} | {
        f"y_{part}": y[each] for part, each in parts.items()
    }
    (tmp_path / "all.npz").write_bytes(npz(**arrays))
    cleaning = prepared(tmp_path / "all.npz", tmp_path / "cache").dataset.cleaning
    assert cleaning.rejected == {"duplicate": 1, "duplicate across splits": 1}
    assert (cleaning.kept, cleaning.across_splits) == (58, 1)


def test_folders_of_splits_are_them(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", {"cat": 60, "dog": 60})
    for path in sorted(folder.rglob("*.png")):
        part = ("train", "val", "test")[int(path.stem) % 3]
        to = tmp_path / "data" / part / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
    (tmp_path / "data" / "train" / "loose.png").write_bytes(encoded(image(1)))
    (tmp_path / "data" / "docs" / "more").mkdir(parents=True)
    (tmp_path / "data" / "docs" / "more" / "about.txt").write_text("about it")
    store = prepared(tmp_path / "data", tmp_path / "cache")
    for part, named in (("train", "train/"), ("validation", "val/"), ("test", "test/")):
        names = store.names(part)
        assert len(names) == 40 and all(name.startswith(named) for name in names)
    assert store.dataset.labels == ("cat", "dog")
    assert store.dataset.cleaning.rejected == {"not in a class folder": 2}
    found = look(tmp_path / "data")
    assert found.kind == "image" and found.says.endswith("train 40, validation 40, test 40")


def test_a_look_tells_arrays(tmp_path: Path) -> None:
    found = look(write_idx(tmp_path / "mnist"))
    assert found.kind == "image"
    assert found.says == "mnist/: 72 images, 3 labels (0 33 %, 1 33 %, 2 33 %), 6x8 gray, arrays (test 12, train 60)"
    assert found.job["data"] == {"kind": "image", "path": str(tmp_path / "mnist")}


def test_other_files_beside_arrays_are_put_aside(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "mnist")
    (folder / "notes.txt").write_text("about it")
    cleaning = prepared(folder, tmp_path / "cache").dataset.cleaning
    assert cleaning.rejected == {"not an array file": 1}
