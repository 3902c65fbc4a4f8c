"""`Augment`: how images are changed as they are trained on, which teaches a model what does not matter."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from thrifty.spec.plain import Plain

Pixels = Annotated[int, Field(ge=0, le=512)]


class Augment(Plain):
    """Changes that are drawn anew for each training image in each epoch; left out, images are trained on as they are.

    Attributes:
        flip: half of the images are mirrored, left to right. Not for what has a right way round, such as digits.
        crop: pixels of margin put around an image, out of which a window of its own size is cut (He et al. 2016).
        cutout: side of a square that is blanked at a random place, which may lie partly outside (DeVries and Taylor
            2017).
    """

    flip: bool = False
    crop: Pixels = 0
    cutout: Pixels = 0

    @property
    def says(self) -> str:
        """What is done, in words; an empty string for nothing.

        >>> Augment(flip=True, crop=4).says
        'flip, crop within 4 pixels of margin'
        """
        said = {
            "flip": self.flip,
            f"crop within {self.crop} pixels of margin": self.crop,
            f"cutout of {self.cutout} pixels": self.cutout,
        }
        return ", ".join(words for words, wanted in said.items() if wanted)
