"""The raw sets: 4,000 JPEGs of 500 x 375 pixels (CIFAR's, enlarged, with noise); 120,000 labelled sentences of novels;
24 novels; 3,000 recordings of spoken digits (FSDD); 400,000 rows drawn from the columns of Adult.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.real_data import novels, once, shared

PHOTOGRAPHS, SENTENCES, BOOKS, ROWS = 4_000, 120_000, 24, 400_000
HEIGHT, WIDTH, JPEG_QUALITY = 375, 500, 90
ADULT = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship",
    "race", "sex", "capital_gain", "capital_loss", "hours", "country", "income",
)  # fmt: skip


def photographs(quick: bool) -> Path:
    """Return JPEG files in class folders."""
    import cv2

    count = PHOTOGRAPHS // 10 if quick else PHOTOGRAPHS

    def write(draft: Path) -> None:
        generator = np.random.default_rng(0)
        with tarfile.open(shared("cifar10_jpeg/cifar10_jpeg.tar.xz")) as files:
            written = 0
            for member in files:
                source = files.extractfile(member) if member.isfile() and "test/" in member.name else None
                if source is None:
                    continue
                small = cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_COLOR)
                assert small is not None
                large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
                noisy = np.clip(large + generator.normal(0, 4, large.shape), 0, 255).astype(np.uint8)
                folder = draft / PurePosixPath(member.name).parts[-2]
                folder.mkdir(exist_ok=True)
                cv2.imwrite(str(folder / f"{written:05}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                written += 1
                if written == count:
                    return

    return once(f"photographs-{count}", write)


def sentences(quick: bool) -> Path:
    """Return a table of sentences, each once, with two labels."""
    count = SENTENCES // 10 if quick else SENTENCES

    def write(draft: Path) -> None:
        found: dict[str, None] = {}
        for book in sorted(novels().glob("*.txt")):
            text = " ".join(book.read_text(encoding="utf-8-sig").split()).replace("\t", " ").replace('"', "'")
            found |= dict.fromkeys(each.strip() for each in text.split(". ") if 20 < len(each) < 400)
            if len(found) >= count:
                break
        lines = (f"{text}\t{'even' if number % 2 else 'odd'}\n" for number, text in enumerate(list(found)[:count]))
        (draft / "sentences.tsv").write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")

    return once(f"labelled-sentences-{count}", write)


def books(quick: bool) -> Path:
    """Return text files."""
    count = BOOKS // 8 if quick else BOOKS

    def write(draft: Path) -> None:
        for book in sorted(novels().glob("*.txt"))[:count]:
            (draft / book.name).write_bytes(book.read_bytes())

    return once(f"books-{count}", write)


def digits(quick: bool) -> Path:
    """Return WAV files in folders of their digits; of two speakers where ``quick``."""
    speakers = ("jackson", "nicolas") if quick else ("",)

    def write(draft: Path) -> None:
        with tarfile.open(shared("fsdd/fsdd_recordings.tar.xz")) as files:
            for member in files:
                name = PurePosixPath(member.name).name
                source = files.extractfile(member) if member.isfile() else None
                if source is not None and any(speaker in name for speaker in speakers):
                    folder = draft / name[0]
                    folder.mkdir(exist_ok=True)
                    (folder / name).write_bytes(source.read())

    return once(f"digits-{len(speakers)}", write)


def audio_hours(folder: Path) -> float:
    """Return how long the recordings of a folder are together, in hours."""
    import soundfile

    return sum(soundfile.info(path).duration for path in folder.glob("*/*.wav")) / 3600


def census(quick: bool) -> Path:
    """Return a table whose rows are drawn from Adult's, one number of each changed so that all differ."""
    count = ROWS // 10 if quick else ROWS

    def write(draft: Path) -> None:
        lines = shared("adult/adult.data").read_text(encoding="utf-8").splitlines()
        rows = [[cell.strip() for cell in line.split(",")] for line in lines]
        rows = [row for row in rows if len(row) == len(ADULT)]
        generator = np.random.default_rng(0)
        with (draft / "census.csv").open("w", encoding="utf-8") as file:
            file.write(",".join(ADULT) + "\n")
            for number, at in enumerate(generator.integers(len(rows), size=count)):
                row = list(rows[at])
                row[2] = str(10_000 + number)
                file.write(",".join("" if cell == "?" else cell for cell in row) + "\n")

    return once(f"census-{count}", write)
