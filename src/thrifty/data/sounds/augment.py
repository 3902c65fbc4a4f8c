"""Training recordings changed by chance, as `thrifty.spec.Augment` says: seed, epoch and sample alone decide how.

All is done on log-mel frames, where it costs little: a frame's rows are stretched in time, its bands moved as a longer
or shorter vocal tract would move them, coloured as another microphone would, covered with noise, and blanked. Waves are
covered with noise and blanked.

Shapes: T frames, M bands, or samples of a frame.
"""

from __future__ import annotations

import numpy as np

from thrifty.data.order import generator_of
from thrifty.data.sounds.frames import PADDED
from thrifty.spec import Augment

_STREAM = 1
# places along the bands between which a colouring is straight, and bands and times blanked in each recording
_KNOTS, _MASKS = 5, 2
# noise from as loud as asked for down to this far under the loudest band, dB; its slope over the bands, in nepers
_FAINTEST, _STEEPEST = 60.0, 1.5
# the energy in decibels of one neper of it
_DECIBELS = 10 / np.log(10)
# the most of a recording that one blank may take, lest a short one be all blank (Park et al. 2019, section 2)
_MOST_BLANK = 0.2


class SoundAugmentation:
    """How the recordings of a split are changed in an epoch.

    Args:
        augment: what is wanted.
        longest: frames that a recording may have once stretched.
        seed: of the draws.
        waves: frames are samples, of deviation 1.
    """

    def __init__(self, augment: Augment, *, longest: int, seed: int, waves: bool = False) -> None:
        self.augment, self._longest, self._seed, self._epoch = augment, longest, seed, 0
        self._waves = waves

    def begin(self, epoch: int) -> None:
        """Draw for an epoch."""
        self._epoch = epoch

    def change(self, frames_TM: np.ndarray, sample: int) -> np.ndarray:
        """Return a recording's frames, not yet normalised, float32: stretched, moved, coloured and noisy."""
        wanted, draw = self.augment, self._draws(sample, 0)
        # all are drawn whatever is asked for, so that one change more leaves the others as they were
        stretch, warp, move, noisy, level, slope = draw.uniform(-1, 1, 6).tolist()
        knots = draw.standard_normal(_KNOTS, np.float32)
        loudness = wanted.noise + (level + 1) / 2 * max(_FAINTEST - wanted.noise, 0.0)
        if self._waves:
            return _in_noise(frames_TM, loudness, draw) if wanted.noise and noisy < 0 else frames_TM
        if wanted.stretch:
            frames_TM = _stretched(frames_TM, float(np.exp(wanted.stretch * stretch)), self._longest)
        if wanted.warp:
            frames_TM = _warped(frames_TM, float(np.exp(wanted.warp * warp)), move)
        bands = frames_TM.shape[1]
        if wanted.colour:
            frames_TM = frames_TM + wanted.colour * _between(knots, bands)
        if wanted.noise and noisy < 0:
            floor_M = frames_TM.max() - loudness / _DECIBELS + slope * np.linspace(-_STEEPEST, _STEEPEST, bands)
            rough = 0.5 * draw.standard_normal(frames_TM.shape, np.float32)
            frames_TM = np.logaddexp(frames_TM, floor_M.astype(np.float32) + rough)
        return frames_TM

    def blank(self, frames_TM: np.ndarray, sample: int) -> None:
        """Blank some bands and some times of normalised frames, in place (SpecAugment: Park et al. 2019)."""
        draw, (frames, bands) = self._draws(sample, 1), frames_TM.shape
        for high, most, axis in (
            (bands, min(self.augment.blank_bands, bands), 1),
            (frames, min(self.augment.blank_frames, _MOST_BLANK * frames), 0),
        ):
            for share, place in draw.random((_MASKS, 2)).tolist():
                width = share * most
                begin = place * (high - width)
                where = slice(round(begin), round(begin + width))
                stripe = frames_TM[(slice(None), where) if axis else where]
                stripe[stripe != PADDED] = 0.0

    def _draws(self, sample: int, part: int) -> np.random.Generator:
        return generator_of(self._seed, self._epoch, _STREAM, sample, part)


def _in_noise(frames_TM: np.ndarray, loudness: float, draw: np.random.Generator) -> np.ndarray:
    """Add white noise so many decibels under a wave of deviation 1, and make the deviation 1 again."""
    share = 10 ** (-loudness / 10)
    noise_TM = np.float32(np.sqrt(share)) * draw.standard_normal(frames_TM.shape, np.float32)
    return np.where(frames_TM == PADDED, frames_TM, (frames_TM + noise_TM) / np.float32(np.sqrt(1 + share)))


def _stretched(frames_TM: np.ndarray, factor: float, longest: int) -> np.ndarray:
    """Make a recording so many times as long, by straight lines between its frames."""
    length = len(frames_TM)
    wanted = max(1, min(round(length * factor), max(longest, length)))
    at_T = np.linspace(0, length - 1, wanted, dtype=np.float32)
    low_T = np.minimum(at_T.astype(np.int64), max(length - 2, 0))
    high_T = np.minimum(low_T + 1, length - 1)
    share_T1 = (at_T - low_T)[:, None]
    return frames_TM[low_T] * (1 - share_T1) + frames_TM[high_T] * share_T1


def _warped(frames_TM: np.ndarray, factor: float, move: float) -> np.ndarray:
    """Take each band from a place so many times as high, and up to one band beside it (Jaitly and Hinton 2013)."""
    bands = frames_TM.shape[1]
    at_M = np.clip(np.arange(bands) * factor + move, 0, bands - 1)
    # a straight line between the two bands that a place lies between, as a product
    weights_MM = np.maximum(0, 1 - np.abs(np.arange(bands)[:, None] - at_M)).astype(np.float32)
    warped_TM: np.ndarray = frames_TM @ weights_MM
    return warped_TM


def _between(knots: np.ndarray, bands: int) -> np.ndarray:
    """Straight lines through knots that lie evenly along the bands."""
    return np.interp(np.linspace(0, len(knots) - 1, bands), np.arange(len(knots)), knots).astype(np.float32)
