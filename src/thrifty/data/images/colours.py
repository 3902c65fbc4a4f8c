"""Changes of the colours of an image: brightness, contrast, saturation, and what is done to each value alone.

Shapes: H, W pixels, C channels, 1 (gray) or 3 (red, green, blue). Images are uint8 [H, W, C] in and out; a factor of 1
leaves an image as it is.
"""

from __future__ import annotations

import cv2
import numpy as np

# luma of ITU-R BT.601, as `thrifty.data.images.image.fit` makes gray
_LUMA = np.array([0.299, 0.587, 0.114])


def brighten(image_HWC: np.ndarray, factor: float) -> np.ndarray:
    """Multiply every value.

    >>> brighten(np.full((1, 1, 1), 100, np.uint8), 1.5).item()
    150
    """
    return weighted(image_HWC, factor, image_HWC, 0.0)


def contrast(image_HWC: np.ndarray, factor: float) -> np.ndarray:
    """Multiply how far every value is from the mean gray of the image."""
    means = cv2.mean(image_HWC)
    gray = means[0] if image_HWC.shape[2] == 1 else float(_LUMA @ means[:3])
    return weighted(image_HWC, factor, image_HWC, 0.0, (1 - factor) * gray)


def saturate(image_HWC: np.ndarray, factor: float) -> np.ndarray:
    """Multiply how far every pixel is from its own gray; what is gray stays as it is."""
    if image_HWC.shape[2] == 1:
        return image_HWC
    return np.asarray(cv2.transform(image_HWC, factor * np.eye(3) + (1 - factor) * _LUMA))


def weighted(
    image_HWC: np.ndarray, of_one: float, other_HWC: np.ndarray, of_other: float, more: float = 0.0
) -> np.ndarray:
    """Add two images, so much of each, and a number; rounded to what a pixel can be."""
    return np.asarray(cv2.addWeighted(image_HWC, of_one, other_HWC, of_other, more)).reshape(image_HWC.shape)


def by_table(image_HWC: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Put in place of each value what a table of 256 has for it, rounded to what a pixel can be; or one of each channel
    [256, C].
    """
    table = np.rint(np.clip(table, 0, 255)).astype(np.uint8)
    shaped = table if table.ndim == 1 else table[None]
    return np.asarray(cv2.LUT(image_HWC, shaped)).reshape(image_HWC.shape)
