"""`Sound`: how recordings become frames of numbers, the same for training and for serving."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from thrifty.spec.plain import Plain

Features = Literal["log_mel", "mfcc"]

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010


class Sound(Plain):
    """The frames of a recording.

    Attributes:
        rate: samples a second that every recording is brought to.
        features: ``log_mel``, the log energies of mel bands, or ``mfcc``, their cepstral coefficients.
        bands: mel bands.
        coefficients: of ``mfcc``, how many are kept.
    """

    rate: Annotated[int, Field(ge=4_000, le=48_000)]
    features: Features = "log_mel"
    bands: Annotated[int, Field(ge=8, le=256)]
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
        """Numbers of a frame."""
        return self.coefficients if self.features == "mfcc" else self.bands
