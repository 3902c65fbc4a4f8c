"""Class folders of images into a store: what is kept, what is put aside and why, and what a user is told."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from data_folders import encoded, image, write_images

from thrifty.data import Store, prepare
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData
from thrifty.spec.events import Event, Progress, Warned


def run(folder: Path, *, seed: int = 0, events: list[Event] | None = None, **values: Any) -> Store:
    data = ImageData.model_validate({"kind": "image", "path": folder, **values})
    seen: list[Event] = [] if events is None else events
    return prepare(data, seed=seed, cache=folder.parent / "cache", emit=seen.append)


def refusal(folder: Path, **values: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(folder, **values)
    return str(caught.value)


def rejects(store: Store) -> dict[str, str]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return {line["path"]: line["reason"] for line in map(json.loads, lines)}


def place(store: Store, name: str) -> str | None:
    return next((split for split in SPLITS if name in store.names(split)), None)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pets", {"cat": 20, "dog": 30})


def test_the_store_holds_the_images_themselves(pets: Path) -> None:
    events: list[Event] = []
    store = run(pets, events=events)
    assert store.dataset.counts == {"train": 40, "validation": 5, "test": 5}
    assert store.dataset.labels == ("cat", "dog")
    assert store.dataset.label_counts == {"cat": 16, "dog": 24}
    assert store.dataset.shape == (1, 12, 12)
    assert sorted(name for split in SPLITS for name in store.names(split)) == sorted(
        str(path.relative_to(pets)) for path in pets.rglob("*.png")
    )
    for split in SPLITS:
        x, y = store.array(split, "x"), store.array(split, "y")
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        for row, name in enumerate(store.names(split)):
            assert np.array_equal(x[row, :, :, 0], cv2.imread(str(pets / name), cv2.IMREAD_GRAYSCALE))
            assert store.dataset.labels[y[row]] == name.split("/")[0]
    assert events[-1] == Progress("prepare", 50, 50, "images")
    assert store.dataset.stored_bytes == sum(path.stat().st_size for path in store.folder.glob("*.npy"))


def test_mean_and_deviation_are_of_the_training_split(pets: Path) -> None:
    for path in pets.rglob("*1.png"):
        path.write_bytes(encoded(image(int(path.stem) + 5000, channels=3)))
    store = run(pets)
    train = store.array("train", "x").astype(np.float64) / 255
    assert store.dataset.shape[0] == 3
    assert np.allclose(store.dataset.mean, train.mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(store.dataset.std, train.std((0, 1, 2)), atol=1e-9)


def test_arrays_are_mapped_and_read_only(pets: Path) -> None:
    array = run(pets).array("train", "x")
    assert isinstance(array.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_numbers_as_labels_are_ordered_as_numbers(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "digits", {"10": 3, "9": 3, "0": 3})
    assert run(folder).dataset.labels == ("0", "9", "10")


def test_same_data_same_bytes_in_another_place(pets: Path, tmp_path: Path) -> None:
    first = run(pets)
    (tmp_path / "other").mkdir()
    second = run(pets.rename(tmp_path / "other" / "animals"))
    assert first.folder != second.folder
    assert first.files == second.files
    assert {path.name for path in first.folder.iterdir()} == {*first.files, "files.json"}


def test_a_second_call_changes_nothing(pets: Path) -> None:
    first = run(pets)
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    events: list[Event] = []
    second = run(pets, events=events)
    assert not events
    assert {path.name: path.stat().st_mtime_ns for path in second.folder.iterdir()} == before


def test_a_new_image_leaves_the_others_where_they_were(pets: Path) -> None:
    before = run(pets)
    (pets / "cat" / "new.png").write_bytes(encoded(image(77)))
    after = run(pets)
    names = [name for split in SPLITS for name in before.names(split)]
    assert sum(place(before, name) != place(after, name) for name in names) <= 3


def test_broken_and_foreign_files_are_put_aside_with_the_reason(pets: Path, tmp_path: Path) -> None:
    good = (pets / "cat" / "0000.png").read_bytes()
    (pets / "cat" / "cut.png").write_bytes(good[: len(good) // 2])
    (pets / "cat" / "text.png").write_text("no image at all")
    (pets / "cat" / "none.jpg").write_bytes(b"")
    (pets / "cat" / "notes.txt").write_text("labels by hand")
    (pets / "cat" / ".hidden.png").write_bytes(b"ignored")
    (pets / "dog" / "wide.png").write_bytes(encoded(image(3, 60, 70)))
    (pets / "dog" / "heavy.png").write_bytes(good + b"\0" * 100_000)
    (pets / "readme.md").write_text("beside the class folders")
    os.mkfifo(pets / "dog" / "pipe.png")
    outside = tmp_path / "secret.png"
    outside.write_bytes(encoded(image(4)))
    (pets / "dog" / "link.png").symlink_to(outside)
    (pets / "dog" / "nothing.png").symlink_to(pets / "dog" / "gone.png")
    (pets / "dog" / "loop").symlink_to(pets, target_is_directory=True)
    events: list[Event] = []
    store = run(pets, events=events, max_pixels=4000, max_file_bytes="50kB")
    assert rejects(store) == {
        "cat/cut.png": "truncated: the PNG has no end chunk",
        "cat/text.png": "not an image: neither PNG, JPEG, BMP, GIF, WebP nor TIFF by its first bytes",
        "cat/none.jpg": "empty",
        "cat/notes.txt": "not an image file",
        "dog/wide.png": "too many pixels: 70x60 is over 4,000",
        "dog/heavy.png": f"too large: {(len(good) + 100_000) / 1024:.1f} KiB, over the limit of 48.8 KiB",
        "readme.md": "not in a class folder",
        "dog/pipe.png": "not a regular file",
        "dog/link.png": "link that leaves the folder",
        "dog/nothing.png": "link to nothing",
        "dog/loop": "link to a folder",
    }
    cleaning = store.dataset.cleaning
    assert (cleaning.seen, cleaning.kept, cleaning.rejected["truncated"]) == (61, 50, 1)
    assert cleaning.seen == cleaning.kept + sum(cleaning.rejected.values())
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.message.startswith("11 of 61 files are not used")
    assert warning.details["too large"] == "1"


def test_copies_are_kept_once_and_never_in_two_splits(pets: Path) -> None:
    for number in range(20):
        pixels = cv2.imread(str(pets / "cat" / f"{number:04d}.png"), cv2.IMREAD_GRAYSCALE)
        # the same pixels in another format, and in three equal channels
        (pets / "cat" / f"copy{number}.bmp").write_bytes(encoded(pixels, ".bmp"))
        (pets / "cat" / f"three{number}.png").write_bytes(encoded(cv2.merge([pixels] * 3)))
    store = run(pets)
    cleaning = store.dataset.cleaning
    assert cleaning.kept == 50
    assert cleaning.duplicates + cleaning.across_splits == 40
    assert cleaning.across_splits > 0
    assert store.dataset.counts == {"train": 40, "validation": 5, "test": 5}
    pixels_of = [x.tobytes() for split in SPLITS for x in store.array(split, "x")]
    assert max(Counter(pixels_of).values()) == 1
    across = [name for name, why in rejects(store).items() if why.startswith("duplicate across splits: ")]
    assert all(place(store, rejects(store)[name].split(": ")[1]) in {"validation", "test"} for name in across)


def test_one_image_under_two_labels_is_put_aside_everywhere(pets: Path) -> None:
    (pets / "dog" / "stray.png").write_bytes((pets / "cat" / "0003.png").read_bytes())
    store = run(pets)
    reason = "same image under labels cat and dog"
    assert rejects(store) == {"cat/0003.png": reason, "dog/stray.png": reason}
    assert f"{reason}: 2 files, all put aside" in store.dataset.cleaning.notes


def test_mixed_sizes_are_resized_and_said_or_rejected(pets: Path) -> None:
    (pets / "cat" / "big.png").write_bytes(encoded(image(5, 40, 30)))
    store = run(pets)
    assert store.dataset.shape == (1, 12, 12)
    assert "images of 2 sizes, 12x12 to 30x40, were brought to 12x12" in store.dataset.cleaning.notes
    assert rejects(run(pets, mixed_sizes="reject")) == {"cat/big.png": "another size: 30x40, most are 12x12"}


@pytest.mark.parametrize(
    ("height", "width", "side", "note"),
    [
        (5, 6, 8, "are enlarged"), (9, 9, 9, "enlarging them would cost compute"), (30, 50, 30, "of every image"),
        (300, 400, 224, "the median side is 300 pixels"),
    ],
)  # fmt: skip
def test_size_is_decided_from_the_data(tmp_path: Path, height: int, width: int, side: int, note: str) -> None:
    dataset = run(write_images(tmp_path / "set", {"a": 3, "b": 3}, height=height, width=width)).dataset
    assert dataset.shape == (1, side, side)
    assert note in dataset.cleaning.notes[0]


def test_one_coloured_image_makes_the_set_coloured_unless_gray_is_asked(pets: Path) -> None:
    (pets / "cat" / "colour.png").write_bytes(encoded(image(5, channels=3)))
    assert run(pets).dataset.shape == (3, 12, 12)
    gray = run(pets, color="gray", size=10)
    assert gray.dataset.shape == (1, 10, 10)
    assert gray.dataset.cleaning.notes == ("1 images in colour were made gray",)


def test_images_directly_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    assert "has no class folders (empty;" in refusal(folder)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(image(number)))
    says = refusal(folder)
    assert "has no class folders (3 images lie directly in it;" in says
    assert "flat/cat/1.png" in says


def test_an_empty_class_folder(pets: Path) -> None:
    (pets / "owl").mkdir()
    assert "class folder 'owl' in" in refusal(pets)
    (pets / "owl" / ".keep").write_text("")
    assert "is empty. Fill it or remove it." in refusal(pets)


def test_one_class_only(tmp_path: Path) -> None:
    assert "has one class only, 'cat'" in refusal(write_images(tmp_path / "pets", {"cat": 5}))


def test_a_class_too_small_for_three_splits(pets: Path) -> None:
    write_images(pets, {"owl": 2}, height=13)
    (pets / "owl" / "cut.png").write_bytes(encoded(image(9))[:60])
    assert "class 'owl' in" in refusal(pets)
    assert "has 2 usable images; 1 truncated, and needs 3: one for each split" in refusal(pets)
    assert not list((pets.parent / "cache" / "prepared").iterdir())


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            (folder / label / f"{number}.png").write_bytes(encoded(image(number))[:50])
    assert "can be read (6 truncated)" in refusal(folder)
    (folder / "a" / "notes.txt").write_text("")
    assert "(6 truncated, 1 not an image file). Images are PNG" in refusal(folder)


def test_a_file_that_changes_meanwhile_stops_the_work(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # so that the first event comes before the last file is read
    monkeypatch.setattr("thrifty.data.teller._SECONDS_BETWEEN", 0)

    def disturb(event: Event) -> None:
        (pets / "dog" / "0029.png").write_bytes(encoded(image(1234)))

    write_images(pets, {"cat": 300})
    data = ImageData(kind="image", path=pets)
    with pytest.raises(DataError, match=r"'dog/0029.png' changed while the data was being prepared\. Wait until"):
        prepare(data, seed=0, cache=pets.parent / "cache", emit=disturb)


def test_real_photographs(tmp_path: Path) -> None:
    archive = Path(__file__).parents[2] / "../shared/data/cifar10_jpeg/cifar10_jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip("the shared CIFAR-10 images are not here")
    import tarfile

    with tarfile.open(archive) as tar:
        for _, member in zip(range(400), (m for m in tar if m.isfile() and m.name.endswith(".jpg")), strict=False):
            label, name = member.name.split("/")[-2:]
            (tmp_path / "cifar" / label).mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            (tmp_path / "cifar" / label / name).write_bytes(content.read())
    labels = [path.name for path in (tmp_path / "cifar").iterdir()]
    if len(labels) == 1:
        write_images(tmp_path / "cifar", {"noise": 10}, height=32, width=32, channels=3)
    dataset = run(tmp_path / "cifar").dataset
    assert dataset.shape == (3, 32, 32)
    assert dataset.cleaning.kept >= 400 - dataset.cleaning.duplicates
    assert all(0.05 < deviation < 0.5 for deviation in dataset.std)
