"""RandAugment: some changes out of fourteen for each image, all of one strength (Cubuk et al. 2020).

What a change does at full strength is as in AutoAugment (Cubuk et al. 2019, table 6). Where an image has moved away,
its data set's mean colour is seen.

Shapes: b images, H, W pixels, C channels, N samples of a split, K changes of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from thrifty.data.images.colours import brighten, by_table, contrast, saturate, weighted
from thrifty.data.order import generator_of
from thrifty.spec import RandAugment

FULL_MAGNITUDE = 30
_STREAM = 3
_DEGREES, _SHEAR, _SHARE_MOVED, _COLOUR, _BITS = 30.0, 0.3, 150 / 331, 0.9, 4
_VALUES = np.arange(256)

Blank = tuple[int, ...]
Change = Callable[[np.ndarray, float, Blank], np.ndarray]


def _moved(
    image: np.ndarray, across: tuple[float, float, float], down: tuple[float, float, float], blank: Blank
) -> np.ndarray:
    """Take each pixel from where two rows of a matrix say, counted from the middle of the image."""
    matrix = np.array([across, down])
    middle = (np.array(image.shape[1::-1]) - 1) / 2
    matrix[:, 2] += middle - matrix[:, :2] @ middle
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(image, matrix, image.shape[1::-1], flags=way, borderValue=blank)
    return np.asarray(found).reshape(image.shape)


def _shear_across(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    return _moved(image, (1, _SHEAR * by, 0), (0, 1, 0), blank)


def _shear_down(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    return _moved(image, (1, 0, 0), (_SHEAR * by, 1, 0), blank)


def _move_across(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    return _moved(image, (1, 0, _SHARE_MOVED * by * image.shape[1]), (0, 1, 0), blank)


def _move_down(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    return _moved(image, (1, 0, 0), (0, 1, _SHARE_MOVED * by * image.shape[0]), blank)


def _rotate(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    angle = math.radians(_DEGREES * by)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _moved(image, (cosine, sine, 0), (-sine, cosine, 0), blank)


def _sharpen(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    """Go away from a smoothed image, or towards it where ``by`` is below 0."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    smooth = np.asarray(cv2.filter2D(image, -1, kernel)).reshape(image.shape)
    factor = 1 + _COLOUR * by
    return weighted(image, factor, smooth, 1 - factor)


def _posterize(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    """Leave out the last bits of every value, four of eight at full strength."""
    dropped = round(_BITS * abs(by))
    return by_table(image, _VALUES >> dropped << dropped)


def _solarize(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    """Turn round every value above a limit, which falls from 256 to 0."""
    return by_table(image, np.where(256 * (1 - abs(by)) <= _VALUES, 255 - _VALUES, _VALUES))


def _stretch(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    """Stretch the values of each channel to all that there are."""
    low_C, high_C = (image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32))
    flat_C = high_C <= low_C
    scale_C = np.where(flat_C, 1, 255 / np.where(flat_C, 1, high_C - low_C))
    return by_table(image, (_VALUES[:, None] - np.where(flat_C, 0, low_C)) * scale_C)


def _equalize(image: np.ndarray, by: float, blank: Blank) -> np.ndarray:
    """Give each channel about as many pixels of every value."""
    channels = [cv2.equalizeHist(np.ascontiguousarray(image[:, :, each])) for each in range(image.shape[2])]
    return np.stack(channels, axis=-1)


# Each takes an image, a strength from -1 to 1, and what is seen where nothing is. Some know no direction.
CHANGES: dict[str, Change] = {
    "nothing": lambda image, by, blank: image,
    "shear across": _shear_across,
    "shear down": _shear_down,
    "move across": _move_across,
    "move down": _move_down,
    "rotate": _rotate,
    "brightness": lambda image, by, blank: brighten(image, 1 + _COLOUR * by),
    "contrast": lambda image, by, blank: contrast(image, 1 + _COLOUR * by),
    "saturation": lambda image, by, blank: saturate(image, 1 + _COLOUR * by),
    "sharpness": _sharpen,
    "posterize": _posterize,
    "solarize": _solarize,
    "stretch": _stretch,
    "equalize": _equalize,
}


class RandomChanges:
    """Which changes each sample of a split gets in an epoch.

    Args:
        asked: how many and how strong.
        blank_C: uint8, what is seen where nothing is.
        count: samples of the split.
        seed: of the draws.
    """

    def __init__(self, asked: RandAugment, *, blank_C: np.ndarray, count: int, seed: int) -> None:
        self._asked, self._count, self._seed = asked, count, seed
        self._blank = tuple(int(value) for value in blank_C)
        self._changes = tuple(CHANGES.values())

    def begin(self, epoch: int) -> None:
        """Draw for an epoch."""
        generator = generator_of(self._seed, epoch, _STREAM)
        size = self._count, self._asked.changes
        self._which_NK = generator.integers(len(self._changes), size=size, dtype=np.int8)
        self._sign_NK = generator.integers(2, size=size, dtype=np.int8) * 2 - 1

    def change(self, images_bHWC: np.ndarray, chosen_b: np.ndarray) -> None:
        """Change images in place; ``chosen_b`` is the number of each in its split."""
        strength = self._asked.magnitude / FULL_MAGNITUDE
        which_bK, sign_bK = self._which_NK[chosen_b].tolist(), self._sign_NK[chosen_b].tolist()
        for image, which_K, sign_K in zip(images_bHWC, which_bK, sign_bK, strict=True):
            changed = image
            for which, sign in zip(which_K, sign_K, strict=True):
                changed = self._changes[which](changed, sign * strength, self._blank)
            image[:] = changed
