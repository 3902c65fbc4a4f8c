"""Documents out of files of every form, packed or not, and what is wrong with a file or a row."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
import zstandard
from data_folders import novel

from thrifty.data.documents import files as document_files_module
from thrifty.data.documents import packed_files as packed_files_module
from thrifty.data.documents.files import Text, UnusableTextError, first_rows, read_documents
from thrifty.data.fingerprint import fingerprint
from thrifty.data.inputs import InputFile, Reject, list_one
from thrifty.errors import DataError
from thrifty.spec import LanguageData

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def listed(path: Path) -> tuple[InputFile, str]:
    (file,), _ = list_one(path)
    return file, fingerprint(path, [file], path.parent / "cache")[file.name]


def read(path: Path, **values: Any) -> list[str | Reject]:
    """The texts of a file, whole, and the rejects between them."""
    data = LanguageData.model_validate({"kind": "language", "path": path, **values})
    found: list[str | Reject] = []
    for each in read_documents(data, *listed(path)):
        found.append("".join(each.chunks) if isinstance(each, Text) else each)
    return found


def refusal(path: Path, **values: Any) -> str:
    with pytest.raises((DataError, UnusableTextError)) as caught:
        read(path, **values)
    return str(caught.value)


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


ROWS = [{"text": novel(0)}, {"text": "zwei", "id": 2}]
JSONL = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()


@pytest.mark.parametrize("suffix", ["", *PACK])
def test_texts_and_rows_come_out_of_packed_files(tmp_path: Path, suffix: str) -> None:
    pack = PACK.get(suffix, bytes)
    text = written(tmp_path, f"a.txt{suffix}", pack((novel(1) + "汉").encode()))
    assert read(text) == [novel(1) + "汉"]
    rows = written(tmp_path, f"a.jsonl{suffix}", pack(JSONL))
    assert read(rows) == [row["text"] for row in ROWS]
    assert first_rows(listed(rows)[0], 1) == {"text": [novel(0)]}


def test_parquet_is_read_in_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_files_module, "_ROWS_AT_ONCE", 2)
    texts = ["eins", None, "drei", "vier\0", "fünf"]
    polars.DataFrame({"text": texts, "n": range(5)}).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        "eins",
        Reject("a.parquet:2", "empty"),
        "drei",
        Reject("a.parquet:4", "binary", ": NUL at character 4"),
        "fünf",
    ]
    assert first_rows(listed(tmp_path / "a.parquet")[0], 2)["n"] == [0, 1]


def test_a_text_is_read_in_chunks_whatever_its_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_files_module, "SAMPLE_BYTES", 64)
    monkeypatch.setattr(document_files_module, "_CHUNK_BYTES", 7)
    text = "Größe 汉字 \U0001f600 " * 20
    for encoding in ("utf-8", "utf-16", "utf-8-sig", "gb18030"):
        path = written(tmp_path, "a.txt", text.encode(encoding))
        assert read(path, **({"encoding": "gb18030"} if encoding == "gb18030" else {})) == [text]
    path = written(tmp_path, "b.txt", text.encode() + b"\xff" + text.encode())
    assert refusal(path) == f"not UTF-8 at byte {len(text.encode())}"
    path = written(tmp_path, "c.txt", text.encode() + b"\0")
    assert refusal(path) == f"binary: NUL at byte {len(text.encode())}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": 3}', "text is no text: int"),
        (b'{"text": null}', "empty"),
        (b'{"other": "x"}', "empty"),
        (b"[1]", "not a JSON object: list"),
        (b'{"text": "a"', "not JSON: Expecting ',' delimiter: line 1 column 13 (char 12)"),
        (b'{"text": "caf\xe9"}', "not UTF-8 at byte 13"),
        (b'{"text": "\\u0000"}', "binary: NUL at character 0"),
        (b'{"text": "\\ud800"}', "not Unicode: half of a pair of surrogates"),
        (b'{"text": "' + b"x" * 200 + b'"}', "row too long: over the limit of 100 bytes"),
        (b"[" * 90, "not JSON: Expecting value: line 1 column 91 (char 90)"),
    ],
)
def test_a_bad_row_is_put_aside_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    path = written(tmp_path, "a.jsonl", b'{"text": "one"}\n' + line + b'\n{"text": "three"}')
    one, reject, three = read(path, max_row_bytes="100B")
    assert (one, three) == ("one", "three")
    assert isinstance(reject, Reject)
    assert (reject.name, reject.reason + reject.detail) == ("a.jsonl:2", reason)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"txt": "x"}', "'a.jsonl' has no column 'text'. Did you mean 'txt'? Name the column of texts"),
        ("a.parquet", b"PAR1 and no more", "'a.parquet' is no Parquet file that can be read"),
        ("a.txt.gz", b"no gzip at all", "'a.txt.gz' cannot be unpacked: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], "'a.txt.gz' cannot be unpacked: Compressed file ended"),
        ("a.txt.xz", b"no xz at all", "'a.txt.xz' cannot be unpacked: Input format not supported"),
        ("a.txt.zst", b"no zstd at all", "'a.txt.zst' cannot be unpacked: zstd decompress error"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    assert says in refusal(written(tmp_path, name, content))


@pytest.mark.parametrize("suffix", PACK)
def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_files_module, "LEAST_BYTES", 1 << 16)
    bomb = written(tmp_path, f"a.txt{suffix}", PACK[suffix](b"A" * (1 << 22)))
    assert "KiB, 200 times its size or 64.0 KiB. Unpack it yourself if you trust it" in refusal(bomb)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"one")
    file, sha256 = listed(path)
    path.write_bytes(b"two")
    data = LanguageData(kind="language", path=path)
    with pytest.raises(DataError, match=r"'a\.txt' changed while the data was being prepared"):
        for each in read_documents(data, file, sha256):
            assert isinstance(each, Text)
            list(each.chunks)
    path.unlink()
    with pytest.raises(DataError, match=r"'a\.txt' was there and now cannot be read: No such file"):
        list(read_documents(data, file, sha256))
