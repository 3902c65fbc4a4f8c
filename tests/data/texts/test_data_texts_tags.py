"""Texts with several labels: how cells hold them, what is rejected, how they are dealt, stored and made batches of."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Store, prepare
from thrifty.data.batches import Batches
from thrifty.data.look import look
from thrifty.data.texts.tags import dealt_by, recognise, split_cell
from thrifty.errors import DataError, JobError
from thrifty.spec import SPLITS, TextData, parse_job

LABELS = ("food", "love", "sea", "war")


def films(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Made-up stories with the labels that their words tell; of some none, of most several."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [label for label in LABELS if generator.random() < 0.5]
        words = generator.permutation([*(f"{label}{end}" for label in labels for end in ("ly", "ness")), "the", "old"])
        rows.append((f"{' '.join(words)} x{seed}{number}", labels))
    return rows


def as_jsonl(rows: list[tuple[str, Any]]) -> str:
    return "".join(json.dumps({"text": text, "tags": labels}) + "\n" for text, labels in rows)


def write(folder: Path, **parts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def run(path: Path, **values: Any) -> Store:
    data = TextData.model_validate({"kind": "text", "path": path, "task": "tag", **values})
    return prepare(data, seed=0, cache=path.parent / "cache", emit=lambda event: None)


def rejects(store: Store) -> dict[str, str]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return {line["path"]: line["reason"] for line in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("cell", "separator", "found"),
    [
        (["sea", "war"], None, ["sea", "war"]),
        ([], "|", []),
        (None, "|", []),
        ("", None, []),
        ("  ", "|", []),
        ("sea|war", None, ["sea|war"]),
        ("sea|war", "|", ["sea", "war"]),
        (" sea ; war ;", ";", ["sea", "war"]),
        ('["sea", 3]', None, ["sea", 3]),
        ('["sea", "war"', None, None),
        ("[" * 100_000, None, None),
        (3, None, [3]),
    ],
)
def test_labels_of_a_cell(cell: Any, separator: str | None, found: list[Any] | None) -> None:
    assert split_cell(cell, separator) == found


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        ([["sea"], ["war"]], None),
        (['["sea"]', "[]", '["sea", "war"]'], None),
        (["sea|war", "war", "sea|love", "love|war"], "|"),
        (["sea, war", "war", "sea, love", "love, war"], ","),
        # a separator that most lack, parts that are as many as the cells, plain labels, nothing at all
        (["sea|war", "war", "sea", "love"], ()),
        (["World, Asia", "Sports, Tennis"], ()),
        (["good", "bad", "good"], ()),
        (["", None], ()),
    ],
)
def test_several_labels_are_recognised(cells: list[Any], separator: Any) -> None:
    found = recognise(cells)
    assert (found is None) if separator == () else (found is not None and found[0] == separator)


@given(st.lists(st.sets(st.sampled_from(LABELS)), max_size=30), st.integers(1, 4))
def test_texts_are_dealt_by_their_rarest_label(rows: list[set[str]], fewest: int) -> None:
    labels = {place: sorted(row) for place, row in enumerate(rows)}
    dealt, counts = dealt_by(labels, fewest), Counter(label for row in rows for label in row)
    assert dealt.keys() == labels.keys()
    for place, label in dealt.items():
        assert not label or counts[label] == min(counts[each] for each in rows[place])
    assert all(count >= fewest for label, count in Counter(dealt.values()).items() if label)


@pytest.mark.parametrize(
    ("text", "cell", "reason"),
    [
        ("a b", '["sea"', "label is no JSON list"),
        ("a b", [1.5], "label is no text"),
        ("a b", [["sea"]], "label is no text"),
        ("a b", {"sea": 1}, "label is no text"),
        ("a b", ["sea", ""], "empty label"),
        ("a b", [None], "empty label"),
        ("a b", ["s\0a"], "binary"),
        ("a b", ["\ud800"], "not Unicode"),
        ("", ["sea"], "empty text"),
        (None, [], "empty text"),
        (7, ["sea"], "text is no text"),
    ],
)
def test_rows_that_cannot_be_used_are_put_aside(tmp_path: Path, text: Any, cell: Any, reason: str) -> None:
    odd = json.dumps({"text": text, "tags": cell}) + "\n"
    store = run(write(tmp_path / "films", films_jsonl=odd + as_jsonl(films(40))))
    assert {path: said.partition(":")[0] for path, said in rejects(store).items()} == {"films.jsonl:1": reason}
    assert store.dataset.labels == LABELS


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "tsv", "csv", "parquet", "lists in csv"])
def test_every_form_holds_the_same_labels(tmp_path: Path, form: str) -> None:
    rows = films(60)
    folder, values = write(tmp_path / "films"), {}
    cells = [json.dumps(labels) if form == "lists in csv" else "; ".join(labels) for _, labels in rows]
    frame = polars.DataFrame({"text": [text for text, _ in rows], "genres": cells})
    if form == "jsonl":
        write(folder, films_jsonl=as_jsonl(rows))
    elif form == "parquet":
        frame.with_columns(genres=polars.Series([labels for _, labels in rows])).write_parquet(folder / "films.parquet")
    else:
        quotes = {"separator": "\t", "quote_style": "never"} if form == "tsv" else {}
        frame.write_csv(folder / f"films.{form[-3:]}", **quotes)
        values = {} if form == "lists in csv" else {"label_separator": ";"}
    found = look(folder)
    assert found.job["task"] == "tag"
    assert found.job["data"].get("label_separator") == values.get("label_separator")
    assert "several labels" in found.why["task"]
    store = run(folder, **values)
    dataset, y = store.dataset, {part: store.array(part, "y") for part in SPLITS}
    assert (dataset.task, dataset.labels, dataset.cleaning.rejected) == ("tag", LABELS, {})
    counted = Counter(label for _, labels in rows for label in labels)
    assert [int(each) for each in sum(each.sum(0) for each in y.values())] == [counted[label] for label in LABELS]
    for part, each in y.items():
        assert each.dtype == np.uint8 and each.shape == (dataset.counts[part], 4) and set(np.unique(each)) <= {0, 1}
        # the rarest label of a text says what it is dealt by: each comes to every split
        assert each.any(0).all()
    assert dataset.label_counts == dict(zip(LABELS, y["train"].sum(0).tolist(), strict=True))
    assert any("texts have none" in note for note in dataset.cleaning.notes)


def test_labels_that_are_held_out_alone_are_taken_off(tmp_path: Path) -> None:
    held = [("a b c", ["sea", "moon"]), ("d e f", ["moon"]), ("g h i", [])]
    parts = {"train_jsonl": as_jsonl(films(40)), "dev_jsonl": as_jsonl(films(9, 1)), "test_jsonl": as_jsonl(held)}
    store = run(write(tmp_path / "films", **parts))
    assert rejects(store) == {"test.jsonl:2": 'label not in the training split: ["moon"]'}
    assert store.array("test", "y").tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    said = "1 labels of held-out texts are not in the training split, and left out: moon (1)"
    assert said in store.dataset.cleaning.notes


def test_copies_of_other_labels_are_put_aside_and_of_equal_ones_kept_once(tmp_path: Path) -> None:
    odd = [("same", ["sea", "war"]), ("same", ["sea"]), ("twice", ["sea", "war"]), ("twice", ["war", "sea", "sea"])]
    store = run(write(tmp_path / "films", films_jsonl=as_jsonl(odd + films(40))))
    found = rejects(store)
    said = 'same text under labels ["sea", "war"] and ["sea"]'
    assert [found.get(f"films.jsonl:{line}") for line in (1, 2)] == [said, said]
    assert len([path for path in found if path in {"films.jsonl:3", "films.jsonl:4"}]) == 1
    assert store.dataset.cleaning.kept == 41


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("a b", []), ("c d", []), ("e f", [])], "have no labels: there is nothing to tell apart"),
        ([(f"a b {n}", ["sea"]) for n in range(9)], "have one label only, 'sea'"),
        ([(f"a b {n}", [f"l{n}"]) for n in range(6000)], "different labels, over the limit of 4,096"),
    ],
)
def test_data_that_cannot_be_learned_is_refused(tmp_path: Path, rows: list[tuple[str, Any]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        run(write(tmp_path / "films", films_jsonl=as_jsonl(rows)))


def test_files_in_class_folders_have_one_label(tmp_path: Path) -> None:
    for label in ("sea", "war"):
        write(tmp_path / "films" / label, a_txt="once upon a time")
    with pytest.raises(DataError, match="lies in the folder of one"):
        run(tmp_path / "films")


def test_a_separator_is_of_several_labels() -> None:
    data = {"kind": "text", "path": "films", "label_separator": "|"}
    with pytest.raises(JobError, match="label_separator is of texts with several labels; set task: tag"):
        parse_job({"name": "a", "model": "ngrams", "data": data})
    assert parse_job({"name": "a", "model": "ngrams", "data": data, "task": "tag", "target": {"micro_f1": 0.8}}).task


@pytest.mark.slow
def test_batches_hold_the_labels_of_their_texts(tmp_path: Path) -> None:
    store = run(write(tmp_path / "films", films_jsonl=as_jsonl(films(60))))
    starts, tokens, labels = (np.asarray(store.array("train", name)) for name in ("starts", "tokens", "y"))
    told = {tuple(tokens[a:b]): y for a, b, y in zip(starts, starts[1:], labels, strict=False)}
    for batching in ("padded", "by_length", "packed"):
        count = 0
        for index in range(Batches(store, batch=8, micro=3, seed=0).steps_per_epoch):
            for batch in Batches(store, batch=8, micro=3, seed=0, batching=batching).step(index):
                assert batch["y"].dtype == np.float32 and batch["y"].shape[1] == 4
                rows = batch["x"]
                if batching == "packed":
                    grids = [batch[key] for key in sorted(batch) if key.startswith("places")]
                    rows = [np.append(batch["x"][0], 0)[places] for grid in grids for places in grid]
                for row, y in zip(rows, batch["y"], strict=True):
                    if np.isnan(y).any():
                        assert np.isnan(y).all() and not row.any()
                    else:
                        count += 1
                        assert (told[tuple(row[: np.count_nonzero(row)])] == y).all()
        assert count == store.dataset.counts["train"]
    # a rank without a sample of its own computes along, and nothing of it counts
    (idle,) = Batches(store, batch=1, micro=1, seed=0, rank=1, ranks=2, along=True).step(0)
    assert np.isnan(idle["y"]).all()
