"""Sound as frames of log-mel energies or cepstral coefficients, in numpy.

Shapes: S samples, T frames, F bins of the Fourier transform, M mel bands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from thrifty.data.sounds.waves import wave_frames
from thrifty.spec import Sound

# below it lies no speech, and the hum of mains and fans does (the low edge of Kaldi's filters too)
LOWEST_HERTZ = 20.0
# the least energy of a band: -100 dB below a full-scale bin, under the noise of 16 bits
FLOOR = 1e-10
# that are transformed at a time: their spectra stay within a processor's own cache
_FRAMES = 1024
# frames of one product: larger ones wake all threads of the linear algebra, for each thread that asks for one
_ROWS = 8


def mel_of(hertz: np.ndarray | float) -> np.ndarray:
    """Return pitch in mel: ``2595 log10(1 + f / 700)`` (O'Shaughnessy 1987; the HTK book, equation 5.13).

    >>> round(float(mel_of(1000.0)), 2)
    999.99
    """
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def hertz_of(mel: np.ndarray | float) -> np.ndarray:
    """Return frequency in hertz; the inverse of `mel_of`.

    >>> round(float(hertz_of(mel_of(440.0))), 6)
    440.0
    """
    return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


@functools.cache
def mel_filters(sound: Sound) -> np.ndarray:
    """Return triangles float32 [F, M], equally wide in mel, each from the middle of the one before to that of the next.

    Their height is one (the HTK book, section 5.4; Davis and Mermelstein 1980). They end at half the sample rate.
    """
    edges = hertz_of(np.linspace(mel_of(LOWEST_HERTZ), mel_of(sound.rate / 2), sound.bands + 2))
    hertz_F1 = np.linspace(0.0, sound.rate / 2, sound.bins)[:, None]
    low_M, middle_M, high_M = edges[:-2], edges[1:-1], edges[2:]
    rising_FM = (hertz_F1 - low_M) / (middle_M - low_M)
    falling_FM = (high_M - hertz_F1) / (high_M - middle_M)
    return np.maximum(0.0, np.minimum(rising_FM, falling_FM)).astype(np.float32)


def log_mel(samples_S: np.ndarray, sound: Sound) -> np.ndarray:
    """Return the natural logarithm of the energy in each mel band, float32 [T, M].

    The frame of number t is centred on sample ``t * hop`` and weighted by a periodic Hann window; beyond the ends there
    is silence. T is as `frame_count` has it.

    Args:
        samples_S: float32, full scale 1, at the rate of ``sound``.
        sound: window, hop and bands.
    """
    return _log_mels([samples_S], sound)[0]


def _log_mels(recordings: Sequence[np.ndarray], sound: Sound) -> list[np.ndarray]:
    """Frames of several recordings, laid end to end with silence between, so that short ones are one transform."""
    if not recordings:
        return []
    hop, window, half = sound.hop, sound.window, sound.window // 2
    # each begins at a whole frame, and so far behind the one before that no frame has a part of both
    frames = [-(-(len(samples_S) + window - half) // hop) for samples_S in recordings]
    starts = list(accumulate(frames, initial=0))
    total = -(-starts[-1] // _ROWS) * _ROWS
    line = np.zeros((total - 1) * hop + window, np.float32)
    for start, samples_S in zip(starts, recordings, strict=False):
        line[start * hop + half :][: len(samples_S)] = samples_S
    blocks = ((start, min(_FRAMES, total - start)) for start in range(0, total, _FRAMES))
    energy_TM = np.concatenate([_energies(line[start * hop :], count, sound) for start, count in blocks])
    logs_TM = np.log(np.maximum(energy_TM, FLOOR))
    counts = (frame_count(len(samples_S), sound) for samples_S in recordings)
    return [logs_TM[start : start + count] for start, count in zip(starts, counts, strict=False)]


def _energies(line_S: np.ndarray, frames: int, sound: Sound) -> np.ndarray:
    """Energy in each mel band of the first frames of a line of samples."""
    windows = np.lib.stride_tricks.sliding_window_view(line_S, sound.window)[:: sound.hop][:frames]
    spectrum_TF = np.fft.rfft(windows * _hann(sound.window), sound.transform, axis=1)
    power_TF = np.square(spectrum_TF.real) + np.square(spectrum_TF.imag)
    few_F = power_TF.astype(np.float32, copy=False).reshape(-1, _ROWS, sound.bins)
    return np.matmul(few_F, mel_filters(sound)).reshape(frames, sound.bands)


def frame_count(samples: int, sound: Sound) -> int:
    """Return how many frames a recording has, ``1 + S // hop``: one for each hop, and one for what is left; of a wave
    those that its samples fill, the last one in part.

    >>> frame_count(8000, Sound(rate=8000, bands=40))
    101
    """
    return -(-samples // sound.width) if sound.is_wave else 1 + samples // sound.hop


def mfcc(log_mel_TM: np.ndarray, count: int) -> np.ndarray:
    """Return the first mel-frequency cepstral coefficients of frames, float32 [T, count].

    They are the orthonormal cosine transform (DCT-II) of the log energies (Davis and Mermelstein 1980; the HTK book,
    equation 5.14). No liftering.
    """
    bands = log_mel_TM.shape[1]
    return (log_mel_TM @ _cosines(bands, count)).astype(np.float32)


def features_of(samples_S: np.ndarray, sound: Sound) -> np.ndarray:
    """Return the frames that ``sound`` asks for, float32 [T, width]."""
    return features_of_all([samples_S], sound)[0]


def features_of_all(recordings: Sequence[np.ndarray], sound: Sound) -> list[np.ndarray]:
    """Return the frames of several recordings, each as `features_of` has them; of short ones in less time."""
    if sound.is_wave:
        return [wave_frames(each, sound) for each in recordings]
    frames = _log_mels(recordings, sound)
    return [mfcc(each, sound.width) for each in frames] if sound.features == "mfcc" else frames


@functools.cache
def _hann(size: int) -> np.ndarray:
    """Periodic: one more sample would begin it anew."""
    return np.hanning(size + 1)[:-1].astype(np.float32)


@functools.cache
def _cosines(bands: int, count: int) -> np.ndarray:
    place, number = np.arange(bands)[:, None] + 0.5, np.arange(count)
    cosines = np.sqrt(2.0 / bands) * np.cos(np.pi / bands * place * number)
    cosines[:, 0] = np.sqrt(1.0 / bands)
    return cosines.astype(np.float32)
