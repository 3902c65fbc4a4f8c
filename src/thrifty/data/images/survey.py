"""Looks at every image: decides size and colour, decodes, fits, and says what was seen.

Memory holds one decoded image per thread.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from thrifty.data.images.image import CHANNELS, fit, is_gray
from thrifty.data.images.pictures import Picture, Unreadable
from thrifty.data.inputs import Reject
from thrifty.data.split import rank
from thrifty.data.teller import Teller
from thrifty.errors import DataError
from thrifty.spec import ImageData
from thrifty.spec.events import Emit

SAMPLED_IMAGES = 512
SMALLEST_SIDE, LARGEST_SIDE = 8, 224
_CHUNK_FILES, _TASK_FILES = 256, 8
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learned of one decoded image; ``row`` is its place in the scratch file, the rest as of a `Picture`."""

    name: str
    label: str
    split: str
    row: int
    digest: bytes
    gray: bool
    width: int
    height: int
    rank: bytes
    told: tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """What every image is brought to; the notes say how that was decided."""

    size: int
    color: str
    notes: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one image in the store."""
        return math.prod(self.row_shape)

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image in the store."""
        return self.size, self.size, CHANNELS[self.color]


def decide_shape(data: ImageData, pictures: Sequence[Picture], rejects: Sequence[Reject], seed: int) -> Shape:
    """Size and colour: as the job says, else from the first readable images of the seeded order.

    Raises:
        DataError: none can be read; it counts why, the rejects of files among them.
    """
    order = sorted(range(len(pictures)), key=lambda at: rank(seed, pictures[at].sha256, pictures[at].name))
    wanted = 1 if data.size and data.color else SAMPLED_IMAGES
    sampled: list[tuple[int, int, bool]] = []
    while order and len(sampled) < wanted:
        some, order = order[: wanted - len(sampled)], order[wanted - len(sampled) :]
        # those chosen are read in the order they lie in: rows of one row group one after another
        for at in sorted(some):
            try:
                image, _ = pictures[at].read()
            except Unreadable:
                continue
            sampled.append((image.shape[0], image.shape[1], is_gray(image)))
    if not sampled:
        raise _nothing_readable(data, pictures, rejects)
    notes: list[str] = []
    size, color = data.size, data.color
    if size is None:
        size, note = decide_size([(height, width) for height, width, _ in sampled])
        notes.append(note)
    if color is None:
        colored = sum(not gray for _, _, gray in sampled)
        color = "rgb" if colored else "gray"
        notes.append(f"color {color}: {colored:,} of the {len(sampled):,} images looked at have colour")
    return Shape(size, color, tuple(notes))


def decide_size(shapes: list[tuple[int, int]]) -> tuple[int, str]:
    """Choose the side to resize to from (height, width) of some images; return it with the reason.

    The side that all images have is kept. Else the median, to the nearest multiple of four, so that a network that
    halves its maps twice does so without remainder. Nothing above 224, the size ImageNet models are trained at.
    Nothing below 8: a small ResNet's last maps are a quarter of the side, and on less than 2x2 its 3x3 filters see
    mostly padding. Sides from 8 to 15 stay: enlarging them fourfold in area costs four times the compute and adds
    no information.
    """
    side = median_low(min(shape) for shape in shapes)
    if side < SMALLEST_SIDE:
        return (
            SMALLEST_SIDE,
            f"size {SMALLEST_SIDE}: images of {side} pixels are enlarged, for three stages of a ResNet",
        )
    if side > LARGEST_SIDE:
        return LARGEST_SIDE, f"size {LARGEST_SIDE}: the median side is {side} pixels; set data.size to keep more"
    if len(set(shapes)) == 1:
        small = "; enlarging them would cost compute and add no information" if side < 16 else ""
        return side, f"size {side}: the shorter side of every image looked at{small}"
    rounded = max(SMALLEST_SIDE, (side + 2) // 4 * 4)
    return rounded, f"size {rounded}: the median of the shorter sides is {side} pixels"


def _nothing_readable(data: ImageData, pictures: Sequence[Picture], rejects: Sequence[Reject]) -> DataError:
    reasons: Counter[str] = Counter(reject.reason for reject in rejects)
    for picture in pictures:
        try:
            picture.read()
        except Unreadable as error:
            reasons[error.what.split(": ")[0]] += 1
    found = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return DataError(
        f"no image in '{data.path}' can be read ({found})", mend="Images are PNG, JPEG, BMP, GIF, WebP or TIFF files."
    )


def decode_all(
    data: ImageData, pictures: Sequence[Picture], shape: Shape, seed: int, scratch: Path, emit: Emit
) -> tuple[list[Seen], list[Reject]]:
    """Decode every image, write it fitted into its row of the scratch file, and say what was seen."""
    seen: list[Seen] = []
    rejects: list[Reject] = []
    handle = os.open(scratch, os.O_RDWR | os.O_CREAT, 0o644)

    def work(row: int) -> Seen | Reject:
        picture = pictures[row]
        try:
            image, told = picture.read()
        except Unreadable as error:
            reason, colon, detail = error.what.partition(": ")
            return Reject(picture.name, reason, colon + detail)
        _write_at(handle, fit(image, size=shape.size, color=shape.color, crop=data.crop), row * shape.row_bytes)
        height, width = image.shape[:2]
        gray = is_gray(image)
        pixels = image[:, :, :1] if gray else image
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
        place = rank(seed, picture.sha256, picture.name)
        return Seen(picture.name, picture.label, picture.split, row, digest, gray, width, height, place, told)

    teller = Teller(len(pictures), emit, "images")
    numbers = range(len(pictures))
    try:
        os.truncate(handle, len(pictures) * shape.row_bytes)
        with ThreadPoolExecutor(_THREADS) as pool:
            for rows in _runs(numbers, _CHUNK_FILES):
                # a task of one small image costs as much as the image
                tasks = pool.map(lambda some: [work(row) for row in some], _runs(rows, _TASK_FILES))
                for found in itertools.chain.from_iterable(tasks):
                    if isinstance(found, Reject):
                        rejects.append(found)
                    else:
                        seen.append(found)
                teller.count(len(rows))
    finally:
        os.close(handle)
    return seen, rejects


def _runs(numbers: range, length: int) -> Iterator[range]:
    return (numbers[start : start + length] for start in range(0, len(numbers), length))


def _write_at(handle: int, image: np.ndarray, place: int) -> None:
    content = memoryview(image.tobytes())
    while content:
        # unlike a mapped page, a write that finds the disk full is an error and not a killed process
        written = os.pwrite(handle, content, place)
        content, place = content[written:], place + written
