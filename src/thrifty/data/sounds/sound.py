"""Recordings to samples: one channel of float32 at one rate; what is wrong with a file comes as a `DataError`.

Shapes: S samples, C channels.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np

from thrifty.data.labels import Files
from thrifty.errors import DataError

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"})
SOUNDS = Files("recording", SOUND_SUFFIXES, ".wav")
MOST_CHANNELS = 16
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
# samples may exceed full scale by so much, which a float file can; more is another unit
_LOUDEST = 64.0
# what a WAV written to a pipe says of its length: nothing
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass(frozen=True)
class Limits:
    """How long recordings may be, in seconds."""

    shortest: float
    longest: float


def read_sound(raw: bytes, limits: Limits) -> tuple[np.ndarray, int]:
    """Decode a recording: samples float32 [S], the mean of its channels, and their rate.

    Its header is looked at first: what says that it is longer than the limit is not decoded.

    Raises:
        DataError: it is empty, no sound, truncated, too long, too short, silent, or holds what is no number.

    >>> import io, soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.sin(np.arange(800) / 5), 8000, format="WAV")
    >>> samples, rate = read_sound(file.getvalue(), Limits(0.05, 30))
    >>> len(samples), rate
    (800, 8000)
    """
    if not raw:
        raise DataError("empty")
    _check_whole(raw)
    samples_SC, rate = _decode(raw, limits)
    _check_samples(samples_SC)
    return samples_SC[:, 0] if samples_SC.shape[1] == 1 else samples_SC.mean(1, dtype=np.float32), rate


def _decode(raw: bytes, limits: Limits) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            _check_header(file.frames, file.channels, file.samplerate, limits)
            samples_SC = file.read(dtype="float32", always_2d=True)
            rate, promised = file.samplerate, file.frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        # the whole message tells of an object in memory, by its address
        says = " ".join(getattr(error, "error_string", str(error)).split()).removeprefix("Error : ").removesuffix(".")
        raise DataError(f"not a sound: {says[:1].lower()}{says[1:]}") from error
    if len(samples_SC) < promised:
        raise DataError(f"truncated: {len(samples_SC):,} samples where its header says {promised:,}")
    return samples_SC, rate


def resample(samples_S: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Bring samples to another rate with a linear-phase filter that lets no frequency fold (libsoxr's high quality)."""
    if rate == wanted:
        return samples_S
    import soxr

    resampled: np.ndarray = soxr.resample(samples_S, rate, wanted, quality="HQ")
    return resampled


def _check_whole(raw: bytes) -> None:
    """Tell a WAV that ends early, which libsndfile reads as a shorter one (RIFF: Microsoft and IBM 1991)."""
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        return
    place = 12
    while place + 8 <= len(raw):
        name, size = struct.unpack_from("<4sI", raw, place)
        place += 8
        if name == b"data":
            if size != _UNKNOWN_SIZE and place + size > len(raw):
                raise DataError(f"truncated: {len(raw) - place:,} bytes of sound where its header says {size:,}")
            return
        place += size + size % 2
    raise DataError("truncated: the WAV has no sound in it")


def _check_header(frames: int, channels: int, rate: int, limits: Limits) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"odd rate: {rate:,} samples a second, {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read")
    if channels > MOST_CHANNELS:
        raise DataError(f"too many channels: {channels}, and {MOST_CHANNELS} are read")
    if frames == 0:
        raise DataError("no samples: it has a header and nothing else")
    seconds = frames / rate
    if seconds > limits.longest:
        raise DataError(f"too long: {seconds:,.1f} s is over {limits.longest:g} s")
    if seconds < limits.shortest:
        raise DataError(f"too short: {seconds:.3f} s is under {limits.shortest:g} s")


def _check_samples(samples_SC: np.ndarray) -> None:
    # NaN and infinity are the least or the most of what holds one
    low, high = float(samples_SC.min()), float(samples_SC.max())
    if not np.isfinite([low, high]).all():
        raise DataError("not numbers: it holds NaN or infinity")
    if max(-low, high) > _LOUDEST:
        raise DataError(f"out of scale: samples up to {max(-low, high):.3g} where full scale is 1")
    if low == high:
        raise DataError("silent: every sample is the same")
