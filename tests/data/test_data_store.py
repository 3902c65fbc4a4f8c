"""Stores on disk: damage is seen and mended, kills and full disks leave nothing half made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_folders import image_store, write_images

from thrifty.data import Store, content_key, open_store, prepare
from thrifty.data.draft import drafting, remove_leftovers
from thrifty.errors import DataError, StorageError
from thrifty.spec import ImageData
from thrifty.spec.events import Event, Warned

PREPARE = """
import sys
from pathlib import Path
from thrifty.data import prepare
from thrifty.spec import ImageData
data = ImageData(kind="image", path=Path(sys.argv[1]), size=int(sys.argv[3]))
print("ready", flush=True)
print(prepare(data, seed=0, cache=Path(sys.argv[2]), emit=lambda event: None).folder)
"""


def start(folder: Path, cache: Path, size: int = 12, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + PREPARE, str(folder), str(cache), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    return ImageData(kind="image", path=write_images(tmp_path / "pets", {"cat": 10, "dog": 10}), size=12)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(data: ImageData, cache: Path) -> tuple[Store, list[Event]]:
    events: list[Event] = []
    return prepare(data, seed=0, cache=cache, emit=events.append), events


def test_open_store(data: ImageData, cache: Path) -> None:
    key = content_key(data, seed=0, cache=cache)
    assert open_store(cache, key) is None
    made, _ = run(data, cache)
    found = open_store(cache, key)
    assert found is not None
    assert found.folder == made.folder == cache / "prepared" / key
    assert found.dataset == made.dataset
    assert found.dataset.key == key
    assert np.array_equal(found.array("test", "x"), made.array("test", "x"))


@pytest.mark.parametrize("name", ["train.x.npy", "test.y.npy", "meta.json", "names.json", "files.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
@pytest.mark.slow
def test_a_damaged_store_is_never_used(data: ImageData, cache: Path, name: str, damage: str) -> None:
    store, _ = run(data, cache)
    good = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    # known to be good by now, so that only the change can tell
    assert open_store(cache, store.dataset.key) is not None
    path = store.folder / name
    if damage == "flip":
        content = bytearray(good[name])
        content[len(content) * 2 // 3] ^= 1
        path.write_bytes(bytes(content))
    elif damage == "cut":
        path.write_bytes(good[name][:-1])
    elif damage == "grow":
        path.write_bytes(good[name] + b"x")
    else:
        path.unlink()
    assert open_store(cache, store.dataset.key) is None
    again, events = run(data, cache)
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert "was damaged and is made anew" in warning.message
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == good
    assert list((cache / "prepared").iterdir()) == [store.folder]


def test_a_folder_that_is_no_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"prepared data in '.*' is damaged: .*No such file.*Run again: it is made anew"
    ):
        Store(tmp_path)


def test_a_failed_draft_leaves_nothing(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt), drafting(cache, "key") as draft:
        draft.write("part", "half")
        raise KeyboardInterrupt
    assert not list((cache / "prepared").iterdir())


def test_leftovers_of_the_dead_go_and_drafts_of_the_living_stay(data: ImageData, cache: Path) -> None:
    dead = cache / "prepared" / "abc.tmp-1-00"
    dead.mkdir(parents=True)
    (dead / "train.x.npy").write_bytes(b"half")
    with drafting(cache, "living") as draft:
        draft.write("part", "half")
        run(data, cache)
        assert not dead.exists()
        assert (draft.folder / "part").read_text() == "half"


def test_whoever_comes_second_takes_the_first_ones_store(cache: Path) -> None:
    first = image_store(cache, 5)
    inode = (first.folder / "files.json").stat().st_ino
    second = image_store(cache, 5)
    assert second.folder == first.folder
    assert (second.folder / "files.json").stat().st_ino == inode
    assert list((cache / "prepared").iterdir()) == [first.folder]


def test_a_file_in_the_stores_place_is_put_aside(cache: Path) -> None:
    (cache / "prepared").mkdir(parents=True)
    (cache / "prepared" / "images5").write_text("in the way")
    assert image_store(cache, 5).dataset.counts["train"] == 5


@pytest.mark.slow
def test_two_processes_at_once_both_succeed(tmp_path: Path, cache: Path) -> None:
    folder = write_images(tmp_path / "pets", {"cat": 300, "dog": 300})
    both = [start(folder, cache) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    (store,) = (cache / "prepared").iterdir()
    assert {out.split()[-1] for out, _ in answers} == {str(store)}
    assert Store(store).dataset.counts["train"] == 480


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_no_half_store(tmp_path: Path, cache: Path) -> None:
    folder = write_images(tmp_path / "pets", {"cat": 500, "dog": 500})
    left = 0
    for number in range(8):
        process = start(folder, cache, size=16 + number)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 + 0.03 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left += len(list((cache / "prepared").glob("*.tmp-*"))) if cache.exists() else 0
        for path in (cache / "prepared").glob("*"):
            assert ".tmp-" in path.name or Store(path)
    assert left, "no kill fell into the work"
    remove_leftovers(cache / "prepared")
    assert not list((cache / "prepared").glob("*.tmp-*"))
    data = ImageData(kind="image", path=folder, size=16)
    assert run(data, cache)[0].dataset.counts["train"] == 800


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path: Path, cache: Path) -> None:
    folder = write_images(tmp_path / "pets", {"cat": 30, "dog": 30})
    # a limit on the size of one file is met the same way as the end of a disk
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    process = start(folder, cache, size=64, before=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    says = err.strip().splitlines()[-1]
    assert says.startswith("thrifty.errors.DiskFullError: the disk is full: cannot write the prepared data")
    assert f"needed, {60 * (2 * 64 * 64 + 8)} bytes)" in says
    assert str(cache / "prepared") in says
    assert "THRIFTY_CACHE" in says
    assert not list((cache / "prepared").iterdir())


def test_no_room_is_said_before_anything_is_written(
    data: ImageData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 5000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError) as caught:
        run(data, cache)
    assert str(caught.value) == (
        f"the prepared data needs 5.8 KiB (5920 bytes) in '{cache / 'prepared'}', which has 4.9 KiB free. "
        "Free some space, or set THRIFTY_CACHE to a folder with room that you may write to."
    )
    assert not list((cache / "prepared").iterdir())


def test_a_cache_that_cannot_be_written(data: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write the prepared data to '.*file/cache/prepared'.*THRIFTY_CACHE"):
        run(data, tmp_path / "file" / "cache")
    if os.geteuid() != 0:
        readonly = tmp_path / "readonly"
        readonly.mkdir(mode=0o500)
    elif Path("/sys/kernel").is_dir():
        readonly = Path("/sys/kernel")
    else:
        pytest.skip("the superuser may write everywhere here")
    with pytest.raises(StorageError, match=r"is read-only for this user\. .*THRIFTY_CACHE"):
        run(data, readonly / "cache")
