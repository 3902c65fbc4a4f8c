"""Images into a store: decode, drop copies, split, and measure mean and deviation.

Images are written as they are decoded to a scratch file in the draft, then copied into the splits, because which
split an image goes to is known only when all have been seen. Memory holds one chunk of rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from thrifty.data.cells import PARQUET
from thrifty.data.copies import deal, deal_together, find_copies, not_given, reject_copies, reject_odd_sizes
from thrifty.data.draft import Draft
from thrifty.data.images.image import CHANNELS
from thrifty.data.images.picture_columns import find_picture_columns
from thrifty.data.images.pictures import holds_rows, pictures_of
from thrifty.data.images.shards import SHARD_SUFFIX
from thrifty.data.images.survey import Seen, Shape, decide_shape, decode_all
from thrifty.data.inputs import Reject, cleaned, count_reasons, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.labels import folders_of, in_order
from thrifty.spec import SPLITS, Dataset, ImageData
from thrifty.spec.events import Emit

_CHUNK_BYTES = 16 * 2**20


def prepare_images(data: ImageData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the arrays, names and rejects of an image data set into a draft; return what it holds.

    Raises:
        DataError: no image can be read, or a class has not one for each split.
        StorageError: the cache has no room.
    """
    pictures, no_pictures = pictures_of(data, inventory)
    shape = decide_shape(data, pictures, [*inventory.rejects, *no_pictures], seed)
    draft.reserve(len(pictures) * (2 * shape.row_bytes + 8))
    scratch = draft.folder / "scratch"
    seen, rejects = decode_all(data, pictures, shape, seed, scratch, emit)
    rejects += no_pictures
    if data.mixed_sizes == "reject":
        seen, odd = reject_odd_sizes(seen)
        rejects += odd
    kept, mislabelled, copies = find_copies(seen)
    rejects += mislabelled
    labels = in_order({picture.label for picture in pictures} | _put_aside(inventory, ()).keys())
    keys = _keys(data, inventory)
    if keys:
        splits = deal_together(data, kept, labels, keys, seed)
    else:
        splits = deal(data, kept, labels, _put_aside(inventory, rejects))
    rejects += reject_copies(copies, kept, splits, keys)

    rows = np.asarray(np.memmap(scratch, np.uint8, "r", shape=(len(pictures), *shape.row_shape)))
    parts = {part: [image for image in kept if splits[image.name] == part] for part in SPLITS}
    for part, images in parts.items():
        _write_split(draft, part, images, rows, labels)
    mean, std = _statistics(rows, [image.row for image in parts["train"]])
    del rows
    scratch.unlink()
    draft.write("names.json", json.dumps({part: [image.name for image in images] for part, images in parts.items()}))

    rejects = sorted([*inventory.rejects, *rejects], key=lambda reject: reject.name)
    draft.write("rejects.jsonl", reject_lines(rejects))
    reasons = count_reasons(rejects)
    trained = Counter(image.label for image in parts["train"])
    return Dataset(
        kind="image",
        task="classify",
        key=inventory.key,
        counts={part: len(images) for part, images in parts.items()},
        labels=labels,
        label_counts={label: trained[label] for label in labels},
        shape=(CHANNELS[shape.color], shape.size, shape.size),
        mean=mean,
        std=std,
        crop=data.crop,
        vocabulary=0,
        tokens={},
        text_bytes={},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=cleaned(len(kept), reasons, (*_said(data, inventory), *shape.notes, *_notes(shape, kept, reasons))),
    )


def _put_aside(inventory: Inventory, rejects: Sequence[Reject]) -> dict[str, str]:
    """What was put aside of the files of each class folder, in words; a class may have lost all of them."""
    if inventory.manifest is not None or any(file.suffix in {SHARD_SUFFIX, PARQUET} for file in inventory.files):
        return {}
    folders = folders_of([*(file.name for file in inventory.files), *(reject.name for reject in inventory.rejects)])
    by_label: dict[str, list[Reject]] = {}
    for reject in (*inventory.rejects, *rejects):
        if label := folders.label(reject.name):
            by_label.setdefault(label, []).append(reject)
    return {
        label: "".join(f"; {count} {reason}" for reason, count in count_reasons(each).items())
        for label, each in by_label.items()
    }


def _keys(data: ImageData, inventory: Inventory) -> dict[str, str]:
    """The group or moment of each image; nothing where each is dealt by itself."""
    if data.split.together is None or inventory.manifest is None:
        return {}
    return {name: each.key for name, each in inventory.manifest.named.items()}


def _said(data: ImageData, inventory: Inventory) -> tuple[str, ...]:
    """Which columns were taken, where there are any."""
    if holds_rows(inventory):
        return (find_picture_columns(inventory.files[0], data.label).says,)
    return () if inventory.manifest is None else (inventory.manifest.says,)


def _chunks(chosen: list[int], row_bytes: int) -> Iterator[list[int]]:
    step = max(1, _CHUNK_BYTES // row_bytes)
    return (chosen[start : start + step] for start in range(0, len(chosen), step))


def _write_split(draft: Draft, part: str, images: list[Seen], rows: np.ndarray, labels: tuple[str, ...]) -> None:
    number = {label: index for index, label in enumerate(labels)}
    with draft.rows(part, "x", np.dtype(np.uint8), rows.shape[1:]) as file:
        for chunk in _chunks([image.row for image in images], rows[0].nbytes):
            file.append(rows[chunk])
    with draft.rows(part, "y", np.dtype(np.int64), ()) as file:
        file.append(np.array([number[image.label] for image in images], np.int64))


def _statistics(rows: np.ndarray, chosen: list[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, pixels scaled to 0..1; summed in whole numbers, so exact."""
    channels = rows.shape[-1]
    total = np.zeros(channels, np.uint64)
    squares = np.zeros(channels, np.uint64)
    count = 0
    for chunk in _chunks(chosen, rows[0].nbytes):
        # images are added up before pixels are: over three channels at a time NumPy takes several times as long
        values = rows[chunk].reshape(len(chunk), -1)
        total += values.sum(0, dtype=np.uint64).reshape(-1, channels).sum(0)
        squares += np.square(values, dtype=np.uint16).sum(0, dtype=np.uint64).reshape(-1, channels).sum(0)
        count += values.size // channels
    mean = [int(value) / count for value in total]
    variance = [max(0.0, int(value) / count - m * m) for value, m in zip(squares, mean, strict=True)]
    # a flat channel has nothing to scale; one grey level is the least that a pixel can differ by
    deviation = [max(1.0, value**0.5) for value in variance]
    return tuple(m / 255 for m in mean), tuple(d / 255 for d in deviation)


def _notes(shape: Shape, kept: list[Seen], reasons: dict[str, int]) -> list[str]:
    notes = []
    missing = not_given(kept)
    if missing and any(image.split for image in kept):
        notes.append(f"nothing is named after {' and '.join(missing)}: dealt from the training images")
    sizes = {(image.width, image.height) for image in kept}
    if len(sizes) > 1:
        low, high = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
        notes.append(
            f"images of {len(sizes):,} sizes, {low[0]}x{low[1]} to {high[0]}x{high[1]}, were brought to "
            f"{shape.size}x{shape.size}"
        )
    colored = sum(not image.gray for image in kept)
    if shape.color == "gray" and colored:
        notes.append(f"{colored:,} images in colour were made gray")
    given_up = Counter(told for image in kept for told in image.told)
    notes += [f"{count:,} images: {told}" for told, count in given_up.most_common()]
    doubtful = [reason for reason in reasons if reason.startswith("same image under labels ")]
    notes += [f"{reason}: {reasons[reason]} files, all put aside" for reason in doubtful]
    return notes
