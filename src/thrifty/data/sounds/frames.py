"""Frames of recordings as a batch: normalised, and filled up to the longest.

Shapes: b recordings, T frames, M numbers of a frame, L tokens of the longest transcript.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thrifty.data.documents.tokenizer import IGNORED_TARGET
from thrifty.data.texts.word_pieces import padded_length
from thrifty.spec import Dataset

# stands in every place of a frame that is none; normalised frames are within a few tens of zero
PADDED = -100.0
_FARTHEST = 30.0


def normalised(frames_TM: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Take a recording's own mean from its frames, and scale them by the deviations of the training split.

    What a microphone and a room do to a recording is a factor of energy for each band, and so a difference of its
    logarithm: taking the mean away takes them away (Atal 1974, of cepstra). A wave is scaled already.
    """
    if dataset.sound is not None and dataset.sound.is_wave:
        return frames_TM.astype(np.float32, copy=False)
    scaled = (frames_TM - frames_TM.mean(0, dtype=np.float32)) / np.asarray(dataset.std, np.float32)
    return np.clip(scaled, -_FARTHEST, _FARTHEST)


def padded_frames(recordings: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Put recordings under each other, float32 [b, T, M], filled up to the longest with `PADDED`."""
    longest = padded_length(max(map(len, recordings)), most)
    x_bTM = np.full((len(recordings), longest, recordings[0].shape[1]), PADDED, np.float32)
    for row, frames_TM in zip(x_bTM, recordings, strict=True):
        row[: len(frames_TM)] = frames_TM
    return x_bTM


def filled_up(transcripts: Sequence[np.ndarray]) -> np.ndarray:
    """Put the tokens of transcripts under each other, int64 [b, L], filled up to the longest with -100."""
    y_bL = np.full((len(transcripts), max(map(len, transcripts))), IGNORED_TARGET, np.int64)
    for row, tokens in zip(y_bL, transcripts, strict=True):
        row[: len(tokens)] = tokens
    return y_bL
