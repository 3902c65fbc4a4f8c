"""How tables are written: separators, headers, and what is no table."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.tables.layout import find_layout
from thrifty.errors import DataError

NAMED = ("age", "job", "pay")
FOUND = [
    ("age,job,pay\n39,clerk,1\n40,cook,2\n", ",", NAMED, 1),
    ("age;job;pay\n39;clerk;1,5\n40;cook;2,5\n", ";", NAMED, 1),
    ("age\tjob\tpay\n39\tclerk, senior\t1\n", "\t", NAMED, 1),
    ("age|job|pay\n39|clerk|1\n", "|", NAMED, 1),
    ("\ufeffage,job,pay\r\n39,clerk,1\r\n", ",", NAMED, 1),
    ('"age","job","pay"\n39,"clerk, senior",1\n', ",", NAMED, 1),
    ("39, clerk, 1\n40, cook, 2\n", ",", ("1", "2", "3"), 0),
    ("|1x3 Cross validator\n39, clerk, <=50K.\n40, cook, >50K.\n", ",", ("1", "2", "3"), 0),
    ("a line of comment\n\nage,job,pay\n39,clerk,1\n40,cook,2\n", ",", NAMED, 3),
    (",job,pay\n0,clerk,1\n1,cook,2\n", ",", ("column 1", "job", "pay"), 1),
    # texts alone: names that come nowhere below
    ("color,size\nred,big\nblue,small\n", ",", ("color", "size"), 1),
    ("red,big\nblue,small\nred,small\n", ",", ("1", "2"), 0),
]


@pytest.mark.parametrize(("text", "separator", "names", "line"), FOUND, ids=[repr(row[0][:30]) for row in FOUND])
def test_it_is_told_from_the_rows(text: str, separator: str, names: tuple[str, ...], line: int) -> None:
    layout = find_layout("a.csv", text.encode())
    assert (layout.separator, layout.names, layout.header_line) == (separator, names, line)
    assert str(len(names)) in layout.says


def test_a_job_may_say_whether_there_is_a_header() -> None:
    rows = b"red,big\nblue,small\nred,small\n"
    assert find_layout("a.csv", rows, header=True).names == ("red", "big")
    assert find_layout("a.csv", b"color,size\nred,big\n", header=False).names == ("1", "2")


NO_TABLES = [
    (b"", "'a.csv' is empty. A table has rows of several columns."),
    (b"\n \n", "'a.csv' is empty"),
    (b"one\ntwo\nthree\n", "the rows of 'a.csv' have one column; the first is 'one'. Cells are separated by commas"),
    ("a,b\n".encode("utf-16"), "'a.csv' is UTF-16. Save it as UTF-8."),
    (b"a,b,a\n1,2,3\n4,5,6\n", "the header of 'a.csv' names column 'a' twice. Rename one of them."),
    (b"x,y\n" + b",".join(b"1" for _ in range(1001)) + b"\n" + b",".join(b"2" for _ in range(1001)), "1,001 columns"),
]


@pytest.mark.parametrize(("raw", "says"), NO_TABLES, ids=[row[1][:40] for row in NO_TABLES])
def test_what_is_no_table_is_said(raw: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        find_layout("a.csv", raw)
    assert says in str(caught.value)


def test_what_comes_twice_in_a_row_of_words_is_no_header() -> None:
    assert find_layout("a.csv", b"red,big,red\nred,small,big\n").header_line == 0
    assert find_layout("a.csv", b"?,?,red\n1,2,red\n3,4,big\n").header_line == 0


def test_a_header_that_names_a_column_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"the header of 'a\.csv' names column 'a' twice"):
        find_layout("a.csv", b"a,b,a\n1,2,3\n", header=True)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=3, max_size=20),
    separator=st.sampled_from(",\t;|"),
)
def test_any_separator_is_found(rows: list[list[int]], separator: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([NAMED, *rows])
    layout = find_layout("a.csv", out.getvalue().encode())
    assert (layout.separator, layout.names) == (separator, NAMED)
