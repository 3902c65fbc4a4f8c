"""Every way known in which data is broken, and what is said of it: nothing is lost, nothing guessed silently."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from broken_archives import ARCHIVES, tarred, zipped
from broken_images import GOOD as PNG
from broken_images import IMAGES, JPEG, pets
from broken_rows import Broken, put, without_privilege
from broken_sounds import GOOD as WAV
from broken_sounds import SOUNDS, tones
from broken_tables import CSV as COLUMNS
from broken_tables import TABLES
from broken_texts import CSV, FEW, JSONL, LANGUAGE, LINES, SHORT, TEXTS, TSV, shelf
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.api import silent
from thrifty.data import Store, preparation, prepare
from thrifty.data.inputs import list_files
from thrifty.errors import DataError
from thrifty.spec import KINDS
from thrifty.spec.data import RAW

pytestmark = pytest.mark.slow

TABLE = [*IMAGES, *TEXTS, *LANGUAGE, *SOUNDS, *TABLES, *ARCHIVES]
NAMES = [f"{row.kind}, {row.what}" for row in TABLE]
KEPT = {name: row for name, row in zip(NAMES, TABLE, strict=True) if not row.says}


def run(row: Broken, at: Path, *, strict: bool = False) -> Store:
    data = RAW[row.kind].model_validate({"kind": row.kind, "path": at / row.path, **row.asked})
    return prepare(data, seed=0, cache=at.parent / "cache", emit=silent, strict=strict)  # type: ignore[arg-type]


def rejects(store: Store) -> list[tuple[str, str]]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return [(line["path"], line["reason"]) for line in map(json.loads, lines)]


@pytest.fixture
def at(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data of a row, which is the test's parameter, where its limits, permissions and changes hold."""
    row: Broken = request.node.callspec.params["row"]
    at = tmp_path / "data"
    at.mkdir()
    row.fill(at)
    for name, value in row.limits.items():
        module, constant = name.rsplit(".", 1)
        monkeypatch.setattr(importlib.import_module(f"thrifty.data.{module}"), constant, value)
    if row.after is not None:
        take, change = preparation.take_inventory, row.after

        def take_and_change(*given: object, **named: object) -> object:
            found = take(*given, **named)  # type: ignore[arg-type]
            change(at)
            return found

        monkeypatch.setattr(preparation, "take_inventory", take_and_change)
    for name in row.unreadable:
        (at / name).chmod(0)
    with without_privilege() as obeyed:
        if row.unreadable and not obeyed:
            pytest.skip("permissions cannot be had here: root reads everything")
        yield at
    for name in row.unreadable:
        (at / name).chmod(0o700)


def test_the_table_is_of_every_kind_and_no_row_stands_in_it_twice() -> None:
    assert {row.kind for row in TABLE} == set(KINDS)
    assert len(set(NAMES)) == len(TABLE) > 200
    assert all(bool(row.says) != bool(row.offered) for row in TABLE)


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_what_is_broken_is_told_and_the_rest_is_kept(row: Broken, at: Path) -> None:
    if row.says:
        with pytest.raises(DataError) as caught:
            run(row, at)
        assert str(caught.value) == row.says.replace("{at}", str(at))
        assert not list((at.parent / "cache").glob("prepared/*"))
        return
    store = run(row, at)
    cleaning = store.dataset.cleaning
    assert dict(rejects(store)) == row.rejects
    assert cleaning.kept + len(row.rejects) == cleaning.seen == row.offered
    assert sum(cleaning.rejected.values()) == len(row.rejects)
    if row.kind != "language":
        # a text to continue is cut into windows
        assert sum(store.dataset.counts.values()) == cleaning.kept
    assert {name: count for name, count in cleaning.repaired.items() if "cut to" not in name} == row.repaired
    assert row.told in cleaning.notes or not row.told


@pytest.mark.parametrize("row", KEPT.values(), ids=KEPT)
def test_strict_fails_where_anything_is_put_aside(row: Broken, at: Path) -> None:
    if not row.rejects:
        run(row, at, strict=True)
        return
    with pytest.raises(DataError) as caught:
        run(row, at, strict=True)
    (store,) = (at.parent / "cache" / "prepared").iterdir()
    unit = KINDS[row.kind].cleaned  # type: ignore[index]
    assert str(caught.value) == (
        f"'{at / row.path}' is not clean: {len(row.rejects)} of {row.offered} {unit} are not used; each is named in "
        f"'{store}/rejects.jsonl'. Mend or remove them, or run without --strict, which leaves them out."
    )


def changed(raw: bytes, how: str, place: float, more: bytes) -> bytes:
    """Bytes with something done to them at a place, from 0 to 1."""
    at = int(place * len(raw))
    lines = raw.splitlines(keepends=True)
    line = int(place * len(lines))
    return {
        "cut": lambda: raw[:at],
        "flipped": lambda: raw[:at] + bytes(byte ^ 0x5A for byte in raw[at : at + 3]) + raw[at + 3 :],
        "NUL": lambda: raw[:at] + b"\0" + raw[at:],
        "more": lambda: raw[:at] + more + raw[at:],
        "line twice": lambda: b"".join([*lines[:line], *lines[line : line + 1] * 2, *lines[line + 1 :]]),
        "separators": lambda: raw.translate(bytes.maketrans(b",\t;", b";,\t")),
        "quote": lambda: raw[:at] + b'"' + raw[at:],
    }[how]()


# a good file of each form: where it lies, what lies beside it, and what is asked of it
WHOLE: dict[str, tuple[str, str, bytes, Callable[[Path], object], dict[str, object]]] = {
    "png": ("image", "cat/x.png", PNG, pets, {}),
    "jpeg": ("image", "cat/x.jpg", JPEG, pets, {}),
    "zip": ("image", "a.zip", zipped(), lambda at: None, {}),
    "tar": ("image", "a.tar.gz", tarred(mode="w:gz"), lambda at: None, {}),
    "wav": ("audio", "low/x.wav", WAV, tones, {}),
    "tsv": ("text", "all.tsv", TSV.encode(), lambda at: None, SHORT),
    "csv": ("text", "all.csv", CSV.encode(), lambda at: None, SHORT),
    "jsonl": ("text", "all.jsonl", JSONL.encode(), lambda at: None, SHORT),
    "txt": ("language", "x.txt", LINES.encode(), shelf, {**FEW, "files": "**/*"}),
    "rows": ("language", "x.jsonl", LINES.encode(), shelf, {**FEW, "files": "**/*"}),
    "columns": ("table", "all.csv", COLUMNS.encode(), lambda at: None, {}),
}


@pytest.mark.parametrize("form", WHOLE)
@settings(max_examples=12, deadline=None)
@given(
    how=st.lists(
        st.tuples(
            st.sampled_from(["cut", "flipped", "NUL", "more", "line twice", "separators", "quote"]),
            st.floats(0, 1, exclude_max=True),
            st.binary(min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_done_to_a_file_is_told(
    form: str, how: list[tuple[str, float, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind, name, raw, beside, asked = WHOLE[form]
    at = tmp_path_factory.mktemp("changed") / "data"
    at.mkdir()
    beside(at)
    for each in how:
        raw = changed(raw, *each)
    put(name, raw)(at)
    packed = name if name.startswith("a.") else ""
    with suppress(DataError):
        store = run(Broken(kind, form, put(name, raw), asked=asked, path=packed), at)
        cleaning = store.dataset.cleaning
        assert cleaning.kept + len(rejects(store)) == cleaning.seen
        if kind in {"image", "audio"} and not packed:
            assert cleaning.seen == len(list_files(at)[0])
        if kind != "language":
            assert sum(store.dataset.counts.values()) == cleaning.kept
