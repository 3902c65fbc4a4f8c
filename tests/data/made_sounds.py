"""Makes small folders of recordings for tests: tones, one pitch a label."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
PITCHES = {"low": 300.0, "high": 1200.0, "mid": 600.0}


def tone(label: str, seed: int, seconds: float = 0.2, rate: int = RATE) -> np.ndarray:
    """A tone with noise of its own, so that no two are copies."""
    generator = np.random.default_rng([seed, len(label)])
    time = np.arange(round(seconds * rate)) / rate
    samples = np.sin(2 * np.pi * PITCHES[label] * time) / 3 + generator.standard_normal(len(time)) / 50
    return samples.astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def write_folders(folder: Path, count: int = 10, labels: Iterable[str] = ("high", "low")) -> Path:
    """Class folders of so many tones each, of several lengths."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            samples = tone(label, number, 0.1 + 0.02 * number)
            (folder / label / f"{number:03}.wav").write_bytes(encoded(samples))
    return folder


def write_named(folder: Path, takes: int = 6) -> Path:
    """Tones named after label, speaker and take."""
    folder.mkdir(parents=True)
    for label in ("high", "low"):
        for who, speaker in enumerate(("ann", "bob", "eve")):
            for take in range(takes):
                samples = tone(label, 100 * who + take)
                (folder / f"{label}_{speaker}_{take}.wav").write_bytes(encoded(samples))
    return folder


def write_strings(folder: Path, counts: dict[str, int] | None = None) -> Path:
    """Tones one after another, and a table of what they are."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["file,transcript,split"]
    for split, count in (counts or {"train": 40, "validation": 8, "test": 8}).items():
        for number in range(count):
            said = generator.choice(sorted(PITCHES), size=generator.integers(1, 4)).tolist()
            pieces = [tone(label, 1000 * len(rows) + at, 0.25) for at, label in enumerate(said)]
            (folder / f"{split}{number}.flac").write_bytes(encoded(np.concatenate(pieces), form="FLAC"))
            rows.append(f"{split}{number}.flac,{' '.join(said).title()},{split}")
    (folder / "said.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_voices(folder: Path, counts: dict[str, int] | None = None) -> Path:
    """Tones one after another in ``clips``, with tables of them as Common Voice has, named after splits or not."""
    (folder / "clips").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows: dict[str, list[tuple[str, str]]] = {}
    for split, count in (counts or {"train": 40, "dev": 8, "test": 8, "other": 5}).items():
        for number in range(count):
            said = generator.choice(sorted(PITCHES), size=generator.integers(1, 4)).tolist()
            seed = 1000 * sum(map(len, rows.values()))
            pieces = [tone(label, seed + at, 0.25) for at, label in enumerate(said)]
            name = f"common_voice_xx_{len(rows)}{number:04}.flac"
            (folder / "clips" / name).write_bytes(encoded(np.concatenate(pieces), form="FLAC"))
            rows.setdefault(split, []).append((name, " ".join(said).title()))
    rows["validated"] = [row for split in ("train", "dev", "test") for row in rows.get(split, [])]
    rows["invalidated"] = []
    for split, named in rows.items():
        lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale"]
        lines += [f"{len(name) * 7:x}{at % 5}\t{name}\t{at:x}\t{said}\t2\txx" for at, (name, said) in enumerate(named)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    durations = [f"{path.name}\t{path.stat().st_size}" for path in sorted((folder / "clips").iterdir())]
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\n" + "\n".join(durations) + "\n")
    return folder


def write_books(folder: Path, counts: dict[str, int] | None = None) -> Path:
    """Tones one after another by speaker and chapter, as LibriSpeech has them."""
    generator = np.random.default_rng(0)
    seed = 0
    for part, count in (counts or {"train-clean-100": 10, "dev-clean": 3, "test-clean": 3}).items():
        for speaker, chapter in ((len(part), 7), (len(part) + 100, 9)):
            place = folder / part / f"{speaker}" / f"{chapter}"
            place.mkdir(parents=True)
            lines = []
            for number in range(count):
                said = generator.choice(sorted(PITCHES), size=generator.integers(1, 4)).tolist()
                pieces = [tone(label, seed + at, 0.25) for at, label in enumerate(said)]
                seed += 10
                name = f"{speaker}-{chapter}-{number:04}"
                (place / f"{name}.flac").write_bytes(encoded(np.concatenate(pieces), form="FLAC"))
                lines.append(f"{name} {' '.join(said).upper()}")
            (place / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    (folder / "README.TXT").write_text("about it")
    return folder
