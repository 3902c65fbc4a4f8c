"""Real data of the benchmarks, from the shared folder beside the project: found, unpacked once, laid out to be read."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.race import ROOT
from thrifty.spec.folders import cache_folder

HELD_OUT_SHARE = 0.1
# held out last of all and looked at once: so short that it takes no time
TEST_CHARACTERS = 2_000


def shared(name: str) -> Path:
    """Return a file or folder of the shared data, or end saying that it is not there.

    ``$THRIFTY_SHARED`` names another place.
    """
    folder = Path(os.environ.get("THRIFTY_SHARED") or ROOT.parent / "shared") / "data"
    if not (folder / name).exists():
        sys.exit(f"this benchmark needs '{folder / name}', which is not there; name its place: THRIFTY_SHARED=…/shared")
    return folder / name


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Make a folder of the cache once; one that was cut off is made anew."""
    place = cache_folder() / "benchmarks" / name
    if not place.is_dir():
        draft = place.with_name(f"{place.name}.tmp-{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        make(draft)
        draft.rename(place)
    return place


def cifar() -> Path:
    """Return CIFAR-10's 60,000 JPEG files in one folder a class, named ``train-…`` and ``test-…``."""
    archive = shared("cifar10_jpeg/cifar10_jpeg.tar.xz")

    def unpack(draft: Path) -> None:
        with tarfile.open(archive) as files:
            for member in files:
                parts = PurePosixPath(member.name).parts[-3:]
                source = files.extractfile(member) if member.isfile() else None
                if source is None or len(parts) < 3 or parts[0] not in {"train", "test"}:
                    continue
                folder = draft / parts[1]
                folder.mkdir(exist_ok=True)
                (folder / f"{parts[0]}-{parts[2]}").write_bytes(source.read())

    return once("cifar10", unpack)


def novels() -> Path:
    """Return 94 English novels as text files."""
    archive = shared("english_novels_94/english_novels_94.tar.xz")

    def unpack(draft: Path) -> None:
        with tarfile.open(archive) as files:
            for member in files:
                source = files.extractfile(member) if member.isfile() else None
                if source is not None:
                    (draft / PurePosixPath(member.name).with_suffix(".txt").name).write_bytes(source.read())

    return once("novels", unpack)


def shakespeare() -> tuple[Path, dict[str, float]]:
    """Return tinyshakespeare as three documents, and the shares by which thrifty deals them as nanoGPT cuts the text.

    nanoGPT trains on the first nine tenths and validates on the last. A document goes to the first held-out split that
    it brings nearer to its share, whatever the order: with these shares the test split can take the smallest alone,
    and validation the second.
    """
    text = shared("tinyshakespeare/input.txt").read_text(encoding="utf-8")
    cut = int((1 - HELD_OUT_SHARE) * len(text))

    def write(draft: Path) -> None:
        (draft / "train.txt").write_text(text[:cut], encoding="utf-8")
        (draft / "validation.txt").write_text(text[cut:], encoding="utf-8")
        (draft / "test.txt").write_text(text[-TEST_CHARACTERS:], encoding="utf-8")

    return once("shakespeare", write), {"validation": HELD_OUT_SHARE, "test": 2 * TEST_CHARACTERS / len(text)}


def sentences(count: int, tokens: int, held_out: int = 64) -> Path:
    """Return made-up labelled sentences, each of so many pieces of BERT's vocabulary with its two marks.

    For the speed of a step alone, where every text has to have the same length: there is nothing to learn from them.
    """
    vocabulary = shared("tokenizers/bert-base-uncased-vocab.txt").read_text(encoding="utf-8").splitlines()
    # whole words of plain letters, each of which is one piece
    words = np.array([word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 1])

    def write(draft: Path) -> None:
        generator = np.random.default_rng(0)
        for name, rows in (("train", count), ("dev", held_out), ("test", held_out)):
            lines = (
                f"{' '.join(words[generator.integers(len(words), size=tokens - 2)])}\t{number % 2}\n"
                for number in range(rows)
            )
            (draft / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")

    return once(f"sentences-{count}-{tokens}", write)


def dots(count: int = 2_000) -> Path:
    """Return made-up gray images of 8 x 8 pixels in two classes: enough to take steps on, and nothing to learn."""
    import cv2

    def write(draft: Path) -> None:
        pixels = np.random.default_rng(0).integers(256, size=(count, 8, 8), dtype=np.uint8)
        for number, image in enumerate(pixels):
            folder = draft / ("left", "right")[number % 2]
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{number:05}.png"), image)

    return once(f"dots-{count}", write)
