"""Tar shards of images with their labels beside them: what is found, what is put aside, and nothing is unpacked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from data_folders import encoded, image
from hypothesis import given
from hypothesis import strategies as st

from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.images.image import decode
from thrifty.data.images.shards import holds_samples, read_shard
from thrifty.data.inputs import list_one
from thrifty.data.look import look
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData

Files = Mapping[str, bytes | str]
LABELS = ("cat", "dog")


def shard(path: Path, files: Files, form: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, form) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def samples(start: int, count: int, label: Callable[[str], dict[str, str]]) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for number in range(start, start + count):
        found[f"{number:03}.png"] = encoded(image(number))
        found |= {f"{number:03}{suffix}": text for suffix, text in label(LABELS[number % 2]).items()}
    return found


FORMS: dict[str, Callable[[str], dict[str, str]]] = {
    "cls": lambda label: {".cls": f"{label}\n"},
    "number": lambda label: {".cls": str(LABELS.index(label))},
    "json": lambda label: {".json": json.dumps({"width": 12, "label": label})},
    "json of itself": lambda label: {".json": json.dumps(label)},
    "txt": lambda label: {".txt": label},
    "cls before json": lambda label: {".json": json.dumps({"label": "fish"}), ".cls": label},
}


def prepared(path: Path, cache: Path) -> Store:
    return prepare(ImageData(kind="image", path=path), seed=0, cache=cache, emit=silent)


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_read_in_each_form(form: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", samples(0, 4, FORMS[form]))
    (file,), _ = list_one(path)
    found, rejects = read_shard(file, max_file_bytes=10**6)
    names = ("0", "1") if form == "number" else LABELS
    assert [(each.name, each.label, each.split) for each in found] == [
        (f"a.tar/{number:03}.png", names[number % 2], "") for number in range(4)
    ]
    assert rejects == []
    assert all(each.read() == encoded(image(number)) for number, each in enumerate(found))


def test_shards_of_splits_are_looked_at_and_prepared(tmp_path: Path) -> None:
    data = tmp_path / "pets"
    shard(data / "pets-train-000.tar", samples(0, 20, FORMS["cls"]))
    shard(data / "pets-train-001.tar", samples(20, 20, FORMS["cls"]))
    shard(data / "val" / "000.tar", samples(40, 6, FORMS["cls"]))
    (data / "README.md").write_text("about it")
    found = look(data, tmp_path / "cache")
    assert found.says == "pets/: 46 images, 2 labels (cat 50 %, dog 50 %), 12x12 gray, 3 shards, train 40, validation 6"
    store = prepared(data, tmp_path / "cache")
    assert store.dataset.counts["validation"] == 6 and sum(store.dataset.counts.values()) == 46
    assert {name.split("/")[-2] for name in store.names("validation")} == {"000.tar"}
    for part in SPLITS:
        for name, pixels in zip(store.names(part), store.array(part, "x"), strict=True):
            assert np.array_equal(pixels, decode(encoded(image(int(Path(name).stem))), max_pixels=10**4))
    assert store.dataset.cleaning.rejected == {"not a shard": 1}
    assert not (tmp_path / "cache" / "unpacked").exists()
    assert prepared(data, tmp_path / "cache").folder == store.folder


def test_one_shard_alone(tmp_path: Path) -> None:
    path = shard(tmp_path / "pets.tar", samples(0, 20, FORMS["cls"]))
    assert look(path, tmp_path / "cache").says.startswith("pets.tar: 20 images, 2 labels")
    assert sum(prepared(path, tmp_path / "cache").dataset.counts.values()) == 20


def test_an_archive_of_class_folders_is_no_shard(tmp_path: Path) -> None:
    files = {f"{LABELS[n % 2]}/{n}.png": encoded(image(n)) for n in range(20)}
    assert not holds_samples(shard(tmp_path / "folders.tar", files))
    assert holds_samples(shard(tmp_path / "samples.tar", samples(0, 2, FORMS["cls"])))
    assert not holds_samples(shard(tmp_path / "packed.tar.gz", samples(0, 2, FORMS["cls"]), "w:gz"))
    assert not holds_samples(tmp_path / "none.tar")


GOOD = {"000.png": encoded(image(0)), "000.cls": "cat"}
BROKEN: dict[str, tuple[Files, dict[str, str]]] = {
    "no label": ({"1.png": encoded(image(1))}, {"1.png": "no label beside it"}),
    "no image": ({"1.cls": "cat"}, {"1.cls": "label of no image"}),
    "empty label": ({"1.png": encoded(image(1)), "1.cls": " \n"}, {"1.cls": "empty label"}),
    "no text": ({"1.png": b"x", "1.cls": b"\xff\xfe"}, {"1.cls": "label cannot be read: 'utf-8' codec"}),
    "a caption": ({"1.png": b"x", "1.txt": "so long " * 60}, {"1.txt": "label too long: 479 characters"}),
    "a book": ({"1.png": b"x", "1.txt": "x" * 70_000}, {"1.txt": "label too long: 70,000 bytes"}),
    "no JSON": ({"1.png": b"x", "1.json": "{"}, {"1.json": "label cannot be read: Expecting property name"}),
    "no such key": ({"1.png": b"x", "1.json": "{}"}, {"1.json": "label cannot be read: none of its keys is cls,"}),
    "a list": ({"1.png": b"x", "1.json": "[1, 2]"}, {"1.json": "label cannot be read: a label is a name or a whole"}),
    "deep JSON": ({"1.png": b"x", "1.json": "[" * 60_000}, {"1.json": "label cannot be read"}),
    "two images": (
        {"1.png": encoded(image(1)), "1.jpg": encoded(image(1), ".jpg"), "1.cls": "dog"},
        {"1.jpg": "image of a name that another has"},
    ),
    "something else": ({"1.png": b"x", "1.cls": "dog", "1.seg.png": b"x"}, {"1.seg.png": "neither an image nor"}),
    "too large": ({"1.png": b"x" * 99_999, "1.cls": "dog"}, {"1.png": "too large: 99,999", "1.cls": "label of no"}),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_used_is_put_aside(what: str, tmp_path: Path) -> None:
    files, told = BROKEN[what]
    (file,), _ = list_one(shard(tmp_path / "a.tar", {**GOOD, **files}))
    found, rejects = read_shard(file, max_file_bytes=50_000 if what == "too large" else 10**6)
    assert "a.tar/000.png" in [each.name for each in found]
    assert {each.name for each in rejects} == {f"a.tar/{name}" for name in told}
    assert all((each.reason + each.detail).startswith(told[each.name[6:]]) for each in rejects)


def test_links_and_names_told_twice_are_put_aside(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", GOOD)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        again = tarfile.TarInfo("000.cls")
        archive.addfile(again, io.BytesIO())
    (file,), _ = list_one(path)
    found, rejects = read_shard(file, max_file_bytes=10**6)
    assert [each.label for each in found] == ["cat"]
    assert {each.name: each.reason for each in rejects} == {
        "a.tar/1.png": "not a regular file",
        "a.tar/000.cls": "named twice",
    }


@given(cut=st.integers(1, 9_000))
def test_a_shard_that_is_cut_off_says_so(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = shard(folder / "whole.tar", samples(0, 5, FORMS["cls"])).read_bytes()
    # two empty blocks end an archive; what fills it up after them says nothing
    end = len(whole.rstrip(b"\0")) + 1_000
    length = max(end - cut, 1)
    (folder / "cut.tar").write_bytes(whole[:length])
    (file,), _ = list_one(folder / "cut.tar")
    found, rejects = read_shard(file, max_file_bytes=10**6)
    assert all(each.read() == encoded(image(int(each.name[-7:-4]))) for each in found)
    assert len(found) == 5 or rejects


def test_a_shard_that_changes_meanwhile_stops_the_work(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", GOOD)
    (file,), _ = list_one(path)
    (sample,), _ = read_shard(file, max_file_bytes=10**6)
    with pytest.raises(DataError, match=r"'a\.tar/000\.png' changed while the data was being prepared"):
        sample.read_unchanged("another")
    path.unlink()
    with pytest.raises(DataError, match=r"'a\.tar' was there and now cannot be read"):
        sample.read_unchanged("another")
