"""Rows of JSONL as rows of a table: what is a cell, and what is said of what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thrifty.api import silent
from thrifty.data import prepare
from thrifty.data.look import look
from thrifty.data.tables.json_rows import find_keys, read_row
from thrifty.errors import DataError
from thrifty.spec import TableData

ROWS: list[dict[str, Any]] = [
    {
        "age": 20 + n % 50,
        "job": "cook" if n % 3 else "clerk",
        "member": n % 5 == 0,
        "label": "rich" if n % 2 else "poor",
    }
    for n in range(80)
]
BROKEN = [
    ('{"age": 1', "not JSON"),
    ("[1, 2]", "not a JSON object: list"),
    ('{"age": [1], "label": "rich"}', "nested cell: 'age' holds a list"),
    ('{"age": {"years": 1}, "label": "rich"}', "nested cell: 'age' holds an object"),
    ('{"age": 1, "job": "\\ud800", "label": "rich"}', "not UTF-8: half of a surrogate pair"),
    ('{"age": 1, "job": "a\\u0000b", "label": "rich"}', "binary: NUL in the row"),
    ('{"age": 1, "job": "cook"}', "empty label"),
    (json.dumps({"job": "x" * 2000, "label": "rich"}), "row too long: 2,028 bytes, over the limit of 1,000"),
]


def write(path: Path, *more: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in [*map(json.dumps, ROWS), *more]), encoding="utf-8")
    return path


@pytest.mark.slow
def test_objects_are_recognised_and_prepared(tmp_path: Path) -> None:
    path = write(
        tmp_path / "people.jsonl", '{"age": 44, "label": "poor", "job": null}', "", *(row for row, _ in BROKEN)
    )
    found = look(path)
    assert found.job["data"] == {"kind": "table", "path": str(path), "target": "label"}
    assert "4 columns of JSONL; 1 of kind number, 1 of kind category, 1 of kind boolean" in found.says
    data = TableData(kind="table", path=path, max_row_bytes="1000B")
    store = prepare(data, seed=0, cache=tmp_path / "cache", emit=silent)
    assert sum(store.dataset.counts.values()) == 81
    assert store.dataset.table is not None
    assert [column.kind for column in store.dataset.table.columns] == ["number", "category", "boolean"]
    lines = [json.loads(line) for line in (store.folder / "rejects.jsonl").read_text().splitlines()]
    says = {line["path"]: line["reason"] for line in lines}
    # the first two are said in Python's words too
    for number, (_, reason) in enumerate(BROKEN, len(ROWS) + 3):
        assert says.pop(f"people.jsonl:{number}").startswith(reason)
    assert not says


@pytest.mark.slow
def test_objects_hold_what_the_same_rows_of_text_hold(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    names = list(ROWS[0])
    cells = [[str(row[name]).lower() for name in names] for row in ROWS]
    (tmp_path / "b.csv").write_text("\n".join(",".join(row) for row in [names, *cells]) + "\n")
    objects, plain = (
        prepare(TableData(kind="table", path=tmp_path / name), seed=0, cache=tmp_path / "cache", emit=silent)
        for name in ("a.jsonl", "b.csv")
    )
    assert objects.dataset.table == plain.dataset.table
    for part in ("train", "validation", "test"):
        assert (objects.array(part, "x") == plain.array(part, "x")).all()


def test_nested_objects_are_refused(tmp_path: Path) -> None:
    head = b'{"a": 1, "b": 2}\n' + b'{"a": 1, "b": {"c": 2}}\n' * 2
    with pytest.raises(DataError, match=r"line 2 of 'x\.jsonl' holds an object under 'b', as most do, and a cell of"):
        find_keys("x.jsonl", head)
    with pytest.raises(DataError, match=r"the rows of 'x\.jsonl' have the one key 'a'"):
        find_keys("x.jsonl", b'{"a": 1}\n')
    with pytest.raises(DataError, match=r"the rows of 'x\.jsonl' hold no key"):
        find_keys("x.jsonl", b"no\n")


def test_numbers_stay_as_they_are_written() -> None:
    row = '{"a": 1.50, "b": 123456789012345678901234567890, "c": -1e400, "d": NaN, "e": false, "f": null}'
    assert read_row(row, list("abcdefg")) == [
        "1.50", "123456789012345678901234567890", "-1e400", "NaN", "false", None, None,
    ]  # fmt: skip


def test_a_key_that_comes_late_is_said() -> None:
    assert read_row('{"age": 1, "shoes": 2}', ["age"]) == (
        "unknown key",
        ": 'shoes', which no row of the beginning has",
    )
