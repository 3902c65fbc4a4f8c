"""The first look: what is recognised, the job that follows, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from data_folders import encoded, image, novel, reviews, write_images, write_tables, write_texts

from thrifty.data import look
from thrifty.data.look import texts as look_texts
from thrifty.errors import DataError
from thrifty.models.table import MODELS
from thrifty.spec import parse_job


def check_job(path: Path, job: dict[str, object], why: dict[str, str]) -> None:
    assert parse_job(yaml.safe_load(yaml.safe_dump(job))).data.path == path
    assert job["model"] in MODELS
    assert "model" in why


def test_class_folders_of_images(tmp_path: Path) -> None:
    found = look(write_images(tmp_path / "my digits", {str(n): 3 + n % 2 for n in range(12)}, height=8, width=8))
    assert found.kind == "image"
    assert found.says == "my digits/: 42 images, 12 labels (0, 1, 2, … 11; 3 to 4 each), 8x8 gray"
    assert found.job == {
        "name": "my-digits",
        "data": {"kind": "image", "path": str(tmp_path / "my digits")},
        "model": "resnet8",
    }
    check_job(tmp_path / "my digits", found.job, found.why)


def test_large_images_start_small(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets", {"cat": 1, "dog": 3}, height=100, width=120, channels=3)
    (folder / "cat" / "0000.png").write_bytes(encoded(image(1, 200, 90, 3)))
    found = look(folder)
    assert found.says == "pets/: 4 images, 2 labels (cat 25 %, dog 75 %), 120x100 to 90x200 colour"
    assert found.job["data"]["size"] == 64
    assert "four times as much" in found.why["data.size"]
    check_job(folder, found.job, found.why)


def test_tiny_images_take_a_plain_network(tmp_path: Path) -> None:
    found = look(write_images(tmp_path / "tiny", {"a": 3, "b": 3}, height=5, width=5))
    assert found.job["model"] == "mlp-small"
    assert "at 5 pixels" in found.why["model"]


def test_text_files_by_the_commonest_kind(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "src", {f"lib/{i}.py": novel(i) for i in range(5)} | {"README.md": "read"})
    found = look(folder)
    assert found.kind == "language"
    size = sum(path.stat().st_size for path in folder.rglob("*.py")) / 1024
    assert found.says == f"src/: 5 files *.py, {size:.1f} KiB of text; beside them 1 other text files"
    assert found.job["data"] == {"kind": "language", "path": str(folder), "files": "**/*.py"}
    assert found.job["model"] == "gpt-nano"
    check_job(folder, found.job, found.why)


def test_what_is_not_recognised_is_named(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "odd", {"a.bin": b"\0" * 9, "b.bin": b"\0", "c.txt": "one", "d": "x"})
    with pytest.raises(DataError) as caught:
        look(folder)
    says = str(caught.value)
    assert "holds no data that is recognised: 2 .bin, 1 .txt, 1 without extension" in says
    assert "cat/1.png" in says
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="recognised: nothing"):
        look(tmp_path / "empty")
    with pytest.raises(DataError, match=r"there is no data folder '.*od'\. Did you mean '.*odd'\?"):
        look(tmp_path / "od")


def test_images_without_class_folders_and_unreadable_ones(tmp_path: Path) -> None:
    flat = write_texts(tmp_path / "flat", {f"{i}.png": encoded(image(i)) for i in range(3)})
    with pytest.raises(DataError, match="3 images lie directly in it"):
        look(flat)
    broken = write_texts(tmp_path / "broken", {f"{label}/1.png": b"none" for label in "ab"})
    with pytest.raises(DataError, match=r"none of 2 images looked at in '.*broken' can be read"):
        look(broken)


def test_tables_of_texts(tmp_path: Path) -> None:
    parts = {"train.tsv": reviews(60), "dev.tsv": reviews(10, 1), "test.tsv": reviews(10, 2)}
    folder = write_tables(tmp_path / "reviews", parts)
    (folder / "SOURCE.txt").write_text("from here and there")
    found = look(folder)
    texts = [text for rows in parts.values() for text, _ in rows]
    size = f"{min(map(len, texts))} to {max(map(len, texts))} characters"
    assert found.kind == "text"
    assert found.says == f"reviews/: 60 + 10 + 10 texts, 2 labels (bad 50 %, good 50 %), {size}, TSV"
    wanted = {"kind": "text", "path": str(folder), "text": 1, "label": 2, "header": False, "pieces": "characters"}
    assert found.job == {"name": "reviews", "data": wanted, "model": "ngrams"}
    assert "text is column 1, label column 2" in found.why["data.text"]
    check_job(folder, found.job, found.why)


def test_one_table_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_texts, "ROWS_FOR_ATTENTION", 5_001)
    path = write_tables(tmp_path, {"all.csv": []}) / "all.csv"
    path.write_text("id,stars,review\n" + "".join(f"{n},{n % 3},a film number {n}\n" for n in range(5001)))
    found = look(path)
    assert found.says.startswith("all.csv: 5,001 texts, 3 labels (0 33 %, 1 33 %, 2 33 %), ")
    assert found.job["data"] == {
        "kind": "text", "path": str(path), "text": "review", "label": "stars", "header": True,
    }  # fmt: skip
    assert found.job["model"] == "bert-small"
    check_job(path, found.job, found.why)
    objects = tmp_path / "all.jsonl"
    objects.write_text('{"text": "a film", "label": 1}\n' * 3)
    assert look(objects).job["data"] == {
        "kind": "text", "path": str(objects), "text": "text", "label": "label", "pieces": "characters",
    }  # fmt: skip


def test_tables_of_other_things_are_not_taken_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("code\tname\n" + "".join(f"c{n}\tn{n}\n" for n in range(200)))
    with pytest.raises(DataError, match=r"the rows of 'codes\.csv' have one column"):
        look(path)
    (tmp_path / "a.bin").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"holds no data that is recognised: 1 \.bin"):
        look(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("names", "path", "job"),
    [
        (("input.txt", "SOURCE.txt"), "", {"files": "input.txt", "split_by": "position"}),
        (("valid.txt", "test.txt", "README.md"), "", {"files": "**/*.txt", "split_by": "position"}),
        (("train.txt", "valid.txt"), "", {"files": "**/*.txt"}),
        (("play.txt", "other.txt"), "play.txt", {"split_by": "position"}),
        (("a/1.txt.gz", "a/2.txt.gz", "b/3.txt.gz"), "", {"files": "**/*.txt.gz"}),
    ],
)
def test_few_texts_are_a_corpus(tmp_path: Path, names: tuple[str, ...], path: str, job: dict[str, str]) -> None:
    folder = write_texts(tmp_path / "corpus", {name: novel(at, 900) for at, name in enumerate(names)})
    found = look(folder / path)
    assert found.kind == "language"
    assert found.job["data"] == {"kind": "language", "path": str(folder / path), **job}
    assert set(job) <= {key.removeprefix("data.") for key in found.why}


def test_rows_of_texts_without_labels_are_a_corpus(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": at, "content": novel(at)}) + "\n" for at in range(30))
    folder = write_texts(tmp_path / "corpus", {"part-0.jsonl": rows})
    assert look(folder).job["data"] == {
        "kind": "language", "path": str(folder), "files": "part-0.jsonl", "text": "content",
    }  # fmt: skip
    short = "".join(json.dumps({"text": novel(at, 9), "label": at % 2}) + "\n" for at in range(30))
    assert look(write_texts(tmp_path / "labelled", {"part-0.jsonl": short})).kind == "text"


def test_texts_in_class_folders(tmp_path: Path) -> None:
    files = {f"{label}/{at}.txt": text for at, (text, label) in enumerate(reviews(60))}
    found = look(write_texts(tmp_path / "films", files))
    assert (found.kind, found.job["model"]) == ("text", "ngrams")
    assert found.says == "films/: 60 texts in class folders, 2 labels (bad 50 %, good 50 %)"
    split = {f"{part}/{name}": text for part in ("train", "test") for name, text in list(files.items())[:8]}
    assert look(write_texts(tmp_path / "split", split)).says.startswith(
        "split/: 16 texts in class folders, train 8, test 8"
    )
    # few files in a folder each are documents of a corpus
    assert look(write_texts(tmp_path / "few", dict(list(files.items())[:8]))).kind == "language"


@pytest.mark.parametrize(("text", "model"), [("这本书很好看", "ngrams-short"), ("a fine book", "ngrams")])
def test_characters_of_chinese_take_shorter_runs(tmp_path: Path, text: str, model: str) -> None:
    rows = [(f"{text} {at}", str(at % 2)) for at in range(40)]
    assert look(write_tables(tmp_path / "books", {"all.tsv": rows})).job["model"] == model


def test_pairs_of_texts_take_attention(tmp_path: Path) -> None:
    rows = "".join(f"a film {at}\tit is {at % 3} long\t{at % 2}\n" for at in range(40))
    found = look(write_texts(tmp_path / "pairs", {"all.tsv": "sentence1\tsentence2\tlabel\n" + rows}))
    assert found.job["model"] == "bert-small"
    assert found.job["data"]["text_b"] == "sentence2"
