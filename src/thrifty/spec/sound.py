"""`Sound`: how recordings become frames of numbers, the same for training and for serving."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from thrifty.spec.plain import Plain

Features = Literal["log_mel", "mfcc", "wave"]

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
# samples of a frame of a wave: the strides of wav2vec 2.0's convolutions together
CUT_SAMPLES = 320
# frames of which a transcriber makes one that it answers for: of bands four, of a wave each
BANDS_STRIDE, WAVE_STRIDE = 4, 1


class Sound(Plain):
    """The frames of a recording.

    Attributes:
        rate: samples a second that every recording is brought to.
        features: ``log_mel``, the log energies of mel bands; ``mfcc``, their cepstral coefficients; or ``wave``, the
            samples themselves, cut into frames that do not overlap.
        bands: mel bands; nothing to a wave.
        coefficients: of ``mfcc``, how many are kept.
    """

    rate: Annotated[int, Field(ge=4_000, le=48_000)]
    features: Features = "log_mel"
    bands: Annotated[int, Field(ge=8, le=256)] = 80
    coefficients: Annotated[int, Field(ge=2, le=256)] = 13

    @property
    def window(self) -> int:
        """Samples of a frame: 25 ms, as is usual for speech (the HTK book, section 5.2).

        >>> Sound(rate=8000, bands=40).window
        200
        """
        return round(WINDOW_SECONDS * self.rate)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next: 10 ms."""
        return round(HOP_SECONDS * self.rate)

    @property
    def transform(self) -> int:
        """Points of the Fourier transform: the power of two that a frame fits in."""
        return 1 << (self.window - 1).bit_length()

    @property
    def bins(self) -> int:
        """Frequencies that the transform tells apart."""
        return self.transform // 2 + 1

    @property
    def width(self) -> int:
        """Numbers of a frame.

        >>> Sound(rate=16_000, features="wave").width
        320
        """
        widths = {"mfcc": self.coefficients, "wave": CUT_SAMPLES}
        return widths.get(self.features, self.bands)

    @property
    def is_wave(self) -> bool:
        """Whether frames are samples."""
        return self.features == "wave"

    @property
    def stride(self) -> int:
        """Frames of which a transcriber makes one that it answers for."""
        return WAVE_STRIDE if self.is_wave else BANDS_STRIDE

    def answered(self, frames: int) -> int:
        """Return for how many of its own a transcriber answers, of so many.

        >>> Sound(rate=8000, bands=40).answered(101), Sound(rate=16_000, features="wave").answered(101)
        (26, 101)
        """
        return -(-frames // self.stride)
