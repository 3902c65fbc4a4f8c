"""Recognise images: in class folders, named by a table, in tar shards, in rows of Parquet, or as arrays."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

from thrifty.data.images.arrays import holds_arrays, read_labelled
from thrifty.data.images.image import IMAGE_SUFFIXES, decode, is_gray
from thrifty.data.images.picture_columns import find_picture_columns, first_pictures, labels_of, picture_files
from thrifty.data.images.shards import read_shard, shards_of
from thrifty.data.images.survey import SMALLEST_SIDE
from thrifty.data.inputs import InputFile
from thrifty.data.labels import check_class_folders, folders_of
from thrifty.data.look.found import MEND, Look, Seen, job_name, shares, shown
from thrifty.data.look.language import TEXT_SUFFIXES
from thrifty.data.manifest import find_manifest
from thrifty.data.split import split_by_words
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData

SHOWN_IMAGES = 64
ECONOMY_SIDE = 64


def arrays(seen: Seen) -> Look | None:
    """Images and labels as arrays: MNIST's IDX, or ``.npz``."""
    path, held = seen.path, [file for file in seen.files if holds_arrays(file.name)]
    if not held:
        return None
    parts = list(read_labelled({file.name: Path(file.path).read_bytes() for file in held}))
    if not parts:
        raise DataError(f"'{path}' holds labels and no images", mend=MEND)
    counts = Counter(label for part in parts for label in part.labels)
    shapes = [(part.images.shape[1], part.images.shape[2]) for part in parts]
    colored = any(part.images.shape[3] > 1 for part in parts)
    given = ", ".join(f"{part.split or 'all'} {len(part.images):,}" for part in parts)
    return _images(path, counts, shapes, colored=colored, form=f", arrays ({given})")


def class_folders(seen: Seen) -> Look | None:
    """Images in folders that are named after their labels."""
    path, images = seen.path, [file for file in seen.files if file.suffix in IMAGE_SUFFIXES]
    texts = sum(file.suffix in TEXT_SUFFIXES for file in seen.files)
    if path.is_file() or not images or len(images) < texts:
        return None
    check_class_folders(path, {file.name for file in seen.files} | {reject.name for reject in seen.rejects})
    folders = folders_of(file.name for file in images)
    images = [file for file in images if folders.label(file.name)]
    counts = Counter(folders.label(file.name) for file in images)
    shapes, colored = _sampled(images)
    given = Counter(folders.split(file.name) for file in images)
    form = ", " + ", ".join(f"{part} {given[part]:,}" for part in SPLITS if given[part]) if folders.by_split else ""
    return _images(path, counts, shapes, colored=bool(colored), form=form)


def listed(seen: Seen) -> Look | None:
    """Images with labels that a table names."""
    images = [file for file in seen.files if file.suffix in IMAGE_SUFFIXES]
    manifest = None if seen.path.is_file() else find_manifest(seen.files, images)
    if manifest is None:
        return None
    counts = Counter(each.label for each in manifest.named.values())
    shapes, colored = _sampled([file for file in images if file.name in manifest.named])
    given = Counter(each.split for each in manifest.named.values())
    parts = "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])
    found = _images(seen.path, counts, shapes, colored=bool(colored), form=f"{parts}, as {manifest.source}")
    return replace(found, why={"data": manifest.says, **found.why})


def sharded(seen: Seen) -> Look | None:
    """Images with their labels beside them in tar shards, as webdataset has them."""
    shards = shards_of(seen.files)
    if not shards:
        return None
    most = ImageData.model_fields["max_file_bytes"].default
    samples = [sample for shard in shards for sample in read_shard(shard, max_file_bytes=most)[0]]
    counts = Counter(sample.label for sample in samples)
    shapes, colored = _shapes(sample.read for sample in _spread(samples))
    given = Counter(sample.split for sample in samples)
    parts = "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])
    form = f", {len(shards):,} shard{'s' * (len(shards) > 1)}{parts}"
    return _images(seen.path, counts, shapes, colored=bool(colored), form=form)


def in_rows(seen: Seen) -> Look | None:
    """Images with their labels in rows of Parquet, as Hugging Face has them; a few of the first rows are decoded."""
    files = picture_files(seen.files)
    if not files:
        return None
    counts: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for file in files:
        labels = [label for label in labels_of(file, find_picture_columns(file)) if isinstance(label, str)]
        counts.update(labels)
        given[split_by_words(file.name)] += len(labels)
    columns = find_picture_columns(files[0])
    cells = first_pictures(files[0], columns, SHOWN_IMAGES)
    shapes, colored = _shapes(functools.partial(bytes, cell) for cell in cells)
    parts = "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])
    form = f", {len(files):,} Parquet file{'s' * (len(files) > 1)}{parts}"
    found = _images(seen.path, counts, shapes, colored=bool(colored), form=form)
    return replace(found, why={"data": columns.says, **found.why})


def _images(path: Path, counts: Counter[str], shapes: Sequence[tuple[int, int]], *, colored: bool, form: str) -> Look:
    if not shapes:
        raise DataError(
            f"none of {min(counts.total(), SHOWN_IMAGES)} images looked at in '{path}' can be read", mend=MEND
        )
    low, high = min(shapes, key=_area), max(shapes, key=_area)
    sizes = f"{low[1]}x{low[0]}" if low == high else f"{low[1]}x{low[0]} to {high[1]}x{high[0]}"
    side = median_low(min(shape) for shape in shapes)
    data: dict[str, Any] = {"kind": "image", "path": str(path)}
    why: dict[str, str] = {}
    if side > ECONOMY_SIDE:
        data["size"] = ECONOMY_SIDE
        why["data.size"] = f"least compute: twice the side costs four times as much (the images are {sizes})"
    model, why["model"] = _image_model(side, counts.total())
    color = "colour" if colored else "gray"
    says = f"{shown(path)}: {counts.total():,} images, {len(counts)} labels ({shares(counts)}), {sizes} {color}{form}"
    return Look("image", says, {"name": job_name(path), "data": data, "model": model}, why)


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _sampled(images: Sequence[InputFile]) -> tuple[list[tuple[int, int]], int]:
    """Height and width of some images spread over the folder, and how many of them have colour."""
    return _shapes(Path(file.path).read_bytes for file in _spread(images))


def _spread(images: Sequence[Any]) -> Sequence[Any]:
    return images[:: max(1, -(-len(images) // SHOWN_IMAGES))]


def _shapes(reads: Iterable[Callable[[], bytes]]) -> tuple[list[tuple[int, int]], int]:
    shapes, colored = [], 0
    for read in reads:
        try:
            image = decode(read(), max_pixels=ImageData.model_fields["max_pixels"].default)
        except (DataError, OSError):
            continue
        shapes.append((image.shape[0], image.shape[1]))
        colored += not is_gray(image)
    return shapes, colored


def _image_model(side: int, count: int) -> tuple[str, str]:
    if side < SMALLEST_SIDE:
        return "mlp-small", f"at {side} pixels there is little for convolutions to find"
    if count < 10_000:
        return "resnet8", f"the smallest ResNet; {count:,} images seldom reward a deeper one"
    return "resnet20", f"the smallest of the published CIFAR ResNets; {count:,} images can use it"
