"""Training images made of two: mixup and cutmix. Seed, epoch and sample alone decide with which other, and how.

So an image is mixed with any of its split, whatever step or micro-batch that is in, on whichever rank.

Shapes: b images, H, W pixels, C channels, N samples of a split.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from thrifty.data.order import generator_of
from thrifty.spec import Augment

_STREAM = 2


class Mixing:
    """With which other sample each of a split is mixed in an epoch, and how.

    Args:
        augment: what is wanted.
        count: samples of the split.
        seed: of the draws.
    """

    def __init__(self, augment: Augment, *, count: int, seed: int) -> None:
        self._augment, self._count, self._seed = augment, count, seed

    def begin(self, epoch: int) -> None:
        """Draw for an epoch."""
        generator, count = generator_of(self._seed, epoch, _STREAM), self._count
        self._other_N = generator.integers(count, size=count)
        coin_N, self._down_N, self._right_N = generator.random((3, count), np.float32)
        mixup, cutmix = self._augment.mixup, self._augment.cutmix
        self._cut_N = coin_N < 0.5 if mixup and cutmix else np.full(count, bool(cutmix))
        through_N, area_N = (generator.beta(a or 1.0, a or 1.0, size=count) for a in (mixup, cutmix))
        self._share_N = np.where(self._cut_N, area_N, through_N)

    def others(self, chosen_b: np.ndarray) -> np.ndarray:
        """Return with which sample each is mixed."""
        return np.asarray(self._other_N[chosen_b])

    def __call__(
        self, images_bHWC: np.ndarray, others_bHWC: np.ndarray, chosen_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix images with others.

        Args:
            images_bHWC: uint8; changed in place.
            others_bHWC: uint8, of `others`.
            chosen_b: the number of each image in its split.

        Returns:
            the images, and how much of each is its own, float32 [b].
        """
        height, width = images_bHWC.shape[1:3]
        own_b = self._share_N[chosen_b].astype(np.float32)
        for at, (number, cut) in enumerate(zip(chosen_b.tolist(), self._cut_N[chosen_b].tolist(), strict=True)):
            image, other, own = images_bHWC[at], others_bHWC[at], float(own_b[at])
            if cut:
                place = self._rectangle(number, own, height, width)
                image[place] = other[place]
                rows, columns = (each.stop - each.start for each in place)
                own_b[at] = 1 - rows * columns / (height * width)
            else:
                cv2.addWeighted(image, own, other, 1 - own, 0.0, dst=image)
        return images_bHWC, own_b

    def _rectangle(self, number: int, own: float, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a sample that come from its other: as much of the image as is not its own.

        The middle is a pixel of the image, and what would lie outside is left out (Yun et al. 2019).
        """
        side = math.sqrt(1 - own)
        tall, wide = round(side * height), round(side * width)
        top = int(self._down_N[number] * height) - tall // 2
        left = int(self._right_N[number] * width) - wide // 2
        return slice(max(top, 0), min(top + tall, height)), slice(max(left, 0), min(left + wide, width))
