"""Tables into a store: splits, copies, leaks, and every broken table with what is said of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from thrifty.data import prepare
from thrifty.data.store import Store
from thrifty.errors import DataError
from thrifty.spec import TableData
from thrifty.spec.events import Event, Warned

pytestmark = pytest.mark.slow


def people(count: int, seed: int = 0) -> list[list[str]]:
    """Rows of age, job, hours and whether they are rich, which age and job tell."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        age, job, hours = int(draw.integers(18, 90)), str(draw.choice(["cook", "clerk", "judge"])), draw.integers(1, 80)
        rich = age + 30 * (job == "judge") + draw.integers(0, 20) > 80
        rows.append([str(age), job, f"{hours / 2}", "rich" if rich else "poor"])
    return rows


HEADER = ["age", "job", "hours", "label"]


def write(path: Path, rows: list[list[str]], header: list[str] | None = HEADER, separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(row) for row in ([header] if header else []) + rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepared(path: Path, cache: Path, seed: int = 0, events: list[Event] | None = None, **asked: Any) -> Store:
    data = TableData(kind="table", path=path, **asked)
    return prepare(data, seed=seed, cache=cache, emit=(events if events is not None else []).append)


def rejects(store: Store) -> dict[str, str]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return {each["path"]: each["reason"] for each in map(json.loads, lines)}


def test_a_table_is_told_split_and_encoded(tmp_path: Path) -> None:
    dataset = (store := prepared(write(tmp_path / "a.csv", people(200)), tmp_path / "cache")).dataset
    assert dataset.task == "classify"
    assert dataset.labels == ("poor", "rich")
    assert dataset.counts == {"train": 160, "validation": 20, "test": 20}
    table = dataset.table
    assert table is not None
    assert [(column.name, column.kind) for column in table.columns] == [
        ("age", "number"), ("job", "category"), ("hours", "number"),
    ]  # fmt: skip
    assert dataset.shape == (table.numbers + table.codes,) == (3,)
    x, y = store.array("train", "x"), store.array("train", "y")
    assert (x.dtype, x.shape, y.dtype) == (np.float32, (160, 3), np.int64)
    assert sum(dataset.label_counts.values()) == 160
    assert any("column 'label' is told, as a label: by its name" in note for note in dataset.cleaning.notes)


def test_parquet_gives_what_its_text_gives(tmp_path: Path) -> None:
    rows = people(120)
    plain = prepared(write(tmp_path / "a.csv", rows), tmp_path / "cache")
    frame = pl.DataFrame(rows, schema=HEADER, orient="row").with_columns(pl.col("age").cast(int), tags=pl.lit([1]))
    frame.with_columns(pl.col("hours").cast(float)).write_parquet(tmp_path / "b.parquet")
    typed = prepared(tmp_path / "b.parquet", tmp_path / "cache")
    assert typed.dataset.table is not None
    assert typed.dataset.table.columns == plain.dataset.table.columns  # type: ignore[union-attr]


def test_amounts_are_standardised_in_the_training_split(tmp_path: Path) -> None:
    rows = [[*row[:3], str(1000 + 10 * int(row[0]))] for row in people(300)]
    store = prepared(write(tmp_path / "a.csv", rows, [*HEADER[:3], "price"]), tmp_path / "cache", ignore=("age",))
    assert store.dataset.task == "regress"
    assert store.dataset.labels == ()
    y = store.array("train", "y")
    assert y.dtype == np.float32
    assert (abs(y.mean()) < 1e-5, abs(y.std() - 1) < 1e-5) == (True, True)
    table = store.dataset.table
    assert table is not None
    assert 1180 <= table.mean <= 1900


def test_the_split_goes_by_content_and_seed_alone(tmp_path: Path) -> None:
    rows = people(300)
    first = prepared(write(tmp_path / "a.csv", rows), tmp_path / "cache")
    turned = prepared(write(tmp_path / "b.csv", rows[::-1]), tmp_path / "cache")
    other = prepared(tmp_path / "a.csv", tmp_path / "cache", seed=1)

    def test_rows(store: Store) -> set[tuple[float, ...]]:
        return set(map(tuple, store.array("test", "x").tolist()))

    assert test_rows(first) == test_rows(turned)
    assert test_rows(first) != test_rows(other)


def test_groups_stand_in_one_split(tmp_path: Path) -> None:
    rows = [[f"ward {n % 40}", *row] for n, row in enumerate(people(400))]
    path = write(tmp_path / "a.csv", [*rows, ["", *rows[0][1:]]], ["ward", *HEADER])
    store = prepared(path, tmp_path / "cache", split={"group": "ward"})
    assert rejects(store) == {"a.csv:402": "nothing to split by: column 'ward' is empty"}
    table = store.dataset.table
    assert table is not None
    code = table.numbers
    wards = {part: set(store.array(part, "x")[:, code].tolist()) - {0.0} for part in ("train", "validation", "test")}
    # those of the held-out splits are not known to the training split, and have no codes
    assert len(wards["train"]) == 40 - 8
    assert not wards["validation"] and not wards["test"]
    assert store.dataset.counts == {"train": 320, "validation": 40, "test": 40}


@pytest.mark.parametrize("form", ["%Y-%m-%d", "number"])
def test_the_latest_are_tested_on(tmp_path: Path, form: str) -> None:
    days = np.random.default_rng(0).permutation(200)
    dates = [str(day) if form == "number" else str(np.datetime64("2020-01-01") + int(day)) for day in days]
    rows = [[date, *row] for date, row in zip(dates, people(200), strict=True)]
    path = write(tmp_path / "a.csv", rows, ["day", *HEADER])
    store = prepared(path, tmp_path / "cache", split={"time": "day"})
    latest = {part: store.array(part, "x")[:, 0] for part in ("train", "validation", "test")}
    assert latest["train"].max() == 1.0  # of those trained on, what quantiles go up to
    assert (latest["test"] == 1.0).all() and (latest["validation"] == 1.0).all()
    assert store.dataset.counts == {"train": 160, "validation": 20, "test": 20}
    with pytest.raises(DataError, match=r"column 'job' holds neither numbers nor dates"):
        prepared(path, tmp_path / "cache", split={"time": "job"})


def test_equal_rows_stand_on_one_side(tmp_path: Path) -> None:
    rows = people(60)
    store = prepared(write(tmp_path / "a.csv", rows * 3), tmp_path / "cache")
    held = {part: set(map(tuple, store.array(part, "x").tolist())) for part in ("train", "validation", "test")}
    assert not held["train"] & held["test"]
    assert not held["train"] & held["validation"]
    assert sum(store.dataset.counts.values()) == 180
    assert any("120 rows equal another of their split" in note for note in store.dataset.cleaning.notes)


def test_given_splits_are_kept_and_copies_across_them_leave_training(tmp_path: Path) -> None:
    rows = people(150)
    write(tmp_path / "d" / "train.csv", rows)
    write(tmp_path / "d" / "test.csv", [*people(40, 1), rows[7]])
    write(tmp_path / "d" / "notes.csv", people(5, 2))
    dataset = (store := prepared(tmp_path / "d", tmp_path / "cache")).dataset
    assert dataset.counts["test"] == 41
    assert dataset.cleaning.across_splits == 1
    assert rejects(store) == {
        "notes.csv": "not named after a split",
        "train.csv:9": "duplicate across splits: test.csv:42",
    }
    assert any("no file is named after validation" in note for note in dataset.cleaning.notes)


def test_uci_s_files_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [[row[0], f" {row[1]}", f" {row[2]}", f" <={row[3]}"] for row in people(150)]
    dotted = [[*row[:3], f"{row[3]}."] for row in people(30, 1)]
    write(tmp_path / "d" / "adult.data", rows, None)
    write(tmp_path / "d" / "adult.test", [[*row[:3], f" <={row[3]}"] for row in dotted], None)
    test = tmp_path / "d" / "adult.test"
    test.write_text("|1x3 Cross validator\n" + test.read_text() + "\n")
    names = ("age", "job", "hours", "class")
    dataset = (store := prepared(tmp_path / "d", tmp_path / "cache", names=names)).dataset
    assert dataset.table is not None
    assert (dataset.table.target, [column.name for column in dataset.table.columns]) == ("class", [*names[:3]])
    assert dataset.labels == ("<=poor", "<=rich")
    assert dataset.counts["test"] == 30
    assert dataset.cleaning.repaired == {"label without its last dot": 30}
    assert rejects(store) == {"adult.test:1": "ragged row: 1 cells, 4 are usual"}


def test_a_column_that_alone_tells_is_warned_of(tmp_path: Path) -> None:
    rows = [[*row[:3], f"code {row[3]}", row[3]] for row in people(300)]
    events: list[Event] = []
    path = write(tmp_path / "a.csv", rows, [*HEADER[:3], "status", "label"])
    store = prepared(path, tmp_path / "cache", events=events)
    said = "column 'status' alone tells 'label'"
    assert [each.message for each in events if isinstance(each, Warned) and said in each.message]
    assert any(said in note for note in store.dataset.cleaning.notes)
    clean = prepared(path, tmp_path / "cache", ignore=("status",)).dataset
    assert not any("alone tells" in note for note in clean.cleaning.notes)


def lines(*rows: str) -> str:
    return "age,job,label\n" + "\n".join(rows) + "\n"


GOOD = [f"{20 + n % 50},{'cook' if n % 3 else 'clerk'},{'rich' if n % 2 else 'poor'}" for n in range(60)]
# of a table that is otherwise good: the odd row, and what its reject says
BROKEN_ROWS = [
    ("39,cook", "ragged row: 2 cells, 3 are usual"),
    ("39,cook,poor,more", "ragged row: 4 cells, 3 are usual"),
    ("39,cook,", "empty label"),
    ("39,cook,?", "empty label"),
    ("39,cook,lonely", "label of under 3 rows: lonely"),
    ("39,co\0ok,poor", "binary: NUL in the row"),
    (f"39,{'x' * 2000},poor", "row too long: 2,008 bytes, over the limit of 1,000"),
    (b"39,caf\xe9,poor", "not UTF-8 at byte 7"),
    ('39,"co"ok,poor', "not CSV: ',' expected after '\"', up to line 62"),
    ('39,"two\nlines",lonely', "label of under 3 rows: lonely"),
]


@pytest.mark.parametrize(("row", "says"), BROKEN_ROWS, ids=[row[1][:30] for row in BROKEN_ROWS])
def test_broken_rows_are_rejects(tmp_path: Path, row: str | bytes, says: str) -> None:
    raw = row if isinstance(row, bytes) else row.encode()
    (tmp_path / "a.csv").write_bytes(lines(*GOOD).encode() + raw + b"\n")
    store = prepared(tmp_path / "a.csv", tmp_path / "cache", max_row_bytes="1000B")
    assert rejects(store) == {"a.csv:62": says}
    assert sum(store.dataset.counts.values()) == 60


AMOUNTS = [
    ("39,cook,", "empty target"),
    ("39,cook,much", "target is no number: much"),
    ("39,cook,inf", "target is no number: inf"),
    ("39,cook,nan", "empty target"),
]


@pytest.mark.parametrize(("row", "says"), AMOUNTS, ids=[row[1] for row in AMOUNTS])
def test_rows_without_an_amount_are_rejects(tmp_path: Path, row: str, says: str) -> None:
    rows = [f"{20 + n % 50},cook {n % 3},{n * 1.5}" for n in range(150)]
    (tmp_path / "a.csv").write_text("age,job,price\n" + "\n".join([*rows, row]) + "\n")
    assert rejects(prepared(tmp_path / "a.csv", tmp_path / "cache")) == {"a.csv:152": says}


BROKEN = [
    ({"a.csv": ""}, {}, "'a.csv' is empty"),
    ({"a.csv": "one\ntwo\n"}, {}, "the rows of 'a.csv' have one column"),
    ({"a.csv": lines("39,cook,poor")}, {}, "has one label only, 'poor': there is nothing to tell"),
    ({"a.csv": lines(*GOOD)}, {"target": "labl"}, "there is no column 'labl'. Did you mean 'label'?"),
    ({"a.csv": lines(*GOOD)}, {"target": 9}, "data.target is column 9, and there are 3"),
    ({"a.csv": lines(*GOOD)}, {"ignore": ["jobs"]}, "data.ignore names column 'jobs'. Did you mean 'job'?"),
    ({"a.csv": lines(*GOOD)}, {"ignore": ["age", "job"]}, "but 'label' tells anything"),
    ({"a.csv": lines(*GOOD)}, {"task": "regress"}, "column 'label' is to be told as a number, and holds poor, rich"),
    ({"a.csv": lines(*(f"{n},x{n % 2},2020-01-{n % 28 + 1:02}" for n in range(60)))}, {}, "holds dates"),
    ({"a.csv": lines(*GOOD)}, {"max_rows": 10}, "has over 10 rows, the limit of data.max_rows"),
    ({"a.csv": lines(*(f"{n},a," for n in range(60)))}, {}, "column 'label' is empty, and was to be told"),
    ({"a.csv": "age,job\n" + "1,2,3\n" * 3}, {"header": True}, "names 2 columns, and most rows"),
    ({"train.csv": lines(*GOOD), "test.csv": "age,work,label\n1,a,rich\n"}, {}, "'test.csv' lacks column 'job'"),
    ({"test.csv": lines(*GOOD)}, {}, "has files for test and none to train on"),
    ({"train.csv": lines(*GOOD), "test.csv": lines("1,cook,new", "2,cook,newer")}, {}, "left for the test split"),
    ({"a.csv": "39,cook,poor\n" * 3}, {"names": ["age", "job"]}, "data.names has 2 names, and 'a.csv' 3 columns"),
    ({"a.txt": "39,cook,poor"}, {}, "holds no table (1 not a table)"),
    ({"a.parquet": "no"}, {}, "'a.parquet' is no Parquet file that can be read"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "asked", "says"), BROKEN, ids=[row[2][:40] for row in BROKEN])
def test_broken_tables_are_said(tmp_path: Path, files: dict[str, str], asked: dict[str, Any], says: str) -> None:
    for name, text in files.items():
        (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_text(text)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "d", tmp_path / "cache", **asked)
    assert says in str(caught.value)
    assert not list((tmp_path / "cache" / "prepared").glob("*"))


def test_a_file_that_cannot_be_read_or_leads_out_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.csv", people(60))
    (tmp_path / "out.csv").write_text(lines(*GOOD))
    (tmp_path / "d" / "b.csv").symlink_to(tmp_path / "out.csv")
    assert rejects(prepared(tmp_path / "d", tmp_path / "cache")) == {"b.csv": "link that leaves the folder"}


def test_a_file_that_changes_while_it_is_read_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", people(60))
    from thrifty.data.tables import prepare as tables

    def after_a_change(*args: Any) -> Any:
        with path.open("a") as file:
            file.write("39,cook,1.0,poor\n")
        os.utime(path, (1, 1))
        return whole(*args)

    whole = tables.spill
    monkeypatch.setattr(tables, "spill", after_a_change)
    with pytest.raises(DataError, match=r"'a\.csv' changed while the data was being prepared"):
        prepared(path, tmp_path / "cache")


def test_rows_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = people(400)
    rows[250][1] = '"a cook,\nand a clerk"'
    path = write(tmp_path / "a.csv", rows)
    whole = prepared(path, tmp_path / "cache")
    monkeypatch.setattr("thrifty.data.tables.blocks.BLOCK_BYTES", 700)
    cut = prepared(path, tmp_path / "other")
    for part in ("train", "validation", "test"):
        assert np.array_equal(whole.array(part, "x"), cut.array(part, "x"))
        assert np.array_equal(whole.array(part, "y"), cut.array(part, "y"))
