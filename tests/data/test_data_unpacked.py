"""Archives are unpacked once and whole, or not at all: what leads out of its folder, or fills the disk, is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import write_images

from thrifty.api import silent
from thrifty.data import prepare
from thrifty.data import unpacked as data_unpacked
from thrifty.data.look import look
from thrifty.data.unpacked import unpacked
from thrifty.errors import DataError
from thrifty.spec import ImageData

Fill = Callable[[Path, dict[str, bytes]], None]


def tar(mode: str) -> Fill:
    def fill(path: Path, files: dict[str, bytes]) -> None:
        with tarfile.open(path, f"w:{mode}") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return fill


def fill_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


FORMS: dict[str, Fill] = {
    "a.tar": tar(""), "a.tar.gz": tar("gz"), "a.tgz": tar("gz"), "a.tar.xz": tar("xz"), "a.tar.bz2": tar("bz2"),
    "A.ZIP": fill_zip,
}  # fmt: skip
FILES = {"one/cat/1.txt": b"cat", "one/dog/2.txt": b"dog", "two/3.txt": b""}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(cache: Path) -> list[str]:
    return [path.name for path in (cache / "unpacked").glob("*")]


@pytest.mark.parametrize("name", FORMS)
def test_what_was_packed_is_unpacked_once(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name, FILES)
    folder = unpacked(tmp_path / name, tmp_path / "cache")
    assert contents(folder) == FILES
    (folder / "two" / "3.txt").write_bytes(b"still there")
    (tmp_path / name).rename(tmp_path / f"moved-{name}")
    assert unpacked(tmp_path / f"moved-{name}", tmp_path / "cache") == folder
    assert (folder / "two" / "3.txt").read_bytes() == b"still there"
    assert len(left(tmp_path / "cache")) == 1


def test_a_folder_around_everything_is_it(tmp_path: Path) -> None:
    tar("gz")(tmp_path / "a.tgz", {f"data-1.0/raw/{name}": content for name, content in FILES.items()})
    assert contents(unpacked(tmp_path / "a.tgz", tmp_path / "cache")) == FILES


@pytest.mark.parametrize("name", ["1.png", "a.csv", "labels-idx1-ubyte.gz"])
def test_what_is_no_archive_comes_back(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert unpacked(tmp_path / name, tmp_path / "cache") == tmp_path / name
    assert unpacked(tmp_path, tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


def linked(kind: bytes, target: str) -> Fill:
    def fill(path: Path, files: dict[str, bytes]) -> None:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = kind, target
            archive.addfile(member)

    return fill


def zip_link(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


LEADS_OUT: dict[str, tuple[str, Fill, dict[str, bytes]]] = {
    "tar, a name with ..": ("a.tar", tar(""), {"../out.txt": b"x"}),
    "tar, a link": ("a.tar", linked(tarfile.SYMTYPE, "/etc/passwd"), {}),
    "tar, a hard link": ("a.tar", linked(tarfile.LNKTYPE, "../../out.txt"), {}),
    "tar, a device": ("a.tar", linked(tarfile.CHRTYPE, ""), {}),
    "zip, a name with ..": ("a.zip", fill_zip, {"a/../../out.txt": b"x"}),
    "zip, a whole path": ("a.zip", fill_zip, {"/tmp/out.txt": b"x"}),
    "zip, another system's path": ("a.zip", fill_zip, {"..\\out.txt": b"x"}),
    "zip, a link": ("a.zip", zip_link, {}),
}


@pytest.mark.parametrize("what", LEADS_OUT)
def test_what_would_lead_out_is_refused(what: str, tmp_path: Path) -> None:
    name, fill, files = LEADS_OUT[what]
    fill(tmp_path / name, files)
    with pytest.raises(DataError, match="is not unpacked: "):
        unpacked(tmp_path / name, tmp_path / "cache")
    assert left(tmp_path / "cache") == [] and not list(tmp_path.rglob("out.txt"))


@pytest.mark.parametrize("name", FORMS)
def test_a_damaged_one_is_told(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name, {"a.bin": os.urandom(4000), "b.bin": os.urandom(4000)})
    raw = (tmp_path / name).read_bytes()
    for damaged in (b"", b"nothing of the kind" * 100, raw[: len(raw) // 3]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.\w+|A\.ZIP"):
            unpacked(tmp_path / name, tmp_path / "cache")
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["a.tar.xz", "A.ZIP"])
def test_a_small_one_may_not_fill_the_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_unpacked, "LEAST_BYTES", 1 << 16)
    FORMS[name](tmp_path / name, {str(number): bytes(1 << 20) for number in range(8)})
    with pytest.raises(DataError, match=r"unpacks to over .*200 times its size.*Unpack it yourself"):
        unpacked(tmp_path / name, tmp_path / "cache")
    assert left(tmp_path / "cache") == []


@pytest.mark.slow
def test_a_kill_leaves_no_half_of_one(tmp_path: Path) -> None:
    fill_zip(tmp_path / "a.zip", FILES)
    program = (
        "import os, sys; from pathlib import Path; from thrifty.data import unpacked\n"
        "unpacked.os.sync = lambda: os.kill(os.getpid(), 9)\n"
        "unpacked.unpacked(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "a.zip", tmp_path / "cache"], check=False)
    assert killed.returncode == -9 and len(left(tmp_path / "cache")) == 1
    assert contents(unpacked(tmp_path / "a.zip", tmp_path / "cache")) == FILES
    assert len(left(tmp_path / "cache")) == 1


def test_data_in_an_archive_is_looked_at_and_prepared(tmp_path: Path) -> None:
    images = write_images(tmp_path / "pets", {"cat": 20, "dog": 20})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "SOURCE.txt").write_text("where it comes from")
    with tarfile.open(tmp_path / "data" / "my pets.tar.xz", "w:xz") as archive:
        archive.add(images, "pets")
    for path in (tmp_path / "data", tmp_path / "data" / "my pets.tar.xz"):
        found = look(path, tmp_path / "cache")
        assert found.says.startswith("my pets.tar.xz: 40 images, 2 labels")
        assert found.job["name"] == "my-pets"
        assert found.job["data"] == {"kind": "image", "path": str(tmp_path / "data" / "my pets.tar.xz")}
    data = ImageData(kind="image", path=tmp_path / "data" / "my pets.tar.xz")
    packed = prepare(data, seed=0, cache=tmp_path / "cache", emit=silent)
    plain = prepare(ImageData(kind="image", path=images), seed=0, cache=tmp_path / "cache", emit=silent)
    # the same content, wherever it lies, is prepared once
    assert packed.folder == plain.folder and packed.dataset.counts["train"] == 32
