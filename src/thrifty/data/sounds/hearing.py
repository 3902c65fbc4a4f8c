"""Listens to every recording: decides the rate, decodes, makes frames, and says what was heard.

Memory holds a few tasks for each thread, of some recordings each. Shapes: T frames, M numbers of a frame.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thrifty.data.draft import Rows
from thrifty.data.inputs import Reject, count_reasons
from thrifty.data.inventory import Inventory, read_unchanged
from thrifty.data.sounds.recordings import Recording
from thrifty.data.sounds.sound import Limits, read_sound, resample
from thrifty.data.sounds.spectrum import features_of_all, frame_count
from thrifty.data.split import rank
from thrifty.data.teller import Teller
from thrifty.errors import DataError
from thrifty.spec import AudioData, Sound
from thrifty.spec.events import Emit

# what frames are kept in: of log energies, the rounding is a hundredth of what differs from one breath to the next; of
# samples it is 74 dB under them
FRAME_TYPE = np.dtype(np.float16)
SAMPLED_RECORDINGS = 64
# speech lies below 8 kHz, and recognisers of it are trained at twice that (wav2vec 2.0, Whisper)
SPEECH_RATE = 16_000
# mel bands: as many as the frequencies that a frame of 25 ms tells apart allow
NARROW_BANDS, WIDE_BANDS = 40, 80
_TASK_FILES, _TASK_BYTES = 32, 1 << 20
# finished or waiting before they are written
_TASKS_A_THREAD = 8
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What was learned of one recording; its frames are the next ``count`` rows of the scratch file."""

    name: str
    label: str
    split: str
    row: int
    digest: bytes
    rank: bytes
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
    if rate is None and data.features == "wave":
        rate = SPEECH_RATE
        notes.append(f"rate {rate:,}: what models of raw waves were trained on")
    if rate is None:
        rates = _rates(data, recordings, inventory, seed)
        common = max(rates, key=lambda each: (rates[each], each))
        rate = min(common, SPEECH_RATE)
        why = f", {SPEECH_RATE:,} is enough for speech; set data.rate to keep more" if rate < common else ""
        notes.append(f"rate {rate:,}: {rates[common]} of the {rates.total()} recordings looked at have {common:,}{why}")
    if data.features == "wave":
        return Sound(rate=rate, features="wave"), notes
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

    def listen(row: int) -> tuple[Heard, np.ndarray] | Reject:
        each, name = recordings[row], recordings[row].file.name
        raw = read_unchanged(each.file, inventory.hashes[name])
        try:
            samples, rate = read_sound(raw, limits_of(data))
        except DataError as error:
            return _reject(each, error)
        digest = hashlib.sha256(rate.to_bytes(4, "little") + samples.tobytes()).digest()
        place, seconds = rank(seed, inventory.hashes[name], name), len(samples) / rate
        samples = resample(samples, rate, sound.rate)
        count = frame_count(len(samples), sound)
        return Heard(name, each.label, each.split, row, digest, place, count, rate, seconds), samples

    def work(rows: range) -> tuple[list[Heard], list[Reject], list[np.ndarray]]:
        found = [listen(row) for row in rows]
        heard = [each for each in found if not isinstance(each, Reject)]
        frames = features_of_all([samples for _, samples in heard], sound)
        return (
            [each for each, _ in heard],
            [each for each in found if isinstance(each, Reject)],
            [frames_TM.astype(FRAME_TYPE) for frames_TM in frames],
        )

    heard: list[Heard] = []
    rejects: list[Reject] = []
    teller = Teller(len(recordings), emit, "recordings")
    tasks = _tasks(recordings)
    at_once = _TASKS_A_THREAD * _THREADS
    with Rows(scratch, FRAME_TYPE, (sound.width,)) as file, ThreadPoolExecutor(_THREADS) as pool:
        for some in (tasks[start : start + at_once] for start in range(0, len(tasks), at_once)):
            for found, odd, frames in pool.map(work, some):
                heard += found
                rejects += odd
                for frames_TM in frames:
                    file.append(frames_TM)
                teller.count(len(found) + len(odd))
    return heard, rejects


def _tasks(recordings: Sequence[Recording]) -> list[range]:
    """Cut recordings into runs: long ones stand alone, and of short ones a task for each would cost as much as they."""
    tasks: list[range] = []
    start, held = 0, 0
    for row, each in enumerate(recordings):
        if row > start and (held + each.file.size > _TASK_BYTES or row - start == _TASK_FILES):
            tasks.append(range(start, row))
            start, held = row, 0
        held += each.file.size
    return [*tasks, range(start, len(recordings))]


def _reject(recording: Recording, error: DataError) -> Reject:
    reason, colon, detail = error.what.partition(": ")
    return Reject(recording.file.name, reason, colon + detail)
