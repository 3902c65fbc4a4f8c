"""Images from bytes to the model's input: decode, fit to one size, normalise. Training and serving both use these.

Shapes: H, W height and width in pixels; C channels, 1 (gray) or 3 (red, green, blue); N images.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from thrifty.data.images.header import read_header
from thrifty.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
CHANNELS = {"gray": 1, "rgb": 3}
# the gray beside a letterboxed image: about the mean of photographs, as YOLOv5 has it
_BAND = 114
# what is given up of an image, as the report tells it
SIXTEEN_BITS = "16 bits a channel, scaled to 8"
ON_WHITE = "see-through, laid on white"
FIRST_OF_SEVERAL = "several pictures in a file, of which the first was taken"


def decode(raw: bytes, *, max_pixels: int) -> np.ndarray:
    """As `decoded`, the pixels alone."""
    return decoded(raw, max_pixels=max_pixels)[0]


def decoded(raw: bytes, *, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode a PNG, JPEG, BMP, GIF, WebP or TIFF image, the first picture where it holds several.

    EXIF orientation is applied, save to TIFF images with an alpha channel. Alpha is composited on white; that of BMP is
    dropped. 16 bits a channel become 8; palettes and CMYK become colours.

    Args:
        raw: the file's bytes.
        max_pixels: an image whose header says more is refused before it is decoded.

    Returns:
        uint8 [H, W, C] with C 1 for an image stored as gray, else 3; and what of it was given up for that.

    Raises:
        DataError: "not an image", "empty", "truncated", "damaged", "too many pixels", "not of 8 or 16 bits"; the
            detail after a colon.
    """
    header = read_header(raw)
    if header.width * header.height > max_pixels:
        raise DataError(f"too many pixels: {header.width}x{header.height} is over {max_pixels:,}")
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"damaged: {str(error).splitlines()[0]}") from error
    if image is None:
        raise DataError(f"damaged: its {header.format} data cannot be decoded")
    told = [FIRST_OF_SEVERAL] if header.several else []
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
        told += [SIXTEEN_BITS] if header.deep else []
    if image.dtype != np.uint8:
        raise DataError(f"not of 8 or 16 bits: its pixels are {image.dtype}")
    if image.ndim == 2:
        return image[:, :, None], tuple(told)
    if image.shape[2] == 4:
        told += [ON_WHITE] if image[:, :, 3].min() < 255 else []
        # cv2 turns what it gives no alpha of
        image = turned(_on_white(image), header.turn)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), tuple(told)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Set an image [H, W, C] upright (Exif 2.3, tag 274).

    >>> turned(np.zeros((2, 3, 1), np.uint8), 6).shape
    (3, 2, 1)
    """
    # of the eight, the last four are seen across the diagonal
    image = image.swapaxes(0, 1) if orientation > 4 else image
    down, right = orientation in {3, 4, 7, 8}, orientation in {2, 3, 6, 7}
    return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if right else 1])


def _on_white(image_HW4: np.ndarray) -> np.ndarray:
    alpha = image_HW4[:, :, 3:].astype(np.uint16)
    color = image_HW4[:, :, :3].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def is_gray(image: np.ndarray) -> bool:
    """Say whether an image [H, W, C] holds no colour: one channel, or three that are equal."""
    if image.shape[2] == 1:
        return True
    # most images in colour have some in their middle row
    return all(
        np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2])
        for part in (image[len(image) // 2], image)
    )


def fit(image: np.ndarray, *, size: int, color: str, crop: str) -> np.ndarray:
    """Bring an image to the one size and colour of a data set.

    Pixels are averaged by area when the image shrinks, interpolated linearly when it grows.

    Args:
        image: uint8 [H, W, C] as from `decode`.
        size: side in pixels.
        color: ``gray`` (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601) or ``rgb``.
        crop: ``center`` cuts the largest centred square first; ``none`` squeezes the whole image; ``letterbox`` shrinks
            or grows it as it is, in the middle of a square of gray 114.

    Returns:
        uint8 [size, size, C].

    >>> fit(np.zeros((20, 30, 3), np.uint8), size=8, color="gray", crop="center").shape
    (8, 8, 1)
    """
    if color == "gray" and image.shape[2] == 3:
        # three equal channels stay exactly as they are; the weighted sum may round them
        image = image[:, :, :1] if is_gray(image) else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    height, width = image.shape[:2]
    if crop == "letterbox":
        longest = max(height, width)
        inner = _resized(image, *(max(1, round(size * side / longest)) for side in (height, width)))
        image = np.full((size, size, inner.shape[2]), _BAND, np.uint8)
        top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
        image[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    else:
        if crop == "center":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
        image = _resized(image, size, size)
    if image.shape[2] != CHANNELS[color]:
        image = np.broadcast_to(image, (size, size, CHANNELS[color]))
    return np.ascontiguousarray(image)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    found = cv2.resize(image, (width, height), interpolation=way)
    return np.asarray(found).reshape(height, width, -1)


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Scale pixels to 0..1, subtract the mean and divide by the deviation of each channel.

    Args:
        images: uint8 [N, H, W, C].
        mean, std: per channel, of pixels scaled to 0..1.

    Returns:
        float32 [N, C, H, W]; a view of memory laid out [N, H, W, C] ("channels last").

    >>> normalise(np.full((1, 2, 2, 1), 255, np.uint8), (0.5,), (0.25,))[0, 0, 0, 0]
    np.float32(2.0)
    """
    count, height, width, _ = images.shape
    factor, shift = _scale(tuple(mean), tuple(std), height * width)
    scaled = images.reshape(count, -1).astype(np.float32)
    scaled *= factor
    scaled -= shift
    return scaled.reshape(images.shape).transpose(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _scale(mean: tuple[float, ...], std: tuple[float, ...], pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """What each value of an image is multiplied by, and what is then taken away.

    Laid out for all of its pixels: over the three values of one at a time NumPy takes ten times as long.
    """
    deviation = np.asarray(std, np.float32)
    return (
        np.tile(np.float32(1 / 255) / deviation, pixels),
        np.tile(np.asarray(mean, np.float32) / deviation, pixels),
    )
