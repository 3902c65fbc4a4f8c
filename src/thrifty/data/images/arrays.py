"""Images and labels as arrays in files: IDX, as MNIST has it, plain or gzipped, and NumPy's ``.npz``.

Shapes: N images, H, W pixels, C channels.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from thrifty.data.split import SPLIT_NAMES, split_of
from thrifty.errors import DataError, nearest
from thrifty.spec.units import format_bytes

# a file that unpacks to more is refused: a small one can name any size
MOST_BYTES = 4 << 30
_IDX = re.compile(r"idx(\d)-ubyte(?:\.gz)?")
# of an IDX file: its third byte tells the type of its numbers
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# MNIST calls its 10,000 test images so
_TEN_THOUSAND = "t10k"
_ROLES = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "data"), "images"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets"), "labels"),
}
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Labelled:
    """Images of one part of a data set.

    Attributes:
        name: of the file, and of the array in it.
        images: uint8 [N, H, W, C].
        labels: N names.
        split: the part, or nothing where no name says.
        told: what of the numbers was given up.
    """

    name: str
    images: np.ndarray
    labels: tuple[str, ...]
    split: str
    told: tuple[str, ...] = ()


def holds_arrays(name: str) -> bool:
    """Say whether a file of this name holds arrays.

    >>> holds_arrays("train-images-idx3-ubyte.gz"), holds_arrays("a/mnist.npz"), holds_arrays("cat/1.png")
    (True, True, False)
    """
    return name.lower().endswith(".npz") or _IDX.search(name.lower()) is not None


def read_labelled(contents: Mapping[str, bytes]) -> Iterator[Labelled]:
    """Put images and labels of some files together.

    Args:
        contents: of each file, by its name.

    Raises:
        DataError: a file is not what its name says or is cut off, images have no labels, or as many of them as there
            are images; or they hold numbers that are no pixels.
    """
    for name, raw in contents.items():
        if name.lower().endswith(".npz"):
            yield from _of_npz(name, raw)
        elif "images" in name.lower():
            yield _of_idx(name, contents)


def _of_idx(name: str, contents: Mapping[str, bytes]) -> Labelled:
    path = PurePosixPath(name)
    beside = str(path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1")))
    found = next((each for each in (beside, beside + ".gz", beside.removesuffix(".gz")) if each in contents), None)
    if found is None:
        raise DataError(
            f"'{name}' has no labels beside it: there is no '{beside}'",
            nearest=nearest(beside, [each for each in contents if each != name]),
            mend="IDX files come in pairs, images and labels.",
        )
    split = "test" if path.name.startswith(_TEN_THOUSAND) else split_of(name)
    return _labelled(name, read_idx(name, contents[name]), read_idx(found, contents[found]), split)


def read_idx(name: str, raw: bytes) -> np.ndarray:
    """Read the array of an IDX file (Y. LeCun, The MNIST database: the IDX file format).

    Args:
        name: of the file; gzipped where it ends in ``.gz``.
        raw: its content.

    Raises:
        DataError: it is no such file, or not all of one.

    >>> read_idx("labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    array([7, 9], dtype=uint8)
    """
    raw = _unzipped(name, raw) if name.lower().endswith(".gz") else raw
    dtype = _IDX_TYPES.get(raw[2]) if len(raw) >= 4 and raw[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(f"'{name}' is no IDX file: it begins with the bytes {raw[:4].hex(' ') or 'of no file'}")
    begin = 4 + 4 * raw[3]
    if len(raw) < begin:
        raise DataError(f"'{name}' ends within its sizes, of which it says to have {raw[3]}")
    sizes = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, begin, 4)]
    wanted, there = math.prod(sizes) * np.dtype(dtype).itemsize, max(len(raw) - begin, 0)
    if there != wanted:
        shape = " x ".join(f"{size:,}" for size in sizes)
        raise DataError(f"'{name}' says {shape} and should hold {wanted:,} bytes of them; it holds {there:,}")
    return np.frombuffer(raw, dtype, offset=begin).reshape(sizes)


def _unzipped(name: str, raw: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{name}' cannot be unpacked: {error}") from error
    if len(found) > MOST_BYTES:
        raise DataError(f"'{name}' unpacks to over {format_bytes(MOST_BYTES)}")
    return found


def _of_npz(name: str, raw: bytes) -> Iterator[Labelled]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            size = sum(each.file_size for each in archive.infolist())
        if size > MOST_BYTES:
            raise DataError(f"'{name}' unpacks to {format_bytes(size)}, over the limit of {format_bytes(MOST_BYTES)}")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            parts = _parts_of(name, list(arrays.files))
            for split, roles in parts.items():
                where = f"{name}:{roles['images']}"
                yield _labelled(where, arrays[roles["images"]], arrays[roles["labels"]], split)
    except DataError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"'{name}' cannot be read as arrays: {error}") from error


def _parts_of(name: str, keys: list[str]) -> dict[str, dict[str, str]]:
    """Which array holds the images of each split, and which the labels, by their names."""
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        words = re.split(r"[^a-z0-9]+", key.lower())
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), split_of(name))
        role = next((_ROLES[word] for word in words if word in _ROLES), None)
        if role is not None:
            parts.setdefault(split, {}).setdefault(role, key)
    whole = {split: roles for split, roles in parts.items() if len(roles) == 2}
    if not whole or len(whole) < len(parts):
        raise DataError(
            f"'{name}' holds the arrays {', '.join(keys)[:200]}, and images and labels are to be told by their names",
            mend="Name them x_train and y_train, x_test and y_test; or x and y.",
        )
    return whole


def _labelled(name: str, images: np.ndarray, labels: np.ndarray, split: str) -> Labelled:
    labels = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"labels of '{name}' have the shape {labels.shape} and the type {labels.dtype}; one whole number or name "
            "for each image is a label"
        )
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images):,} images and {len(labels):,} labels")
    pixels, told = _pixels(name, images)
    return Labelled(name, pixels, tuple(map(str, labels.tolist())), split, told)


def _pixels(name: str, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images as uint8 [N, H, W, C], and what was given up for that."""
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and images.shape[-1] not in _CHANNELS and images.shape[1] in _CHANNELS:
        images = np.moveaxis(images, 1, -1)
    if images.ndim != 4 or images.shape[-1] not in _CHANNELS or 0 in images.shape:
        raise DataError(
            f"images of '{name}' have the shape {images.shape}; [N, H, W], or that with 1 or 3 channels, are images"
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images), ()
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * 255, ()
    if images.dtype.kind not in "iuf":
        raise DataError(f"images of '{name}' are of type {images.dtype}; numbers are pixels")
    low, high = float(images.min()), float(images.max())
    if not math.isfinite(low + high):
        raise DataError(
            f"images of '{name}' hold NaN or infinity", mend="Pixels are numbers from 0 to 1, to 255 or to 65,535."
        )
    if not (low >= 0 and high <= np.iinfo(np.uint16).max):
        raise DataError(
            f"images of '{name}' hold numbers from {low:g} to {high:g}; pixels are from 0 to 1, 255 or 65,535"
        )
    whole = high > 1 or images.dtype.kind in "iu"
    most = 1.0 if not whole else 255.0 if high <= 255 else 65_535.0
    pixels = np.rint(images.astype(np.float32) * (255.0 / most)).astype(np.uint8)
    return pixels, () if most == 255 and images.dtype.kind in "iu" else (f"numbers up to {most:,.0f}, scaled to 255",)
