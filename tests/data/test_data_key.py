"""The content key: what it depends on, and that what has not changed is not read again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_folders import encoded, image, novel, write_images, write_texts

from thrifty.data import content_key
from thrifty.data.choose import matches
from thrifty.data.inputs import list_files
from thrifty.errors import DataError
from thrifty.spec import ImageData, LanguageData, Split

_opened: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _watch() -> None:
    """Note every file that Python opens; a hook of the interpreter, which cannot be taken out again."""
    sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    _opened.clear()
    yield _opened
    _opened.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pets", {"cat": 4, "dog": 4})


def key(folder: Path, cache: Path, seed: int = 0, **values: object) -> str:
    return content_key(ImageData.model_validate({"kind": "image", "path": folder, **values}), seed=seed, cache=cache)


def test_the_key_is_of_content_not_of_place(folder: Path, tmp_path: Path) -> None:
    before = key(folder, tmp_path / "cache")
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "animals")
    assert key(moved, tmp_path / "another cache") == before
    (folder / ".DS_Store").write_bytes(b"hidden")
    assert key(folder, tmp_path / "cache") == before


def test_the_key_follows_everything_that_matters(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keys = [key(folder, cache), key(folder, cache, 1), key(folder, cache, size=16), key(folder, cache, color="rgb")]
    keys.append(key(folder, cache, split=Split(validation=0.2)))
    (folder / "cat" / "0000.png").rename(folder / "cat" / "new.png")
    keys.append(key(folder, cache))
    (folder / "cat" / "new.png").write_bytes(encoded(image(99)))
    keys.append(key(folder, cache))
    (folder / "cat" / "more.png").write_bytes(encoded(image(100)))
    keys.append(key(folder, cache))
    (folder / "cat" / "notes.txt").write_text("a reject belongs to the report")
    keys.append(key(folder, cache))
    assert len(set(keys)) == len(keys)


def test_text_outside_the_pattern_does_not_matter(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", {f"{i}.txt": novel(i) for i in range(4)})
    data = LanguageData(kind="language", path=folder)
    before = content_key(data, seed=0, cache=tmp_path / "cache")
    (folder / "readme.md").write_text("not one of the files")
    assert content_key(data, seed=0, cache=tmp_path / "cache") == before


@pytest.mark.alone
@pytest.mark.slow
def test_two_thousand_unchanged_files_are_not_opened_again(tmp_path: Path, opened: list[str]) -> None:
    folder = write_images(tmp_path / "many", {"a": 1000, "b": 1000}, height=4, width=4)
    cache = tmp_path / "cache"
    time.sleep(0.1)
    opened.clear()
    first = key(folder, cache)
    assert sum(name.startswith(str(folder)) for name in opened) == 2000
    opened.clear()
    began = time.perf_counter()
    assert key(folder, cache) == first
    assert time.perf_counter() - began < 0.5
    assert not [name for name in opened if name.startswith(str(folder))]


def test_one_changed_file_is_the_one_that_is_read(folder: Path, tmp_path: Path, opened: list[str]) -> None:
    time.sleep(0.1)
    before = key(folder, tmp_path / "cache")
    path = folder / "dog" / "0002.png"
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    # even one that kept its size and claims its old time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened.clear()
    assert key(folder, tmp_path / "cache") != before
    assert [name for name in opened if name.startswith(str(folder))] == [str(path)]


def test_a_stamp_no_older_than_the_hash_is_not_trusted(folder: Path, tmp_path: Path, opened: list[str]) -> None:
    path = folder / "dog" / "0002.png"
    # the file could be written again within the same tick of the clock and keep this stamp
    later = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(later, later))
    time.sleep(0.1)
    before = key(folder, tmp_path / "cache")
    opened.clear()
    assert key(folder, tmp_path / "cache") == before
    assert [name for name in opened if name.startswith(str(folder))] == [str(path)]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"format":1,"files":{"cat/0000.png":[1]}}', b"\xff" * 50])
def test_a_damaged_memory_is_made_again(folder: Path, tmp_path: Path, garbage: bytes) -> None:
    before = key(folder, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "stat").iterdir()
    memory.write_bytes(garbage)
    assert key(folder, tmp_path / "cache") == before


def test_a_cache_that_cannot_be_written_costs_time_only(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert key(folder, tmp_path / "file" / "cache") == key(folder, tmp_path / "cache")


def test_a_missing_folder_names_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no data folder '.*/pet'\. Did you mean '.*/pets'\?"):
        key(folder.with_name("pet"), tmp_path)
    with pytest.raises(DataError, match=r"Its parent '.*nowhere' does not exist either"):
        key(tmp_path / "nowhere" / "pets", tmp_path)
    with pytest.raises(DataError, match="is a file, not a folder"):
        key(folder / "cat" / "0000.png", tmp_path)


def test_names_that_are_no_text_can_be_keyed(folder: Path, tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(folder / "cat") + b"/\xff\xfe.png")).write_bytes(encoded(image(50)))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert r"cat/\xff\xfe.png" in [file.name for file in list_files(folder)[0]]
    assert key(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a.txt", "**/*.txt", True), ("x/y/a.txt", "**/*.txt", True), ("a.txt.gz", "**/*.txt", False),
        ("x/a.py", "x/*.py", True), ("x/y/a.py", "x/*.py", False), ("x/y/a.py", "x/**", True),
        ("x/y/a.py", "**/y/**/*.py", True), ("a.md", "*.[mr]*", True), ("a.txt", "./*.txt", True),
    ],
)  # fmt: skip
def test_patterns(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, pattern) is fits
