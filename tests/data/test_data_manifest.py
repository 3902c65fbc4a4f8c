"""Tables that name images: columns are found, rows that cannot be used are put aside, and nothing is guessed twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars
import pytest
from data_folders import encoded, image, write_images

from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.look import look
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData, Split

COUNT = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in one folder, of which a table is to tell the labels."""
    write_images(tmp_path / "all", {"one": COUNT})
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "all" / "one", tmp_path / "data" / "pictures")
    return tmp_path / "data"


def label(number: int) -> str:
    return "cat" if number % 2 else "dog"


def part(number: int) -> str:
    return "test" if number % 5 == 0 else "dev" if number % 5 == 1 else "train"


def table(rows: Sequence[Sequence[str]], form: str) -> str:
    if form == ".jsonl":
        head, *body = rows
        return "".join(json.dumps(dict(zip(head, each, strict=True))) + "\n" for each in body)
    mark = "," if form == ".csv" else "\t"
    return "".join(mark.join(each) + "\n" for each in rows)


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    if path.suffix == ".parquet":
        head, *body = rows
        polars.DataFrame(body, schema=list(head), orient="row").write_parquet(path)
    else:
        path.write_text(table(rows, path.suffix))


def prepared(folder: Path, **more: Any) -> Store:
    return prepare(ImageData(kind="image", path=folder, **more), seed=0, cache=folder.parent / "cache", emit=silent)


def labels_of(store: Store) -> dict[str, str]:
    return {
        name: store.dataset.labels[y]
        for each in SPLITS
        for name, y in zip(store.names(each), store.array(each, "y"), strict=True)
    }


NAMES = {
    "from the folder": "pictures/{:04d}.png",
    "bare": "{:04d}.png",
    "without suffix": "{:04d}",
}


@pytest.mark.parametrize("form", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("how", NAMES)
def test_columns_are_found(how: str, form: str, folder: Path) -> None:
    rows = [["id", "file", "species", "width"]]
    rows += [[str(n), NAMES[how].format(n), label(n), str(n % 7)] for n in range(COUNT)]
    write(folder / f"labels{form}", rows)
    store = prepared(folder)
    assert labels_of(store) == {f"pictures/{n:04d}.png": label(n) for n in range(COUNT)}
    says = f"'labels{form}' names the images: image 'file', label 'species'"
    assert says in store.dataset.cleaning.notes and store.dataset.cleaning.rejected == {}
    found = look(folder)
    assert found.kind == "image" and found.why["data"] == says
    assert found.says == f"data/: 60 images, 2 labels (cat 50 %, dog 50 %), 12x12 gray, as 'labels{form}' says"


def test_a_column_says_the_split(folder: Path) -> None:
    rows = [["image", "label", "Split"], *([f"{n:04d}.png", label(n), part(n)] for n in range(COUNT))]
    (folder / "labels.csv").write_text(table(rows, ".csv"))
    store = prepared(folder)
    assert store.dataset.counts == {"train": 36, "validation": 12, "test": 12}
    for each, said in (("train", "train"), ("validation", "dev"), ("test", "test")):
        assert {part(int(Path(name).stem)) for name in store.names(each)} == {said}
    assert look(folder).says.endswith("train 36, validation 12, test 12, as 'labels.csv' says")


def test_tables_named_after_splits_are_read_together(folder: Path) -> None:
    for said, numbers in (("train", range(40)), ("valid", range(40, 50)), ("test", range(50, COUNT))):
        write(folder / f"{said}.csv", [["image", "label"], *([f"{n:04d}.png", label(n)] for n in numbers)])
    write(folder / "all.csv", [["image", "label"], *([f"{n:04d}.png", label(n)] for n in range(COUNT))])
    store = prepared(folder)
    assert store.dataset.counts == {"train": 40, "validation": 10, "test": 10}
    assert {int(Path(name).stem) // 10 for name in store.names("validation")} == {4}
    assert store.dataset.cleaning.rejected == {"not named after a split": 1}
    tables = "'test.csv', 'train.csv' and 'valid.csv'"
    says = f"{tables} name the images: image 'image', label 'label', split by their own names; left out: 'all.csv'"
    assert says in store.dataset.cleaning.notes
    assert f"train 40, validation 10, test 10, as {tables} say" in look(folder).says


def test_tables_in_folders_of_splits_are_read_together(folder: Path) -> None:
    # as Hugging Face has folders of images with metadata: names are used anew in each
    for said, numbers in (("train", range(40)), ("test", range(40, COUNT))):
        (folder / said).mkdir()
        for at, n in enumerate(numbers):
            (folder / "pictures" / f"{n:04d}.png").rename(folder / said / f"{at}.png")
        rows = [[f"{at}.png", label(n)] for at, n in enumerate(numbers)]
        write(folder / said / "metadata.csv", [["file_name", "label"], *rows])
    store = prepared(folder)
    assert store.dataset.counts == {"train": 36, "validation": 4, "test": 20}
    assert labels_of(store) == {
        f"{said}/{at}.png": label(at + start) for said, start, count in (("train", 0, 40), ("test", 40, 20))
        for at in range(count)
    }  # fmt: skip


def test_columns_without_names_are_found_too(folder: Path) -> None:
    (folder / "labels.tsv").write_text(table([[label(n), f"{n:04d}"] for n in range(COUNT)], ".tsv"))
    store = prepared(folder)
    assert labels_of(store)["pictures/0007.png"] == "cat"
    assert "'labels.tsv' names the images: image column 2, label column 1" in store.dataset.cleaning.notes


def test_what_cannot_be_used_is_put_aside_and_told(folder: Path) -> None:
    rows = [["image", "label", "split"], *([f"{n:04d}.png", label(n), "train"] for n in range(4, COUNT))]
    broken = {
        "9999.png,cat,train": "names no image: '9999.png'",
        "0004.png,dog,train": "named twice: pictures/0004.png",
        "0005.png,dog,train": "same image under labels cat and dog",
        "0001.png,,train": "empty label: of '0001.png'",
        "0002.png,cat,sometimes": "names no split: 'sometimes'",
        "0003.png,cat": "ragged row: 2 cells, 3 are usual",
    }
    (folder / "labels.csv").write_text(table(rows, ".csv") + "".join(f"{row}\n" for row in broken))
    (folder / "notes.md").write_text("about it")
    store = prepared(folder)
    told = {
        line["path"]: line["reason"]
        for line in map(json.loads, (store.folder / "rejects.jsonl").read_text().splitlines())
    }
    assert told == {
        **{f"labels.csv:{len(rows) + number}": reason for number, reason in enumerate(broken.values(), 1)},
        "labels.csv:3": "same image under labels cat and dog",
        **dict.fromkeys((f"pictures/000{n}.png" for n in (0, 1, 2, 3, 5)), "named by no usable row"),
        "notes.md": "not an image file",
    }
    assert set(labels_of(store)) == {f"pictures/{n:04d}.png" for n in (4, *range(6, COUNT))}


def test_another_label_is_another_store(folder: Path) -> None:
    rows = [["image", "label"], *([f"{n:04d}.png", label(n)] for n in range(COUNT))]
    (folder / "labels.csv").write_text(table(rows, ".csv"))
    one = prepared(folder)
    rows[3][1] = "dog" if rows[3][1] == "cat" else "cat"
    (folder / "labels.csv").write_text(table(rows, ".csv"))
    other = prepared(folder)
    assert one.folder != other.folder and labels_of(one) != labels_of(other)


@pytest.mark.parametrize("text", ["name,size\n", "image,label\nnone.png,cat\n", "0001.png\n0002.png\n"])
def test_a_table_that_names_no_images_is_none(text: str, folder: Path) -> None:
    (folder / "other.csv").write_text(text)
    with pytest.raises(DataError, match="has one class only, 'pictures'"):
        prepared(folder)


def test_class_folders_beside_a_table_of_something_else_are_class_folders(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets", {"cat": 20, "dog": 20})
    (folder / "prices.csv").write_text("food,price\nfish,3\nmeat,4\n")
    (folder / "cat" / "extra.tif").write_bytes(encoded(image(77), ".tif"))
    store = prepared(folder)
    assert set(labels_of(store).values()) == {"cat", "dog"}
    assert store.dataset.cleaning.rejected == {"not in a class folder": 1} and store.dataset.cleaning.kept == 41


def test_columns_of_parquet_keep_their_types_and_what_is_no_name_is_passed_over(folder: Path) -> None:
    held = {
        "pixels": [b"raw"] * COUNT,
        "file": [f"{n:04d}.png" for n in range(COUNT)],
        "label": polars.Series([label(n) for n in range(COUNT)], dtype=polars.Categorical),
        "split": [part(n) for n in range(COUNT)],
        "width": [0.5 * n for n in range(COUNT)],
    }
    polars.DataFrame(held).write_parquet(folder / "labels.parquet")
    store = prepared(folder)
    assert labels_of(store) == {f"pictures/{n:04d}.png": label(n) for n in range(COUNT)}
    assert store.dataset.counts == {"train": 36, "validation": 12, "test": 12}
    numbered = polars.DataFrame({"file": held["file"], "label": [n % 3 for n in range(COUNT)]})
    numbered.write_parquet(folder / "labels.parquet")
    assert prepared(folder).dataset.labels == ("0", "1", "2")


def test_what_is_no_parquet_names_nothing(folder: Path) -> None:
    (folder / "labels.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="has one class only, 'pictures'"):
        prepared(folder)


def belonging(number: int) -> list[str]:
    return [f"{number:04d}.png", label(number), f"person {number % 7}", f"2024-01-{1 + number // 3:02d}"]


def test_images_of_one_group_stand_in_one_split(folder: Path) -> None:
    write(folder / "labels.csv", [["image", "label", "who", "day"], *map(belonging, range(COUNT))])
    store = prepared(folder, split=Split(group="who"))
    people = {part: {int(Path(name).stem) % 7 for name in store.names(part)} for part in SPLITS}
    assert sorted(each for part in SPLITS for each in people[part]) == list(range(7))
    assert all(people.values())
    assert any("group 'who'" in note for note in store.dataset.cleaning.notes)


def test_the_latest_images_are_held_out(folder: Path) -> None:
    write(folder / "labels.csv", [["image", "label", "who", "day"], *map(belonging, range(COUNT))])
    store = prepared(folder, split=Split(time="day"))
    days = {part: [int(Path(name).stem) // 3 for name in store.names(part)] for part in SPLITS}
    assert max(days["train"]) < min(days["validation"]) and max(days["validation"]) < min(days["test"])


BELONGING_TO_NOTHING = [
    ("who", {}, "has no column 'hwo', which the job names. Did you mean 'who'", Split(group="hwo")),
    ("who", {}, "has no column 9", Split(time=9)),
    ("who", {3: ""}, "no group", Split(group="who")),
    ("who", {3: "soon"}, "no moment", Split(time="who")),
]


@pytest.mark.parametrize(("column", "cells", "says", "split"), BELONGING_TO_NOTHING)
def test_what_belongs_to_nothing_is_told(
    folder: Path, column: str, cells: dict[int, str], says: str, split: Split
) -> None:
    rows = [[f"{n:04d}.png", label(n), cells.get(n, str(n % 9))] for n in range(COUNT)]
    write(folder / "labels.csv", [["image", "label", column], *rows])
    if not cells:
        with pytest.raises(DataError, match=says):
            prepared(folder, split=split)
        return
    assert prepared(folder, split=split).dataset.cleaning.rejected[says] == 1


def test_class_folders_have_no_column_to_split_by(tmp_path: Path) -> None:
    write_images(tmp_path / "all", {"cat": 9, "dog": 9})
    with pytest.raises(DataError, match="names the column 'who', and no table in"):
        prepared(tmp_path / "all", split=Split(group="who"))


def test_a_label_that_is_only_held_out_is_told(folder: Path) -> None:
    rows = [[f"{n:04d}.png", "rare" if n > 57 else label(n), str(n)] for n in range(COUNT)]
    write(folder / "labels.csv", [["image", "label", "when"], *rows])
    with pytest.raises(DataError, match=r"labels rare of .* have no image in the training split"):
        prepared(folder, split=Split(time="when"))
