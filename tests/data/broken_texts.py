"""Rows of the table of broken inputs: texts with labels, and text to continue."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

from broken_rows import Broken, Fill, fifo, files, link, put
from data_folders import novel, reviews, write_texts

PARTS = reviews(24)
TSV = "".join(f"{text}\t{label}\n" for text, label in PARTS)
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in PARTS)
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in PARTS)
SHORT = {"vocabulary": 64, "length": 32}


def texts(what: str, content: str | bytes, name: str = "all.tsv", **more: Any) -> Broken:
    """One table of texts."""
    asked = {**SHORT, **more.pop("asked", {})}
    return Broken("text", what, put(name, content), asked=asked, **more)


def of(name: str, *fills: Fill) -> Fill:
    return files(put(name, TSV), *fills)


TEXTS = [
    texts(
        "commas in a .tsv",
        CSV,
        says=(
            "the rows of 'all.tsv' have one column, and a text and its label are two; its first "
            "row 'text,label' looks split by commas. A .tsv file is split by tabs; rename the "
            "file or write it anew."
        ),
    ),
    texts(
        "semicolons in a .csv",
        CSV.replace(",", ";"),
        "all.csv",
        says=(
            "the rows of 'all.csv' have one column, and a text and its label are two; its first "
            "row 'text;label' looks split by semicolons. A .csv file is split by commas; rename "
            "the file or write it anew."
        ),
    ),
    texts(
        "ragged rows",
        TSV + "no label\na\tgood\tmore\n",
        offered=26,
        rejects={"all.tsv:25": "ragged row: 1 cells, 2 are usual", "all.tsv:26": "ragged row: 3 cells, 2 are usual"},
    ),
    texts(
        "ragged rows of CSV",
        CSV + "no label\na, b and c,good,more\n",
        "all.csv",
        offered=26,
        rejects={"all.csv:26": "ragged row: 1 cells, 2 are usual", "all.csv:27": "ragged row: 4 cells, 2 are usual"},
    ),
    texts(
        "no such label column",
        CSV,
        "all.csv",
        asked={"label": "lable"},
        says="'all.csv' has no column 'lable'. Did you mean 'label'? Its columns: text, label.",
    ),
    texts(
        "no such text column",
        CSV,
        "all.csv",
        asked={"text": "txt"},
        says="'all.csv' has no column 'txt'. Did you mean 'text'? Its columns: text, label.",
    ),
    texts(
        "a column of a number too high",
        TSV,
        asked={"label": 4, "text": 1},
        says="data.label is column 4, and 'all.tsv' has 2. Columns count from 1.",
    ),
    texts(
        "a header that names a column twice",
        CSV.replace("text,label", "text,text"),
        "all.csv",
        asked={"text": "text", "label": 2},
        says="the header of 'all.csv' names column 'text' twice. Rename one of them.",
    ),
    texts(
        "a header that names the label twice",
        "text,label,label\n" + "".join(f"{t},{n},{n}\n" for t, n in PARTS),
        "all.csv",
        says="the header of 'all.csv' names column 'label' twice. Rename one of them.",
    ),
    texts(
        "empty text, empty label",
        TSV + "\tgood\nsome words\t\n",
        offered=26,
        rejects={"all.tsv:25": "empty text", "all.tsv:26": "empty label"},
    ),
    texts("NUL", TSV + "some\0words\tgood\n", offered=25, rejects={"all.tsv:25": "binary: NUL in the text"}),
    texts(
        "mixed encodings",
        TSV.encode() + "schön übel\tgut\n".encode() * 3 + "größer, ärger\tgood\n".encode("latin-1"),
        offered=28,
        rejects={
            "all.tsv:28": "not UTF-8 at character 3",
            "all.tsv:26": "label of under 3 rows: gut",
            "all.tsv:25": "duplicate: all.tsv:26",
            "all.tsv:27": "duplicate: all.tsv:26",
        },
    ),
    texts(
        "a byte that is no UTF-8",
        TSV.encode() + b"caf\xe9 film\tgood\n",
        offered=25,
        rejects={"all.tsv:25": "not UTF-8 at character 4"},
    ),
    texts(
        "longer than a row may be",
        TSV + "long " * 50 + "\tgood\n",
        offered=25,
        asked={"max_row_bytes": "200B"},
        rejects={"all.tsv:25": "row too long: 255 bytes, over the limit of 200"},
    ),
    texts(
        "a label too seldom to check",
        TSV + "some words\tgoood\n",
        offered=25,
        rejects={"all.tsv:25": "label of under 3 rows: goood"},
    ),
    texts(
        "an open quote",
        CSV + '"a film,good\nsome words,bad\n',
        "all.csv",
        offered=25,
        rejects={"all.csv:26": "not CSV: unexpected end of data, up to line 27"},
    ),
    texts(
        "text after a quote",
        CSV + '"a film" of note,good\n',
        "all.csv",
        offered=25,
        rejects={"all.csv:26": "not CSV: ',' expected after '\"', up to line 26"},
    ),
    texts(
        "no JSON",
        JSONL + '{"text": "a film", "label"\n',
        "all.jsonl",
        offered=25,
        rejects={"all.jsonl:25": "not JSON: Expecting ':' delimiter: line 1 column 27 (char 26)"},
    ),
    texts(
        "no object",
        JSONL + '["a film", "good"]\n',
        "all.jsonl",
        offered=25,
        rejects={"all.jsonl:25": "not a JSON object: list"},
    ),
    texts(
        "a key twice",
        JSONL + '{"text": "a film", "label": "good", "label": "bad"}\n',
        "all.jsonl",
        offered=25,
        rejects={"all.jsonl:25": "not JSON: key 'label' comes twice"},
    ),
    texts(
        "NaN for a text, infinity for a label",
        JSONL + '{"text": NaN, "label": "good"}\n{"text": "a", "label": -Infinity}\n',
        "all.jsonl",
        offered=26,
        rejects={"all.jsonl:25": "text is no text: float", "all.jsonl:26": "label is no text: float"},
    ),
    texts(
        "no key of labels",
        JSONL + '{"text": "a film"}\n',
        "all.jsonl",
        offered=25,
        rejects={"all.jsonl:25": "empty label"},
    ),
    texts(
        "half a surrogate pair",
        JSONL + '{"text": "\\ud83d", "label": "good"}\n',
        "all.jsonl",
        offered=25,
        rejects={"all.jsonl:25": "not Unicode: half of a pair of surrogates in the text"},
    ),
    texts("empty file", "", says="'all.tsv' has no row that can be read. A row holds a text and its label, in UTF-8."),
    texts(
        "a header alone",
        "text,label\n",
        "all.csv",
        says="'all.csv' has no rows beside its header. A row holds a text and its label.",
    ),
    texts(
        "no Parquet",
        b"PAR1 and no more",
        "all.parquet",
        says=(
            "'all.parquet' is no Parquet file that can be read: parquet: File out of "
            "specification: The file must end with PAR1 or PARE. Write it anew, or remove it."
        ),
    ),
    texts(
        "one label",
        "".join(f"{t}\tgood\n" for t, _ in PARTS),
        says=(
            "the training rows of '{at}' have one label only, 'good': there is nothing to tell "
            "apart. Name the column of the labels: data.label. Lists of labels are for task: tag."
        ),
    ),
    texts(
        "more rows than the limit",
        TSV,
        asked={"max_rows": 9},
        says=(
            "'{at}' has over 9 rows, the limit of data.max_rows. Raise it where there is memory "
            "for all texts, or take a part."
        ),
    ),
    Broken(
        "text",
        "no such tokenizer",
        put("all.tsv", TSV),
        asked={"tokenizer": "vocab.txt", "length": 32},
        says=(
            "there is no tokenizer file 'vocab.txt'. Set data.tokenizer to a vocab.txt or a "
            "tokenizer.json, or leave it out."
        ),
    ),
    Broken(
        "text",
        "held out alone",
        files(put("dev.tsv", TSV), put("test.tsv", TSV)),
        asked=SHORT,
        says=(
            "'{at}' has files for test and validation and none to train on. Name one train.tsv, "
            "or give the path of a single file to be split."
        ),
    ),
    Broken(
        "text",
        "a label in the test split alone",
        files(
            put("train.tsv", TSV),
            put("test.tsv", "".join(f"{t}\t{n}\n" for t, n in reviews(6, 1)) + "some words\tawful\n"),
        ),
        offered=31,
        asked=SHORT,
        rejects={"test.tsv:7": "label not in the training split: awful"},
    ),
    Broken(
        "text",
        "the same in both splits",
        files(
            put("train.tsv", TSV),
            put("test.tsv", "".join(f"{t}\t{n}\n" for t, n in reviews(6, 1)) + TSV.splitlines()[3] + "\n"),
        ),
        offered=31,
        asked=SHORT,
        rejects={"train.tsv:4": "duplicate across splits: test.tsv:7"},
    ),
    Broken(
        "text",
        "the same under two labels",
        of("all.tsv", put("all.tsv", TSV + f"{PARTS[0][0]}\tgood\n")),
        offered=25,
        asked=SHORT,
        rejects={
            "all.tsv:1": "same text under labels bad and good",
            "all.tsv:25": "same text under labels bad and good",
        },
    ),
    Broken(
        "text",
        "a file of another kind",
        of("all.tsv", put("notes.md", "of films")),
        offered=25,
        asked=SHORT,
        rejects={"notes.md": "not a TSV, CSV, JSONL or Parquet file"},
    ),
    Broken(
        "text",
        "larger than its limit",
        of("all.tsv", put("more.tsv", TSV * 4)),
        offered=25,
        asked={**SHORT, "max_file_bytes": "3kB"},
        rejects={"more.tsv": "too large: 5.8 KiB, over the limit of 2.9 KiB"},
    ),
    Broken(
        "text",
        "link that leaves",
        of("all.tsv", link("more.tsv", "../outside")),
        offered=25,
        asked=SHORT,
        rejects={"more.tsv": "link that leaves the folder"},
    ),
    Broken(
        "text",
        "pipe",
        of("all.tsv", fifo("more.tsv")),
        offered=25,
        asked=SHORT,
        rejects={"more.tsv": "not a regular file"},
    ),
    Broken(
        "text",
        "may not be read",
        of("all.tsv", put("more.tsv", TSV)),
        offered=25,
        asked=SHORT,
        unreadable=("more.tsv",),
        rejects={"more.tsv": "cannot be read: Permission denied"},
    ),
    Broken(
        "text",
        "changes meanwhile",
        of("all.tsv"),
        asked=SHORT,
        after=put("all.tsv", TSV + "more\tgood\n"),
        says=(
            "'all.tsv' changed while the data was being prepared. Wait until nothing writes to "
            "the data folder, then run again."
        ),
    ),
    Broken(
        "text",
        "nothing at all",
        lambda at: at.mkdir(exist_ok=True),
        asked=SHORT,
        says=(
            "'{at}' holds no table of texts (it is empty). Rows of text and label lie in .tsv, "
            ".csv, .jsonl or .parquet files, or texts in pos/1.txt."
        ),
    ),
    Broken(
        "text",
        "class folders: NUL, blank, loose",
        lambda at: write_texts(
            at,
            {
                **{f"{n}/{i}.txt": t for i, (t, n) in enumerate(PARTS)},
                "bad/x.txt": "\0",
                "good/y.txt": " \n",
                "z.txt": "a film",
            },
        ),
        offered=27,
        asked=SHORT,
        rejects={"z.txt": "not in a class folder", "bad/x.txt": "binary: NUL in the text", "good/y.txt": "empty text"},
    ),
    Broken(
        "text",
        "class folders: mixed encodings",
        lambda at: write_texts(
            at,
            {
                **{f"{n}/{i}.txt": t for i, (t, n) in enumerate(PARTS)},
                "bad/x.txt": "übel\n".encode() + "ärger\n".encode("latin-1"),
            },
        ),
        offered=25,
        asked=SHORT,
        rejects={"bad/x.txt": "mixed encodings: 1 of 2 lines beyond ASCII are UTF-8"},
    ),
]

FEW = {"vocabulary": 260, "length": 8, "copies": "exact"}


def shelf(at: Path) -> None:
    write_texts(at, {f"{n}.txt": novel(n, 60) for n in range(6)})


def book(what: str, name: str, content: str | bytes, **more: Any) -> Broken:
    """A file beside six good ones."""
    asked = {**FEW, "files": "**/*", **more.pop("asked", {})}
    return Broken("language", what, files(shelf, put(name, content)), asked=asked, **more)


LINES = "".join(json.dumps({"text": novel(n, 40)}) + "\n" for n in range(8))


def line(what: str, content: str | bytes, says: str, **asked: Any) -> Broken:
    """A line of JSONL after eight good ones."""
    raw = LINES.encode() + (content.encode() if isinstance(content, str) else content)
    asked = {**FEW, "files": "**/*", **asked}
    return Broken("language", what, put("all.jsonl", raw), offered=9, rejects={"all.jsonl:9": says}, asked=asked)


LANGUAGE = [
    book("empty", "x.txt", "", offered=7, rejects={"x.txt": "empty"}),
    book("blank", "x.txt", " \n\t\n", offered=7, rejects={"x.txt": "empty"}),
    book("a byte-order mark alone", "x.txt", b"\xef\xbb\xbf", offered=7, rejects={"x.txt": "empty"}),
    book("NUL", "x.txt", "once upon\0a time", offered=7, rejects={"x.txt": "binary: NUL at byte 9"}),
    book(
        "a byte that is no UTF-8", "x.txt", b"once upon a caf\xe9", offered=7, rejects={"x.txt": "not UTF-8 at byte 15"}
    ),
    book(
        "mixed encodings",
        "x.txt",
        "größer\n".encode() * 4 + "größer\n".encode("latin-1"),
        offered=7,
        rejects={"x.txt": "mixed encodings: 4 of 5 lines beyond ASCII are UTF-8"},
    ),
    book(
        "UTF-16 that ends within a character",
        "x.txt",
        "once upon".encode("utf-16")[:-1],
        offered=7,
        rejects={"x.txt": "not utf-16-le at byte 18"},
    ),
    book("copy", "x.txt", novel(3, 60), offered=7, rejects={"3.txt": "duplicate: x.txt"}),
    book(
        "larger than its limit",
        "x.txt",
        novel(9, 2000),
        asked={"max_file_bytes": "4kB"},
        offered=7,
        rejects={"x.txt": "too large: 10.9 KiB, over the limit of 3.9 KiB"},
    ),
    book(
        "damaged gzip",
        "x.txt.gz",
        gzip.compress(novel(9).encode(), mtime=0)[:-12],
        says=(
            "'x.txt.gz' cannot be unpacked: Compressed file ended before the end-of-stream marker "
            "was reached. Write it anew, or remove it."
        ),
    ),
    book(
        "no gzip",
        "x.txt.gz",
        novel(9),
        says="'x.txt.gz' cannot be unpacked: Not a gzipped file (b'ra'). Write it anew, or remove it.",
    ),
    book(
        "damaged xz",
        "x.txt.xz",
        lzma.compress(novel(9).encode())[:-12],
        says=(
            "'x.txt.xz' cannot be unpacked: Compressed file ended before the end-of-stream marker "
            "was reached. Write it anew, or remove it."
        ),
    ),
    book(
        "a gzip bomb",
        "x.txt.gz",
        gzip.compress(bytes(200_000), mtime=0),
        limits={"documents.packed_files.LEAST_BYTES": 50_000},
        says=(
            "'x.txt.gz' unpacks to over 48.8 KiB, 200 times its size or 48.8 KiB. Unpack it "
            "yourself if you trust it, and give what is in it."
        ),
    ),
    line("no JSON", '{"text": "once"\n', "not JSON: Expecting ',' delimiter: line 1 column 16 (char 15)"),
    line("no object", '"once"\n', "not a JSON object: str"),
    line("text is a number", '{"text": 7}\n', "text is no text: int"),
    line("text is NaN", '{"text": NaN}\n', "text is no text: float"),
    line("no text", '{"title": "once"}\n', "empty"),
    line("a key twice", '{"text": "once upon", "text": "a time"}\n', "not JSON: key 'text' comes twice"),
    line("half a surrogate pair", '{"text": "\\udc00 once"}\n', "not Unicode: half of a pair of surrogates"),
    line("not UTF-8", b'{"text": "caf\xe9"}\n', "not UTF-8 at byte 13"),
    line(
        "too long",
        json.dumps({"text": "long " * 400}) + "\n",
        "row too long: over the limit of 1,000 bytes",
        max_row_bytes="1kB",
    ),
    Broken(
        "language",
        "no such column",
        put("all.jsonl", LINES),
        asked={**FEW, "files": "**/*", "text": "txt"},
        says=(
            "'all.jsonl' has no column 'txt'. Did you mean 'text'? Name the column of texts, "
            "data.text; its columns: text."
        ),
    ),
    Broken(
        "language",
        "no Parquet",
        put("all.parquet", b"PAR1 and no more"),
        asked={**FEW, "files": "**/*"},
        says=(
            "'all.parquet' is no Parquet file that can be read: parquet: File out of "
            "specification: The file must end with PAR1 or PARE. Write it anew, or remove it."
        ),
    ),
    Broken(
        "language",
        "no file of the pattern",
        shelf,
        asked={**FEW, "files": "*.md"},
        says=("no file in '{at}' fits data.files '*.md'; it holds 6 *.txt. Set data.files, such as '**/*.txt'."),
    ),
    Broken(
        "language",
        "too little text",
        put("a.txt", "once"),
        asked={**FEW, "split_by": "position"},
        says=(
            "'{at}' has too little text: nothing is left for the validation split. Add text, or "
            "hold out more: data.split."
        ),
    ),
    Broken(
        "language",
        "fewer documents than splits",
        files(put("a.txt", novel(1)), put("b.txt", novel(2))),
        asked={**FEW, "length": 8},
        offered=2,
        told=(
            "split by position: each document is trained on from its beginning, validation the next 5 %, "
            "test the next 5 %"
        ),
    ),
    Broken(
        "language",
        "nothing usable",
        files(put("a.txt", ""), put("b.txt", "\0")),
        asked=FEW,
        says=(
            "'{at}' has no usable document: 1 binary, 1 empty; the first: 'a.txt' empty. A "
            "document is a text, in UTF-8."
        ),
    ),
    Broken(
        "language",
        "nothing at all",
        lambda at: at.mkdir(exist_ok=True),
        asked=FEW,
        says="the data folder '{at}' is empty. Put text files into it.",
    ),
    Broken(
        "language",
        "link that leaves",
        files(shelf, link("x.txt", "../outside")),
        offered=7,
        asked=FEW,
        rejects={"x.txt": "link that leaves the folder"},
    ),
    Broken(
        "language", "pipe", files(shelf, fifo("x.txt")), offered=7, asked=FEW, rejects={"x.txt": "not a regular file"}
    ),
    Broken(
        "language",
        "may not be read",
        files(shelf, put("x.txt", "once")),
        offered=7,
        asked=FEW,
        unreadable=("x.txt",),
        rejects={"x.txt": "cannot be read: Permission denied"},
    ),
    Broken(
        "language",
        "changes meanwhile",
        shelf,
        asked=FEW,
        after=put("2.txt", "once upon a time"),
        says=(
            "'2.txt' changed while the data was being prepared. Wait until nothing writes to the "
            "data folder, then run again."
        ),
    ),
    Broken(
        "language",
        "held out alone",
        files(put("test.txt", novel(1)), put("valid.txt", novel(2)), put("wiki.test.txt", novel(3))),
        asked=FEW,
        offered=3,
        told=(
            "files are named after test and validation, and none after what is trained on: their names are not gone by"
        ),
    ),
]
