"""Listens to every recording: decides the rate, decodes, makes frames, and says what was heard.

Memory holds the frames of one chunk of recordings. Shapes: T frames, M numbers of a frame.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thrifty.data.draft import Rows
from thrifty.data.inputs import Reject, count_reasons
from thrifty.data.inventory import Inventory, read_unchanged
from thrifty.data.recordings import Recording
from thrifty.data.sound import Limits, read_sound, resample
from thrifty.data.spectrum import features_of
from thrifty.data.split import rank
from thrifty.data.teller import Teller
from thrifty.errors import DataError
from thrifty.spec import AudioData, Sound
from thrifty.spec.events import Emit

# what frames are kept in: of log energies, the rounding is a hundredth of what differs from one breath to the next
FRAME_TYPE = np.dtype(np.float16)
SAMPLED_RECORDINGS = 64
# speech lies below 8 kHz, and recognisers of it are trained at twice that (wav2vec 2.0, Whisper)
SPEECH_RATE = 16_000
# mel bands: as many as the frequencies that a frame of 25 ms tells apart allow
NARROW_BANDS, WIDE_BANDS = 40, 80
_CHUNK = 256
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What was learned of one recording; its frames are ``count`` rows of the scratch file from ``first`` on."""

    name: str
    label: str
    split: str
    row: int
    digest: bytes
    rank: bytes
    first: int
    count: int
    rate: int
    seconds: float


def limits_of(data: AudioData) -> Limits:
    """Return how long recordings may be."""
    return Limits(data.min_seconds, data.max_seconds)


def decide_sound(
    data: AudioData, recordings: Sequence[Recording], inventory: Inventory, seed: int
) -> tuple[Sound, list[str]]:
    """Decide rate and bands: as the job says, else by the first readable recordings of the seeded order.

    Returns:
        How recordings become frames, and why.

    Raises:
        DataError: none can be read; it counts why.
    """
    notes: list[str] = []
    rate = data.rate
    if rate is None:
        rates = _rates(data, recordings, inventory, seed)
        common = max(rates, key=lambda each: (rates[each], each))
        rate = min(common, SPEECH_RATE)
        why = f", {SPEECH_RATE:,} is enough for speech; set data.rate to keep more" if rate < common else ""
        notes.append(f"rate {rate:,}: {rates[common]} of the {rates.total()} recordings looked at have {common:,}{why}")
    bands = data.bands
    if bands is None:
        bands = NARROW_BANDS if rate < SPEECH_RATE else WIDE_BANDS
        notes.append(f"bands {bands}: as is usual at {rate:,} samples a second")
    if data.features == "mfcc" and data.coefficients > bands:
        raise DataError(f"{data.coefficients} coefficients are asked for, of {bands} bands", mend="Ask for fewer.")
    return Sound(rate=rate, features=data.features, bands=bands, coefficients=data.coefficients), notes


def _rates(data: AudioData, recordings: Sequence[Recording], inventory: Inventory, seed: int) -> Counter[int]:
    order = sorted(recordings, key=lambda each: rank(seed, inventory.hashes[each.file.name], each.file.name))
    rates: Counter[int] = Counter()
    reasons = list(inventory.rejects)
    for each in order:
        raw = read_unchanged(each.file, inventory.hashes[each.file.name])
        try:
            _, rate = read_sound(raw, limits_of(data))
        except DataError as error:
            reasons.append(_reject(each, error))
            continue
        rates[rate] += 1
        if rates.total() == SAMPLED_RECORDINGS:
            break
    if not rates:
        found = ", ".join(f"{count} {reason}" for reason, count in count_reasons(reasons).items())
        raise DataError(
            f"no recording in '{data.path}' can be read ({found})", mend="They are WAV, FLAC, OGG, MP3, AIFF or AU."
        )
    return rates


def hear_all(
    data: AudioData,
    recordings: Sequence[Recording],
    inventory: Inventory,
    sound: Sound,
    seed: int,
    scratch: Path,
    emit: Emit,
) -> tuple[list[Heard], list[Reject]]:
    """Decode every recording, append its frames to the scratch file, float16 [T, M], and say what was heard."""

    def work(row: int) -> tuple[Heard, np.ndarray] | Reject:
        each, name = recordings[row], recordings[row].file.name
        raw = read_unchanged(each.file, inventory.hashes[name])
        try:
            samples, rate = read_sound(raw, limits_of(data))
        except DataError as error:
            return _reject(each, error)
        frames_TM = features_of(resample(samples, rate, sound.rate), sound).astype(FRAME_TYPE)
        digest = hashlib.sha256(rate.to_bytes(4, "little") + samples.tobytes()).digest()
        place, seconds = rank(seed, inventory.hashes[name], name), len(samples) / rate
        return Heard(name, each.label, each.split, row, digest, place, 0, len(frames_TM), rate, seconds), frames_TM

    heard: list[Heard] = []
    rejects: list[Reject] = []
    teller = Teller(len(recordings), emit, "recordings")
    numbers = range(len(recordings))
    with Rows(scratch, FRAME_TYPE, (sound.width,)) as file, ThreadPoolExecutor(_THREADS) as pool:
        for rows in (numbers[start : start + _CHUNK] for start in numbers[::_CHUNK]):
            for found in pool.map(work, rows):
                if isinstance(found, Reject):
                    rejects.append(found)
                else:
                    heard.append(replace(found[0], first=file.count))
                    file.append(found[1])
            teller.count(len(rows))
    return heard, rejects


def _reject(recording: Recording, error: DataError) -> Reject:
    reason, colon, detail = error.what.partition(": ")
    return Reject(recording.file.name, reason, colon + detail)
