"""Rows of tables: which columns are text and label, what is wrong with a row, and what a user is told."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from data_folders import reviews
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.inputs import Reject
from thrifty.data.texts import rows as text_rows
from thrifty.data.texts.columns import Columns, find_columns
from thrifty.data.texts.row import Row
from thrifty.data.texts.rows import read_rows
from thrifty.errors import DataError
from thrifty.spec import TextData

# what stands in a cell of TSV: no tab, line end, NUL, byte order mark or half of a surrogate pair; edges are stripped
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\t\n\r\0\ufeff")
CELL = st.text(CHARACTERS, min_size=1).filter(lambda s: s.strip() == s)
LABEL = st.sampled_from(["0", "1", "sehr gut"])


def job(**values: Any) -> TextData:
    return TextData.model_validate({"kind": "text", "path": "reviews", **values})


def read(name: str, content: str | bytes, **values: Any) -> list[Row | Reject]:
    raw = content.encode() if isinstance(content, str) else content
    data, stream = job(**values), io.BytesIO(raw)
    return list(read_rows(data, name, stream, find_columns(data, name, stream)))


def pairs(found: list[Row | Reject]) -> list[tuple[str, str]]:
    assert all(isinstance(each, Row) for each in found), found
    return [(each.text, each.label) for each in found if isinstance(each, Row)]


def reasons(found: list[Row | Reject]) -> dict[str, str]:
    return {each.name: each.reason + each.detail for each in found if isinstance(each, Reject)}


def refusal(name: str, content: str | bytes, **values: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(name, content, **values)
    return str(caught.value)


def as_csv(rows: list[tuple[str, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


ROWS = reviews(30)
TSV = "".join(f"{text}\t{label}\n" for text, label in ROWS)
TURNED = "".join(f"{label}\t{text}\n" for text, label in ROWS)
JSONL = "".join(json.dumps({"id": n, "review": text, "stars": n % 2}) + "\n" for n, (text, _) in enumerate(ROWS))

FORMS = [
    ("a.tsv", TSV, {}, "text is column 1, label column 2"),
    ("a.tsv", TURNED, {}, "text is column 2, label column 1"),
    ("a.tsv", TSV.replace("\n", "\r\n"), {}, "text is column 1"),
    ("a.tsv", "\ufeff" + TSV, {}, "text is column 1"),
    ("a.tsv", "label\ttext_a\n" + TURNED, {}, "text is column 'text_a', label column 'label': by the header"),
    ("a.tsv", "what\tsays\n" + TURNED, {}, "text is column 'says', label column 'what': the longest cells"),
    ("a.tsv", "what\tsays\n" + TURNED, {"label": "what"}, "label column 'what': the longest cells"),
    ("a.tsv", "what\tsays\n" + TURNED, {"label": "what", "text": "says"}, "as the job says"),
    ("a.tsv", TURNED, {"text": 2, "label": 1, "header": False}, "as the job says"),
    ("a.csv", as_csv(ROWS), {}, "text is column 1"),
    ("a.csv", as_csv([("sentence", "polarity", "by"), *((*row, "me") for row in ROWS)]), {}, "not used: by"),
]


@pytest.mark.parametrize(("name", "content", "asked", "says"), FORMS)
def test_columns_are_found(name: str, content: str, asked: dict[str, Any], says: str) -> None:
    assert says in find_columns(job(**asked), name, io.BytesIO(content.encode())).says
    assert pairs(read(name, content, **asked)) == ROWS


def test_objects_name_their_columns() -> None:
    assert (
        "text is column 'review', label column 'stars'"
        in find_columns(job(), "a.jsonl", io.BytesIO(JSONL.encode())).says
    )
    assert pairs(read("a.jsonl", JSONL)) == [(text, str(n % 2)) for n, (text, _) in enumerate(ROWS)]


@given(rows=st.lists(st.tuples(CELL, LABEL), min_size=1, max_size=20))
def test_what_was_written_is_read(rows: list[tuple[str, str]]) -> None:
    """Any text comes back from each form, and no line ends but at a line feed."""
    asked: dict[str, Any] = {"text": 1, "label": 2, "header": False}
    assert pairs(read("a.tsv", "".join(f"{text}\t{label}\n" for text, label in rows), **asked)) == rows
    assert pairs(read("a.csv", as_csv(rows), **asked)) == rows
    named: dict[str, Any] = {"text": "t", "label": "l"}
    objects = "".join(json.dumps({"t": text, "l": label}) + "\n" for text, label in rows)
    assert pairs(read("a.jsonl", objects, **named)) == rows


BAD_ROWS = [
    ("a.tsv", "one cell", "ragged row: 1 cells, 2 are usual"),
    ("a.tsv", "a\tb\tc", "ragged row: 3 cells, 2 are usual"),
    ("a.tsv", "\tgood", "empty text"),
    ("a.tsv", " \u3000\tgood", "empty text"),
    ("a.tsv", "fine film\t", "empty label"),
    ("a.tsv", "a\0b\tgood", "binary: NUL in the text"),
    ("a.tsv", b"caf\xe9 film\tgood", "not UTF-8 at character 4"),
    ("a.tsv", "x" * 3000 + "\tgood", "row too long: 3,005 bytes, over the limit of 2,048"),
    ("a.csv", '"a" film,good', "not CSV: ',' expected after '\"'"),
    ("a.csv", "a,b,good", "ragged row: 3 cells, 2 are usual"),
    ("a.jsonl", '{"review": "a"', "not JSON: "),
    ("a.jsonl", '["a", 1]', "not a JSON object: list"),
    ("a.jsonl", '{"review": 5, "stars": 1}', "text is no text: int"),
    ("a.jsonl", '{"review": "a", "stars": null}', "empty label"),
    ("a.jsonl", '{"review": "a"}', "empty label"),
    ("a.jsonl", '{"review": "a", "stars": 1.5}', "label is no text: float"),
    ("a.jsonl", '{"review": "a\\ud800", "stars": 1}', "not Unicode"),
]


@pytest.mark.parametrize(("name", "row", "reason"), BAD_ROWS)
def test_a_bad_row_is_told_and_takes_no_other_with_it(name: str, row: str | bytes, reason: str) -> None:
    good = {"a.tsv": TSV, "a.csv": as_csv(ROWS), "a.jsonl": JSONL}[name].encode()
    bad = row.encode() if isinstance(row, str) else row
    found = read(name, good + bad + b"\n" + good, max_row_bytes="2KiB")
    assert list(reasons(found)) == [f"{name}:31"]
    assert reasons(found)[f"{name}:31"].startswith(reason)
    assert len(found) == 61


def test_a_quote_that_never_ends_costs_its_rows_alone() -> None:
    rows = as_csv(ROWS) + '"open,good\n' + "more,bad\n" * 20_000
    found = read("a.csv", rows, text=1, label=2, header=False)
    assert len(pairs([each for each in found if isinstance(each, Row)])) >= 30
    (said,) = [text for text in reasons(found).values() if "limit" in text][:1]
    assert "not CSV: field larger than field limit" in said and "up to line" in said


def test_quoted_cells_may_hold_lines() -> None:
    rows = [("one\ntwo, three", "good"), *ROWS]
    assert pairs(read("a.csv", as_csv(rows))) == rows
    assert [each.name for each in read("a.csv", as_csv(rows))[:2]] == ["a.csv:1", "a.csv:3"]


REFUSED = [
    ("a.tsv", "", {}, "'a.tsv' has no row that can be read"),
    ("a.tsv", TSV.replace("\t", ","), {}, "have one column, and a text and its label are two; its first row"),
    ("a.tsv", TSV.replace("\t", ","), {}, "looks split by commas. A .tsv file is split by tabs"),
    ("a.csv", TSV.replace("\t", ";"), {}, "looks split by semicolons. A .csv file is split by commas"),
    ("a.tsv", "label\ttext\n" + TURNED, {"label": "lable"}, "no column 'lable'. Did you mean 'label'?"),
    ("a.tsv", TSV, {"label": 3}, "data.label is column 3, and 'a.tsv' has 2"),
    ("a.tsv", TSV, {"label": "label", "header": False}, "data.header says that none has a name"),
    ("a.tsv", "text\ttext\tlabel\n" + "a film\tb\tgood\n" * 9, {}, "names column 'text' twice"),
    ("a.jsonl", JSONL, {"text": 1}, "data.text is 1, and the rows of 'a.jsonl' are objects"),
    ("a.jsonl", JSONL, {"header": True}, "data.header is true"),
    ("a.jsonl", JSONL, {"text": "text"}, "'a.jsonl' has no column 'text'"),
    ("a.tsv", "".join(f"{n % 7}.5\t{n % 3}\n" for n in range(40)), {}, "no column of 'a.tsv' looks like texts"),
    (
        "a.tsv",
        "".join(f"a film number {n}\t{n % 3}\t{n // 2 % 3}\n" for n in range(40)),
        {},
        "it cannot be told which column of 'a.tsv' is the label: 1 (40 different values), 2 (3 different values)",
    ),
    ("a.tsv", "".join(f"a film number {n}\tid-{n}\n" for n in range(40)), {}, "it cannot be told which column"),
]


@pytest.mark.parametrize(("name", "content", "asked", "says"), REFUSED)
def test_columns_that_cannot_be_told_are_asked_for(name: str, content: str, asked: dict[str, Any], says: str) -> None:
    assert says in refusal(name, content, **asked)


def test_each_file_is_read_by_its_own_header() -> None:
    columns = find_columns(job(), "train.tsv", io.BytesIO(b"label\ttext\n" + TURNED.encode()))
    assert columns.header
    other = list(read_rows(job(), "dev.tsv", io.BytesIO(b"text\tid\tlabel\nnice film\t7\tgood\n"), columns))
    assert other == [Row("dev.tsv:2", "nice film", "good")]
    with pytest.raises(DataError, match=r"'test\.tsv' has no column 'label'\. .*Its columns: text, id\."):
        list(read_rows(job(), "test.tsv", io.BytesIO(b"text\tid\nnice film\t7\n"), columns))


# cells that are right and cells that are wrong, each in its own way
ODD_CELL = st.one_of(st.sampled_from(["", " ", "\x1c", "a\0b", " fine\tfilm ", "\u3000x", "b\xad"]), CELL)
ODD_VALUE = st.one_of(ODD_CELL, st.sampled_from([None, True, 7, 1.5, ["a"], {"a": 1}, "\ud800"]))


def both_ways(name: str, raw: bytes, columns: Columns, **asked: Any) -> tuple[list[Row | Reject], list[Row | Reject]]:
    """Rows that were checked three together, and one by one."""
    data = job(**asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "ROWS_AT_ONCE", 3)
        together = list(read_rows(data, name, io.BytesIO(raw), columns))
        patch.setattr(text_rows._Reader, "together", lambda *_: None)
        return together, list(read_rows(data, name, io.BytesIO(raw), columns))


@given(
    rows=st.lists(st.lists(ODD_CELL, min_size=1, max_size=4), max_size=6),
    clean=st.lists(st.tuples(CELL, LABEL, CELL), min_size=3, max_size=6),
)
@settings(max_examples=10)
def test_rows_checked_together_are_as_each_alone(rows: list[list[str]], clean: list[tuple[str, str, str]]) -> None:
    """Whether all are right or some are wrong; ``clean`` are a block, so that some blocks are."""
    pair, group = Columns(0, 1, False, "", text_b=2), Columns(0, 1, False, "", key=2)
    asked: list[tuple[Columns, dict[str, Any]]] = [
        (Columns(0, 1, False, ""), {}), (Columns(0, 1, False, ""), {"task": "tag"}), (pair, {}),
        (group, {"split": {"group": 3}}), (group, {"split": {"time": 3}}),
    ]  # fmt: skip
    for lines in ([*clean, *rows], [*rows, *clean]):
        tsv = "".join("\t".join(cell.replace("\t", " ") for cell in line) + "\n" for line in lines).encode()
        out = io.StringIO()
        csv.writer(out).writerows(lines)
        for name, raw in (("a.tsv", tsv), ("a.tsv", tsv + b"\xe9\tb\tc\n"), ("a.csv", out.getvalue().encode())):
            for columns, more in asked:
                one, other = both_ways(name, raw, columns, **more)
                assert one == other


@given(rows=st.lists(st.dictionaries(st.sampled_from("tlb"), ODD_VALUE), max_size=8), text_b=st.booleans())
@settings(max_examples=15)
def test_objects_checked_together_are_as_each_alone(rows: list[dict[str, Any]], text_b: bool) -> None:
    whole = [{"t": "a film", "l": number, "b": "so", "g": 5} for number in range(3)]
    content = "".join(json.dumps(row) + "\n" for row in [*whole, *rows, *whole]).encode()
    for key, more in ((None, {}), ("g", {"split": {"group": "g"}})):
        columns = Columns("t", "l", False, "", "b" if text_b else None, key)
        one, other = both_ways("a.jsonl", content, columns, **more)
        assert one == other
        assert one[0] == Row("a.jsonl:1", "a film\tso" if text_b else "a film", "0", "" if key is None else "5")


@pytest.mark.slow
def test_no_more_of_a_table_is_held_than_a_block(tmp_path: Path) -> None:
    """However wide the columns are that are not used, and however many the rows."""
    count, wide = 12_000, "x" * 1000
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"a film\t{number % 2}\t{wide}\n" for number in range(count)), encoding="utf-8")
    columns = Columns(0, 1, False, "")
    with path.open("rb") as stream:
        tracemalloc.start()
        try:
            found = sum(1 for _ in read_rows(job(), "a.tsv", stream, columns))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found == count
    assert peak < path.stat().st_size / 3
