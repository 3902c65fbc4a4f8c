"""Preparing strictly: what is not clean is an error, is listed, and is prepared for whoever asks again without."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_folders import write_images

from thrifty.data import prepare
from thrifty.errors import DataError
from thrifty.spec import ImageData, LanguageData, RawData, TextData
from thrifty.spec.events import Event, Warned


def images(folder: Path) -> RawData:
    write_images(folder, {"cat": 9, "dog": 9})
    return ImageData(kind="image", path=folder)


def texts(folder: Path) -> RawData:
    folder.mkdir()
    rows = [f"a {'good' if n % 2 else 'bad'} film, number {n}\t{n % 2}" for n in range(40)]
    (folder / "rows.tsv").write_text("\n".join(rows) + "\n")
    return TextData(kind="text", path=folder)


def language(folder: Path) -> RawData:
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.txt").write_text(f"chapter {n}: " + " ".join(f"word{n * k % 101}" for k in range(900)))
    return LanguageData(kind="language", path=folder, length=32)


DIRTY: dict[str, tuple[Callable[[Path], RawData], str, bytes, str]] = {
    "image": (images, "cat/broken.png", b"\x89PNG\r\n\x1a\nno more", "1 of 19 files are not used"),
    "text": (texts, "rows.tsv", b"", "1 of 41 rows are not used"),
    "language": (language, "empty.txt", b"  \n", "1 of 7 files are not used"),
}


@pytest.mark.parametrize("kind", DIRTY)
def test_what_is_not_clean_fails_where_asked(kind: str, tmp_path: Path) -> None:
    make, name, raw, says = DIRTY[kind]
    data, cache, heard = make(tmp_path / "data"), tmp_path / "cache", list[Event]()
    clean = prepare(data, seed=0, cache=cache, emit=heard.append, strict=True)
    assert not clean.dataset.cleaning.rejected and not [each for each in heard if isinstance(each, Warned)]
    with (tmp_path / "data" / name).open("ab") as file:
        file.write(raw or b"a text without its label\t\n")
    for _ in range(2):
        with pytest.raises(DataError, match=f"is not clean: {says}") as error:
            prepare(data, seed=0, cache=cache, emit=heard.append, strict=True)
        assert "rejects.jsonl" in str(error.value)
    store = prepare(data, seed=0, cache=cache, emit=heard.append)
    assert sum(store.dataset.cleaning.rejected.values()) == 1
    assert name in (store.folder / "rejects.jsonl").read_text()


PAGES_ASKED_FOR = """
import resource, sys
from pathlib import Path
from thrifty.api import silent
from thrifty.data import prepare
from thrifty.spec import ImageData

data = ImageData(kind="image", path=Path(sys.argv[1]), size=32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
prepare(data, seed=0, cache=Path(sys.argv[2]), emit=silent)
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory otherwise")
@pytest.mark.slow
def test_memory_of_a_photograph_is_used_for_the_next(tmp_path: Path) -> None:
    draw, count = np.random.default_rng(0), 80
    for number in range(count):
        place = tmp_path / "data" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(draw.integers(0, 256, (20, 20, 3), np.uint8), (900, 700 + number))
        cv2.imwrite(str(place / f"{number}.jpg"), pixels)
    command = [sys.executable, "-c", PAGES_ASKED_FOR, str(tmp_path / "data"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # one photograph fills 460 pages when it is decoded, and more in between; 1,950 where none are kept
    assert int(done.stdout) < 400 * count
