"""The images of a data set, however they are laid out: each with its label, its split, and how its pixels are had."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thrifty.data.cells import PARQUET
from thrifty.data.images.arrays import holds_arrays, read_labelled
from thrifty.data.images.image import decoded
from thrifty.data.images.picture_rows import Kept, PictureRow, read_pictures
from thrifty.data.images.shards import SHARD_SUFFIX, Sample, read_shard
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.inventory import Inventory, read_unchanged
from thrifty.data.labels import folders_of
from thrifty.data.manifest import Named
from thrifty.errors import DataError
from thrifty.spec import ImageData


class Unreadable(Exception):  # noqa: N818 - says so of one image, which is put aside
    """What is wrong with an image: a reason, and a detail after a colon."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


Pixels = tuple[np.ndarray, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that was not looked at yet.

    Attributes:
        name: its file, and its number in one that holds many.
        label: its class.
        split: the one that its file is named after; nothing where that is to be dealt.
        sha256: of its content.
        read: returns uint8 [H, W, C], and what of it was given up as `thrifty.data.images.image.decoded` says; raises
            `Unreadable`, or a `DataError` where its file has changed.
    """

    name: str
    label: str
    split: str
    sha256: str
    read: Callable[[], Pixels]


def pictures_of(data: ImageData, inventory: Inventory) -> tuple[list[Picture], list[Reject]]:
    """Return the images of files, in the order of their names; and what in shards and rows is none.

    Raises:
        DataError: arrays of images and labels cannot be read or do not go together.
    """
    if inventory.files and all(file.suffix == SHARD_SUFFIX for file in inventory.files):
        return _in_shards(data, inventory.files)
    if holds_rows(inventory):
        return _in_rows(data, inventory.files)
    return _in_files(data, inventory), []


def holds_rows(inventory: Inventory) -> bool:
    """Say whether images are rows of Parquet."""
    return bool(inventory.files) and all(file.suffix == PARQUET for file in inventory.files)


def _in_rows(data: ImageData, files: Sequence[InputFile]) -> tuple[list[Picture], list[Reject]]:
    pictures: list[Picture] = []
    rejects: list[Reject] = []
    kept = Kept()
    for file in files:
        rows, odd = read_pictures(file, data.label, kept, max_file_bytes=data.max_file_bytes)
        rejects += odd
        for row in rows:
            read = functools.partial(_of_row, row, data.max_pixels)
            pictures.append(Picture(row.name, row.label, row.split, row.sha256, read))
    return pictures, rejects


def _in_shards(data: ImageData, shards: Sequence[InputFile]) -> tuple[list[Picture], list[Reject]]:
    pictures: list[Picture] = []
    rejects: list[Reject] = []
    for shard in shards:
        samples, odd = read_shard(shard, max_file_bytes=data.max_file_bytes)
        rejects += odd
        for sample in samples:
            sha256 = hashlib.sha256(sample.read()).hexdigest()
            read = functools.partial(_of_shard, sample, sha256, data.max_pixels)
            pictures.append(Picture(sample.name, sample.label, sample.split, sha256, read))
    return pictures, rejects


def _in_files(data: ImageData, inventory: Inventory) -> list[Picture]:
    hashes = inventory.hashes
    if any(holds_arrays(file.name) for file in inventory.files):
        contents = {file.name: read_unchanged(file, hashes[file.name]) for file in inventory.files}
        return [
            Picture(
                f"{part.name}:{number}", label, part.split, hashlib.sha256(image).hexdigest(),
                functools.partial(_small_enough, image, part.told, data.max_pixels),
            )
            for part in read_labelled(contents)
            for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True))
        ]  # fmt: skip
    folders = folders_of(file.name for file in inventory.files)

    def said(name: str) -> Named:
        found = inventory.manifest
        return found.named[name] if found is not None else Named(folders.label(name), folders.split(name))

    return [
        Picture(
            file.name, said(file.name).label, said(file.name).split, hashes[file.name],
            functools.partial(_of_file, file, hashes[file.name], data.max_pixels),
        )
        for file in inventory.files
    ]  # fmt: skip


def _of_file(file: InputFile, sha256: str, max_pixels: int) -> Pixels:
    return _decoded(read_unchanged(file, sha256), max_pixels)


def _of_shard(sample: Sample, sha256: str, max_pixels: int) -> Pixels:
    return _decoded(sample.read_unchanged(sha256), max_pixels)


def _of_row(row: PictureRow, max_pixels: int) -> Pixels:
    return _decoded(row.read_unchanged(), max_pixels)


def _decoded(raw: bytes, max_pixels: int) -> Pixels:
    try:
        return decoded(raw, max_pixels=max_pixels)
    except DataError as error:
        raise Unreadable(error.what) from error


def _small_enough(image: np.ndarray, told: tuple[str, ...], max_pixels: int) -> Pixels:
    height, width = image.shape[:2]
    if height * width > max_pixels:
        raise Unreadable(f"too many pixels: {width}x{height} is over {max_pixels:,}")
    return image, told
