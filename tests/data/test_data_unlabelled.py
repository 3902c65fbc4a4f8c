"""Hidden words of texts without labels: paragraphs of files, rows of tables, recognised when asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_folders import write_texts
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Store, look, prepare
from thrifty.data.texts.samples import paragraphs_of
from thrifty.errors import DataError, JobError
from thrifty.spec import SPLITS, TextData, parse_job

WORDS = ["the", "lamp", "water", "slowly", "ran", "under", "old", "bridge", "again", "she"]


def sentences(count: int, begin: int = 0) -> list[str]:
    return [f"{' '.join(WORDS[(n * k) % 10] for k in range(1, 9))} {n}" for n in range(begin, begin + count)]


def prepared(path: Path, **values: Any) -> Store:
    data = TextData(kind="text", path=path, task="mask", **values)
    return prepare(data, seed=0, cache=path.parent / "cache", emit=lambda event: None)


def texts_of(store: Store) -> int:
    return sum(store.dataset.counts.values())


def test_paragraphs_of_text_files(tmp_path: Path) -> None:
    folder = write_texts(
        tmp_path / "books",
        {
            "a.txt": "\n\n".join(sentences(40)),
            "b.txt": "\n".join(sentences(30, 40)),
            "deep/c.txt": "\n\n".join(sentences(20, 70)) + "\n\n" + "x" * 300,
        },
    )
    store = prepared(folder, max_row_bytes="250 B")
    dataset = store.dataset
    assert (dataset.task, dataset.labels, dataset.label_counts) == ("mask", (), {})
    assert texts_of(store) == 90
    assert dataset.cleaning.rejected == {"text too long": 1}
    assert all(dataset.counts[part] > 0 for part in SPLITS)
    (line,) = (store.folder / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "deep/c.txt:41"


def test_files_named_after_splits_are_those(tmp_path: Path) -> None:
    files = {f"{name}.txt": "\n".join(sentences(20, at)) for name, at in (("train", 0), ("valid", 20), ("test", 40))}
    store = prepared(write_texts(tmp_path / "wiki", files | {"README.txt": "What this is."}))
    assert store.dataset.cleaning.rejected == {"tells of the data": 1}
    assert store.dataset.counts == {"train": 20, "validation": 20, "test": 20}


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "csv"])
def test_rows_without_labels(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = sentences(60)
    lines = [json.dumps({"id": n, "text": row}) for n, row in enumerate(rows)] if suffix == "jsonl" else ["text", *rows]
    (folder / f"all.{suffix}").write_text("\n".join(lines) + "\n")
    assert texts_of(prepared(folder)) == 60
    found = look(folder, tmp_path / "cache", "mask")
    assert (found.job["task"], found.job["data"]["text"], found.job["model"]) == ("mask", "text", "bert-mini")
    assert "label" not in found.job["data"]
    assert "no label" in found.why["data.text"]
    parse_job(found.job)


def test_it_is_recognised_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "books", {f"{n}.txt": "\n".join(sentences(20, 20 * n)) for n in range(4)})
    assert look(folder, tmp_path / "cache").kind == "language"
    found = look(folder, tmp_path / "cache", "mask")
    assert found.says.startswith("books/: 4 files *.txt, ") and found.says.endswith("whose words are hidden")
    assert found.job["data"] == {"kind": "text", "path": str(folder)}
    with pytest.raises(JobError, match=r"unknown task to look for 'masks'.*mask"):
        look(folder, tmp_path / "cache", "masks")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.bin").write_bytes(b"\0")
    with pytest.raises(DataError, match="holds no texts whose words could be hidden"):
        look(tmp_path / "none", tmp_path / "cache", "mask")


@given(st.lists(st.lists(st.text("ab ", min_size=1).map(str.strip).filter(bool), min_size=1), min_size=2))
def test_paragraphs_are_what_blank_lines_part(paragraphs: list[list[str]]) -> None:
    text = "\n\n".join("\n".join(lines) for lines in paragraphs)
    found = list(paragraphs_of(text))
    assert [each for _, each in found] == [" ".join(lines) for lines in paragraphs]
    assert all(text.splitlines()[line - 1] == lines[0] for (line, _), lines in zip(found, paragraphs, strict=True))
