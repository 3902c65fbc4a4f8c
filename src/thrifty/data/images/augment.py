"""Training images changed by chance, as `thrifty.spec.Augment` says: seed, epoch and sample alone decide how.

So neither the order of the samples, nor how a step is cut, nor where a run was resumed bears on what is drawn.

Shapes: b images, H, W pixels, C channels, N samples of a split.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from thrifty.data.images.colours import brighten, contrast, saturate
from thrifty.data.images.rand_augment import RandomChanges
from thrifty.data.order import generator_of
from thrifty.spec import Augment

_COLOURS = {"brightness": brighten, "contrast": contrast, "saturation": saturate}
# all are drawn whatever is asked for, so that one change more leaves the others as they were
_DRAWS = ("flip", "crop down", "crop right", "cutout down", "cutout right", *_COLOURS)
_STREAM = 1


class Augmentation:
    """What is drawn for each sample of a split in an epoch, and how it changes images.

    Args:
        augment: what is wanted.
        mean: of each channel, of pixels scaled to 0..1; what is not there is filled with it.
        count: samples of the split.
        seed: of the draws.
    """

    def __init__(self, augment: Augment, *, mean: Sequence[float], count: int, seed: int) -> None:
        self.augment, self._count, self._seed = augment, count, seed
        self._blank_C = np.rint(255 * np.asarray(mean)).astype(np.uint8)
        self._changes: RandomChanges | None = None
        if augment.randaugment.changes:
            self._changes = RandomChanges(augment.randaugment, blank_C=self._blank_C, count=count, seed=seed)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw for an epoch."""
        generator = generator_of(self._seed, epoch, _STREAM)
        self._draws = {name: generator.random(self._count, np.float32) for name in _DRAWS}
        if self._changes is not None:
            self._changes.begin(epoch)

    def __call__(self, images_bHWC: np.ndarray, chosen_b: np.ndarray) -> np.ndarray:
        """Change images.

        Args:
            images_bHWC: uint8; left as they are.
            chosen_b: the number of each in its split.

        Returns:
            uint8 [b, H, W, C].
        """
        images_bHWC = images_bHWC.copy()
        if self.augment.flip:
            for at in np.flatnonzero(self._draws["flip"][chosen_b] < 0.5):
                images_bHWC[at] = cv2.flip(images_bHWC[at], 1).reshape(images_bHWC.shape[1:])
        if self.augment.crop:
            self._crop(images_bHWC, chosen_b)
        for name, change in _COLOURS.items():
            if width := getattr(self.augment, name):
                factors_b = 1 + width * (2 * self._draws[name][chosen_b] - 1)
                for image, factor in zip(images_bHWC, factors_b.tolist(), strict=True):
                    image[:] = change(image, factor)
        if self._changes is not None:
            self._changes.change(images_bHWC, chosen_b)
        if self.augment.cutout:
            self._cut_out(images_bHWC, chosen_b)
        return images_bHWC

    def _crop(self, images_bHWC: np.ndarray, chosen_b: np.ndarray) -> None:
        margin, (height, width) = self.augment.crop, images_bHWC.shape[1:3]
        blank = tuple(int(value) for value in self._blank_C)
        down_b, right_b = (self._places(name, chosen_b, 2 * margin + 1) for name in ("crop down", "crop right"))
        for image, down, right in zip(images_bHWC, down_b, right_b, strict=True):
            framed = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=blank)
            image[:] = framed[down : down + height, right : right + width].reshape(image.shape)

    def _cut_out(self, images_bHWC: np.ndarray, chosen_b: np.ndarray) -> None:
        side, (height, width) = self.augment.cutout, images_bHWC.shape[1:3]
        # the middle of the square is a pixel of the image
        down_b, right_b = (
            self._places(name, chosen_b, size) - side // 2
            for name, size in (("cutout down", height), ("cutout right", width))
        )
        for image, down, right in zip(images_bHWC, down_b, right_b, strict=True):
            image[max(down, 0) : max(down + side, 0), max(right, 0) : max(right + side, 0)] = self._blank_C

    def _places(self, name: str, chosen_b: np.ndarray, places: int) -> np.ndarray:
        """A place of so many for each image, all alike likely."""
        return np.minimum((self._draws[name][chosen_b] * places).astype(np.int64), places - 1)
