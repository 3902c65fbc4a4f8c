"""Strings of spoken digits, made by joining takes of the Free Spoken Digit Dataset, one speaker held out.

Each string has three to seven takes of one speaker, with up to a tenth of a second of faint noise before each. Strings
of five speakers train and, of takes that training does not use, validate; those of the sixth test.
"""

from __future__ import annotations

import io
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.real_data import once, shared

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8_000
STRINGS = {"train": 3_000, "validation": 200, "test": 500}
SHORTEST, LONGEST = 3, 7
PAUSE_SECONDS = 0.1
# of the noise in pauses, in steps of 16 bits
HUSH = 2.0
# the official test takes, which validate here
HELD_OUT_TAKES = range(5)

Takes = dict[str, list[np.ndarray]]


def strings(seed: int) -> Path:
    """Return a folder of strings and the table that names them, with the speaker of this seed held out."""
    held_out = SPEAKERS[seed % len(SPEAKERS)]
    archive = shared("fsdd/fsdd_recordings.tar.xz")

    def write(draft: Path) -> None:
        takes = _takes(archive)
        generator = np.random.default_rng(seed)
        rows = ["file\ttranscript\tspeaker\tsplit"]
        for split, count in STRINGS.items():
            speakers = [held_out] if split == "test" else [each for each in SPEAKERS if each != held_out]
            known = {each: takes[each, split == "validation"] for each in speakers}
            if split == "test":
                known = {held_out: _both(takes[held_out, False], takes[held_out, True])}
            for number in range(count):
                speaker = speakers[int(generator.integers(len(speakers)))]
                samples, said = _string(known[speaker], generator)
                name = f"{split}-{number:05}.wav"
                _write(draft / name, samples)
                rows.append(f"{name}\t{said}\t{speaker}\t{split}")
        (draft / "strings.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    return once(f"digits-{held_out}", write)


def _takes(archive: Path) -> dict[tuple[str, bool], Takes]:
    """Samples int16 by digit, of each speaker: takes to train on, and those held out."""
    import soundfile

    found: dict[tuple[str, bool], Takes] = defaultdict(lambda: defaultdict(list))
    with tarfile.open(archive) as files:
        for member in files:
            source = files.extractfile(member) if member.isfile() else None
            if source is None:
                continue
            digit, speaker, take = PurePosixPath(member.name).stem.split("_")
            samples, rate = soundfile.read(io.BytesIO(source.read()), dtype="int16")
            assert rate == RATE
            found[speaker, int(take) in HELD_OUT_TAKES][digit].append(samples)
    return found


def _both(some: Takes, others: Takes) -> Takes:
    return {digit: [*some[digit], *others[digit]] for digit in some}


def _string(takes: Takes, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    digits = [str(digit) for digit in generator.integers(10, size=generator.integers(SHORTEST, LONGEST + 1))]
    parts = []
    for digit in digits:
        pause = int(generator.integers(round(PAUSE_SECONDS * RATE) + 1))
        parts.append(np.rint(HUSH * generator.standard_normal(pause)).astype(np.int16))
        parts.append(takes[digit][int(generator.integers(len(takes[digit])))])
    return np.concatenate(parts), " ".join(digits)


def _write(path: Path, samples: np.ndarray) -> None:
    import soundfile

    soundfile.write(path, samples, RATE, subtype="PCM_16")
