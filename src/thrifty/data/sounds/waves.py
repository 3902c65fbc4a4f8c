"""Samples as they are, of mean 0 and deviation 1, cut into frames.

Shapes: S samples, T frames, M samples of a frame.
"""

from __future__ import annotations

import numpy as np

from thrifty.data.sounds.frames import PADDED
from thrifty.spec import Sound

# of the variance: what wav2vec 2.0 was trained on
_EPSILON = 1e-7
# deviations; a click alone is farther, and padding is farther still
_FARTHEST = 90.0


def wave_frames(samples_S: np.ndarray, sound: Sound) -> np.ndarray:
    """Return a recording's samples, its mean taken away and its deviation made one, float32 [T, M].

    What fills the last frame up is `PADDED`, so that the number of samples is kept.
    """
    wide_S = samples_S.astype(np.float64)
    scaled_S = (wide_S - wide_S.mean()) / np.sqrt(wide_S.var() + _EPSILON)
    frames_TM = np.full((-(-len(samples_S) // sound.width), sound.width), PADDED, np.float32)
    frames_TM.reshape(-1)[: len(samples_S)] = np.clip(scaled_S, -_FARTHEST, _FARTHEST)
    return frames_TM
