"""`Augment`: how samples are changed as they are trained on, which teaches a model what does not matter."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from thrifty.spec.plain import Plain

Pixels = Annotated[int, Field(ge=0, le=512)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, le=100)]
# the fields of `Augment` that are of recordings
SOUND_CHANGES = ("stretch", "warp", "colour", "noise", "blank_bands", "blank_frames")


class RandAugment(Plain):
    """Some changes out of fourteen for each image, all of one strength (Cubuk et al. 2020).

    Attributes:
        changes: for each image; 0 for none.
        magnitude: of 30; how far each change goes.
    """

    changes: Annotated[int, Field(ge=0, le=14)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


class Augment(Plain):
    """Changes drawn anew for each training image or recording in each epoch; left out, they are trained on as they are.

    Those from ``stretch`` on are of recordings, the others of images.

    Attributes:
        flip: half of the images are mirrored, left to right. Not for what has a right way round, such as digits.
        crop: pixels of margin put around an image, out of which a window of its own size is cut (He et al. 2016).
        brightness, contrast, saturation: each is multiplied by what is drawn from 1 less so much to 1 and so much.
        randaugment: changes out of many, `RandAugment`.
        cutout: side of a square that is blanked at a random place, which may lie partly outside (DeVries and Taylor
            2017).
        mixup: another image of the split shows through, and counts in the answer as much; the share is drawn from
            Beta(a, a), of which this is a (Zhang et al. 2018).
        cutmix: a rectangle comes from another image of the split, which counts in the answer by its area; the share is
            drawn as for mixup (Yun et al. 2019). With both, an image gets the one or the other.
        stretch: a recording becomes up to ``exp`` of so much longer or shorter, its pitch kept.
        warp: its bands move up or down by up to ``exp`` of so much, as with another speaker (Jaitly and Hinton 2013).
        colour: deviation, in nepers of energy, by which each part of the bands is louder or softer, as with another
            microphone.
        noise: half of the recordings get noise, at most so many decibels under their loudest band, of waves under the
            whole; 0 for none.
        blank_bands, blank_frames: the widest of two stripes of bands and two of time that are blanked (SpecAugment:
            Park et al. 2019); one of time takes no more than a fifth of a recording.
    """

    flip: bool = False
    crop: Pixels = 0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    randaugment: RandAugment = RandAugment(changes=0)
    cutout: Pixels = 0
    mixup: Beta = 0.0
    cutmix: Beta = 0.0
    stretch: Share = 0.0
    warp: Share = 0.0
    colour: Annotated[float, Field(ge=0, le=10)] = 0.0
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    blank_bands: Annotated[int, Field(ge=0, le=256)] = 0
    blank_frames: Annotated[int, Field(ge=0, le=1000)] = 0

    @property
    def mixes(self) -> bool:
        """Whether an image is made of two, and so has two answers."""
        return bool(self.mixup or self.cutmix)

    @property
    def of_sound(self) -> tuple[str, ...]:
        """The changes asked for that are of recordings.

        >>> Augment(noise=15, blank_bands=4).of_sound
        ('noise', 'blank_bands')
        """
        asked = self.model_dump(exclude_defaults=True)
        return tuple(name for name in SOUND_CHANGES if name in asked)

    @property
    def of_images(self) -> tuple[str, ...]:
        """The changes asked for that are of images."""
        return tuple(name for name in self.model_dump(exclude_defaults=True) if name not in SOUND_CHANGES)

    @property
    def says(self) -> str:
        """What is done, in words; an empty string for nothing.

        >>> Augment(flip=True, crop=4).says
        'flip, crop within 4 pixels of margin'
        """
        rand = self.randaugment
        said = {
            "flip": self.flip,
            f"crop within {self.crop} pixels of margin": self.crop,
            f"brightness by {self.brightness:g}": self.brightness,
            f"contrast by {self.contrast:g}": self.contrast,
            f"saturation by {self.saturation:g}": self.saturation,
            f"RandAugment({rand.changes}, {rand.magnitude})": rand.changes,
            f"cutout of {self.cutout} pixels": self.cutout,
            f"mixup by Beta({self.mixup:g})": self.mixup,
            f"cutmix by Beta({self.cutmix:g})": self.cutmix,
            f"stretch by {self.stretch:g}": self.stretch,
            f"warp by {self.warp:g}": self.warp,
            f"colour by {self.colour:g}": self.colour,
            f"noise from {self.noise:g} dB down": self.noise,
            f"blank {self.blank_bands} bands": self.blank_bands,
            f"blank {self.blank_frames} frames": self.blank_frames,
        }
        return ", ".join(words for words, wanted in said.items() if wanted)
