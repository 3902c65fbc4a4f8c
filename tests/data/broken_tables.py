"""Rows of the table of broken inputs: tables of columns."""

from __future__ import annotations

from typing import Any

from broken_rows import Broken, fifo, files, link, put

GOOD = [f"{20 + n % 50},{'cook' if n % 3 else 'clerk'},{'rich' if n % 2 else 'poor'}" for n in range(24)]
HEAD = "age,job,label\n"
CSV = HEAD + "\n".join(GOOD) + "\n"
AMOUNTS = "age,job,price\n" + "\n".join(f"{20 + n % 50},cook {n % 3},{n * 1.5}" for n in range(40)) + "\n"


def table(what: str, content: str | bytes, name: str = "all.csv", **more: Any) -> Broken:
    """One table."""
    return Broken("table", what, put(name, content), **more)


def row(what: str, line: str | bytes, says: str, of: str = CSV, **more: Any) -> Broken:
    """A row after good ones."""
    raw = of.encode() + (line if isinstance(line, bytes) else line.encode()) + b"\n"
    count = of.count("\n")
    return table(what, raw, offered=count, rejects={f"all.csv:{count + 1}": says}, **more)


TABLES = [
    row("a cell too few", "39,cook", "ragged row: 2 cells, 3 are usual"),
    row("a cell too many", "39,cook,poor,more", "ragged row: 4 cells, 3 are usual"),
    row("another separator", "39;cook;poor", "ragged row: 1 cells, 3 are usual"),
    row("empty label", "39,cook,", "empty label"),
    row("a label that says that there is none", "39,cook,NaN", "empty label"),
    row("a label too seldom to check", "39,cook,lonely", "label of under 3 rows: lonely"),
    row("NUL", "39,co\0ok,poor", "binary: NUL in the row"),
    row("mixed encodings", "39,café,poor".encode("latin-1"), "not UTF-8 at byte 7"),
    row(
        "too long",
        f"39,{'x' * 2000},poor",
        "row too long: 2,008 bytes, over the limit of 1,000",
        asked={"max_row_bytes": "1000B"},
    ),
    row("text after a quote", '39,"co"ok,poor', "not CSV: ',' expected after '\"', up to line 26"),
    row("an open quote", '39,"cook,poor', "not CSV: unexpected end of data, up to line 27"),
    table(
        "amounts, and a word",
        AMOUNTS + "39,cook,much\n",
        says=(
            "column 'price' holds 40 numbers and 1 other cells, such as much: it cannot be told "
            "whether it is an amount. Set task: regress, which puts rows of other cells aside, or "
            "task: classify."
        ),
    ),
    row("an amount that is a word", "39,cook,much", "target is no number: much", of=AMOUNTS, asked={"task": "regress"}),
    row("an amount that is NaN", "39,cook,nan", "empty target", of=AMOUNTS),
    row("an amount that is infinite", "39,cook,-inf", "target is no number: -inf", of=AMOUNTS),
    Broken(
        "table",
        "infinity and NaN in a column",
        put("all.csv", CSV + "inf,cook,poor\nnan,cook,rich\n-Infinity,clerk,poor\n"),
        offered=27,
        repaired={"column 'age': of another kind, taken for empty": 2},
    ),
    table(
        "no such target",
        CSV,
        asked={"target": "labl"},
        says="there is no column 'labl'. Did you mean 'label'? There are: age, job, label.",
    ),
    table(
        "a target of a number too high",
        CSV,
        asked={"target": 9},
        says="data.target is column 9, and there are 3. Columns count from 1.",
    ),
    table(
        "no such column to ignore",
        CSV,
        asked={"ignore": ("jobs",)},
        says="data.ignore names column 'jobs'. Did you mean 'job'? There are: age, job, label.",
    ),
    table(
        "a header that names a column twice",
        CSV.replace("age,job", "job,job"),
        says="the header of 'all.csv' names column 'job' twice. Rename one of them.",
    ),
    table("empty", "", says="'all.csv' is empty. A table has rows of several columns."),
    table(
        "a header alone",
        HEAD,
        says=(
            "column '3' has one label only, 'label': there is nothing to tell. Name the column to be told: data.target."
        ),
    ),
    table(
        "one column",
        "one\ntwo\nthree\n",
        says=(
            "the rows of 'all.csv' have one column; the first is 'one'. Cells are separated by "
            "commas, tabs, semicolons, bars."
        ),
    ),
    table(
        "one label",
        HEAD + "\n".join(f"{n},cook,poor" for n in range(24)) + "\n",
        says=(
            "column 'label' has one label only, 'poor': there is nothing to tell. Name the column "
            "to be told: data.target."
        ),
    ),
    table(
        "a target that is empty",
        HEAD + "\n".join(f"{n},cook," for n in range(24)) + "\n",
        says="column 'label' is empty, and was to be told. Name the column to be told: data.target.",
    ),
    table("UTF-16", CSV.encode("utf-16"), says="'all.csv' is UTF-16. Save it as UTF-8."),
    table(
        "no Parquet",
        b"PAR1 and no more",
        name="all.parquet",
        says=(
            "'all.parquet' is no Parquet file that can be read: parquet: File out of "
            "specification: The file must end with PAR1 or PARE. Write it anew, or remove it."
        ),
    ),
    table(
        "more rows than the limit",
        CSV,
        asked={"max_rows": 9},
        says="'{at}' has over 9 rows, the limit of data.max_rows. Raise it, or take a part.",
    ),
    table(
        "no group of that name",
        CSV,
        asked={"split": {"group": "jbo"}},
        says="there is no column 'jbo'. Did you mean 'job'? There are: age, job, label.",
    ),
    table(
        "names for fewer columns",
        "\n".join(GOOD),
        asked={"names": ("age", "job")},
        says="data.names has 2 names, and 'all.csv' 3 columns. Name each of them.",
    ),
    Broken(
        "table",
        "a label in the test split alone",
        files(put("train.csv", CSV), put("test.csv", HEAD + "31,cook,rich\n32,cook,poor\n33,clerk,kingly\n")),
        offered=27,
        rejects={
            "test.csv:4": "label not in the training split: kingly",
            "train.csv:13": "duplicate across splits: test.csv:2",
        },
    ),
    Broken(
        "table",
        "the same row in both splits",
        files(put("train.csv", CSV), put("test.csv", HEAD + "31,cook,rich\n32,cook,poor\n21,cook,rich\n")),
        offered=27,
        rejects={
            "train.csv:3": "duplicate across splits: test.csv:4",
            "train.csv:13": "duplicate across splits: test.csv:2",
        },
    ),
    Broken(
        "table",
        "a test file without a column",
        files(put("train.csv", CSV), put("test.csv", "age,jobs,label\n31,cook,rich\n")),
        says=("'test.csv' lacks column 'job' of 'train.csv'. Did you mean 'jobs'? Its columns: age, jobs, label."),
    ),
    Broken(
        "table",
        "held out alone",
        put("test.csv", CSV),
        says=(
            "'{at}' has files for test and none to train on. Name one train.csv, or give the path "
            "of a single file to be split."
        ),
    ),
    Broken(
        "table",
        "a file of another kind",
        files(put("all.csv", CSV), put("notes.md", "of people")),
        offered=25,
        rejects={"notes.md": "not a table"},
    ),
    Broken(
        "table",
        "larger than its limit",
        files(put("all.csv", CSV), put("more.csv", CSV * 9)),
        offered=25,
        asked={"max_file_bytes": "2kB"},
        rejects={"more.csv": "too large: 2.9 KiB, over the limit of 2.0 KiB"},
    ),
    Broken(
        "table",
        "link that leaves",
        files(put("all.csv", CSV), link("more.csv", "../outside")),
        offered=25,
        rejects={"more.csv": "link that leaves the folder"},
    ),
    Broken(
        "table",
        "pipe",
        files(put("all.csv", CSV), fifo("more.csv")),
        offered=25,
        rejects={"more.csv": "not a regular file"},
    ),
    Broken(
        "table",
        "may not be read",
        files(put("all.csv", CSV), put("more.csv", CSV)),
        offered=25,
        unreadable=("more.csv",),
        rejects={"more.csv": "cannot be read: Permission denied"},
    ),
    Broken(
        "table",
        "changes meanwhile",
        put("all.csv", CSV),
        after=put("all.csv", CSV + "39,cook,poor\n"),
        says=(
            "'all.csv' changed while the data was being prepared. Wait until nothing writes to "
            "the data folder, then run again."
        ),
    ),
    Broken(
        "table",
        "nothing at all",
        lambda at: at.mkdir(exist_ok=True),
        says=(
            "'{at}' holds no table (it is empty). Rows lie in .csv, .tsv or .parquet files, or UCI's .data and .test."
        ),
    ),
    Broken(
        "table",
        "columns in another order",
        files(put("train.csv", CSV), put("test.csv", "label,age,job\nrich,31,cook\npoor,32,cook\n")),
        offered=26,
        rejects={"train.csv:13": "duplicate across splits: test.csv:2"},
    ),
]
