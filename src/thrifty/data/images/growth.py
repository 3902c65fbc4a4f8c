"""Images that grow while a model learns from them: first small ones, which cost less, at the end those as prepared.

Howard 2018, "Training ImageNet in 3 hours for 25 minutes"; the course of the sides is that of Composer's progressive
resizing (MosaicML 2021): half of the steps small, the last fifth whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from thrifty.spec import Dataset, Plan

# shares of the steps up to which sides stay as they begin, and from which on they are whole
STEADY, WHOLE = 0.5, 0.8
# a network that halves its maps twice does so without remainder; and each side more is new kernels to prepare
_MULTIPLE = 4


@dataclass(frozen=True)
class Growth:
    """The side of the images of each step.

    Attributes:
        side: as prepared.
        begin: the share of it that the first steps have; 1 for no growth.
        steps: of the whole training.
    """

    side: int
    begin: float
    steps: int

    def at(self, step: int) -> int:
        """Return the side at a step, counted from 0.

        >>> [Growth(32, 0.5, 100).at(step) for step in (0, 50, 65, 79, 80)]
        [16, 16, 24, 32, 32]
        """
        grown = min(max((step / max(self.steps, 1) - STEADY) / (WHOLE - STEADY), 0.0), 1.0)
        share = self.begin + (1 - self.begin) * grown
        return self.side if share == 1 else min(self.side, max(1, round(self.side * share / _MULTIPLE)) * _MULTIPLE)

    @cached_property
    def area_share(self) -> float:
        """How many pixels images have in the mean over all steps, of those they have at the end."""
        some = range(0, self.steps, max(1, self.steps // 1000))
        return sum(self.at(step) ** 2 for step in some) / len(some) / self.side**2

    @property
    def mean_side(self) -> int:
        """The side of images of the mean number of pixels, by which time goes."""
        return round(self.side * math.sqrt(self.area_share))


def growth_of(plan: Plan, dataset: Dataset) -> Growth | None:
    """Return how a plan's images grow; None where they do not."""
    if plan.progressive == 1:
        return None
    return Growth(dataset.shape[1], plan.progressive, plan.optim.total_steps)


def shrunk(images_bHWC: np.ndarray, side: int) -> np.ndarray:
    """Bring images to a smaller side, averaged by area: uint8 [b, side, side, C]."""
    if images_bHWC.shape[1] == side:
        return images_bHWC
    small = np.empty((len(images_bHWC), side, side, images_bHWC.shape[3]), np.uint8)
    for image, to in zip(images_bHWC, small, strict=True):
        to[:] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).reshape(to.shape)
    return small
