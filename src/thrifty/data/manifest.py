"""Tables that name files and their labels: TSV, CSV, JSONL or Parquet, a row for each file, with its split.

One table may name them all, or one for each split, as ``train.tsv``, ``dev.tsv`` and ``test.tsv`` of Common Voice.
"""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from thrifty.data.cells import PARQUET, read_cells
from thrifty.data.inputs import TABLE_SUFFIXES, InputFile, Reject
from thrifty.data.labels import in_order
from thrifty.data.split import HELD_OUT, SPLIT_NAMES, split_of
from thrifty.data.texts.columns import LABEL_NAMES, SAMPLED_ROWS
from thrifty.data.together import no_key
from thrifty.errors import DataError, nearest
from thrifty.spec import Split
from thrifty.spec.data import Column

SPLIT_COLUMNS = ("split", "subset", "partition", "set")
MOST_ROW_BYTES = 64 << 10
# of the rows looked at, that must name a file of the folder
_NAMING = 0.5
_SHOWN, _FILES_SHOWN = 60, 4
AS_IT_COMES = Split()

Row = tuple[int, list[Any]]


@dataclass(frozen=True, slots=True)
class Named:
    """What a manifest says of a file.

    Attributes:
        label: of the file.
        split: empty where it says none.
        key: group or moment that it belongs to, where the job names the column.
    """

    label: str
    split: str
    key: str = ""


@dataclass(frozen=True)
class Manifest:
    """What tables, or other files, say of the images or recordings of a folder.

    Attributes:
        files: that say so.
        named: of each file that a row names, by its relative name.
        rejects: rows that cannot be used.
        label: the name of the column of labels; its number, in words, where it has none.
        says: which files and columns were taken.
    """

    files: tuple[InputFile, ...]
    named: dict[str, Named]
    rejects: tuple[Reject, ...]
    label: str
    says: str

    @property
    def source(self) -> str:
        """Who says so, in words: ``'labels.csv' says``."""
        return f"{in_words([file.name for file in self.files])} say{'s' * (len(self.files) == 1)}"

    @property
    def by_name(self) -> bool:
        """Whether files are named after splits, and others beside them are left out."""
        return len(self.files) > 1


@dataclass(frozen=True)
class Answer:
    """Which column of a table is learned.

    Attributes:
        asked: by its name, or by number from 1; found where nobody asks.
        names: that it may have, the likelier first.
        guessed: one of another name is taken where none has these.
    """

    asked: str | int | None = None
    names: tuple[str, ...] = LABEL_NAMES
    guessed: bool = True


ANY_LABEL = Answer()


def find_manifest(
    files: Sequence[InputFile],
    samples: Iterable[InputFile],
    asked: Split = AS_IT_COMES,
    *,
    what: str = "image",
    answer: Answer = ANY_LABEL,
) -> Manifest | None:
    """Return what tables say whose rows name images or other samples of the folder; None where none does.

    Where tables that name samples are named after splits, or lie in folders that are, and some are to train on, they
    are read together; else the first is read. A row names a file by its path from the data folder or from the table's
    own, or by its bare name, with or without suffix, where only one has it.

    Args:
        files: of the data folder.
        samples: those of them that a table may name.
        what: a sample is called.
        asked: the column of groups or times, where the split goes by one.
        answer: which column is its label.

    Raises:
        DataError: tables name samples, and none has such a column.
    """
    samples = tuple(samples)
    tables = [file for file in files if file.suffix in {*TABLE_SUFFIXES, PARQUET}] if samples else []
    problems: list[DataError] = []

    def listings(chosen: Iterable[InputFile]) -> Iterator[_Listing]:
        for file in chosen:
            try:
                found = _read(file, samples, asked, what, answer)
            except DataError as error:
                problems.append(error)
                continue
            if found is not None:
                yield found

    named_after = {file.name: split_of(file.name) for file in tables}
    if are_splits(named_after.values()):
        parts = list(listings(file for file in tables if named_after[file.name]))
        if are_splits(named_after[part.file.name] for part in parts):
            return _joined(parts, named_after, what)
    for listing in listings(tables):
        named = {name: each for name, (_, each) in listing.named.items()}
        says = f"'{listing.file.name}' names the {what}s: {listing.says}"
        return Manifest((listing.file,), named, listing.rejects, listing.label, says)
    if problems:
        raise problems[0]
    return None


def are_splits(splits: Iterable[str]) -> bool:
    """Say whether there is something to train on among splits that files are named after, and something else."""
    found = {*splits} - {""}
    return "train" in found and len(found) > 1


def _joined(parts: Sequence[_Listing], named_after: Mapping[str, str], what: str) -> Manifest:
    """Put tables of splits together; what stands in several stays in the one that is furthest held out."""
    order = sorted(parts, key=lambda part: (*HELD_OUT, "train").index(named_after[part.file.name]))
    named: dict[str, Named] = {}
    first: dict[str, str] = {}
    rejects = [reject for part in parts for reject in part.rejects]
    for part in order:
        table = part.file.name
        for name, (line, each) in part.named.items():
            if name in named:
                rejects.append(Reject(f"{table}:{line}", "named twice", f": {name}, in {first[name]} too"))
                continue
            named[name] = each if each.split else replace(each, split=named_after[table])
            first[name] = table
    titles = in_words([part.file.name for part in parts])
    others = [name for name, split in named_after.items() if not split]
    left_out = f"; left out: {in_words(others)}" if others else ""
    says = f"{titles} name the {what}s: {parts[0].says}, split by their own names{left_out}"
    return Manifest(tuple(part.file for part in parts), named, tuple(rejects), parts[0].label, says)


def in_words(names: Sequence[str]) -> str:
    """Name some files; of many the first, and how many more there are.

    >>> in_words(["dev.tsv", "test.tsv", "train.tsv"]), in_words([f"{at}.tsv" for at in range(9)])
    ("'dev.tsv', 'test.tsv' and 'train.tsv'", "'0.tsv' and 8 more")
    """
    shown = [f"'{name}'" for name in names]
    if len(names) > _FILES_SHOWN:
        shown = [shown[0], f"{len(names) - 1:,} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


@dataclass(frozen=True)
class _Listing:
    """One table: what it says of each file, with the line that does."""

    file: InputFile
    named: dict[str, tuple[int, Named]]
    rejects: tuple[Reject, ...]
    label: str
    says: str


def _read(file: InputFile, samples: Sequence[InputFile], asked: Split, what: str, answer: Answer) -> _Listing | None:
    known = _known(file, samples)
    rejects: list[Reject] = []
    if file.suffix == PARQUET:
        header, rows = _of_parquet(file)
    else:
        header, rows = _rows(file.name, Path(file.path).read_bytes(), known, rejects)
    columns = list(itertools.zip_longest(*(cells for _, cells in rows[:SAMPLED_ROWS])))
    naming = [sum(str(cell) in known for cell in column) / max(len(column), 1) for column in columns]
    if len(columns) < 2 or max(naming) < _NAMING:
        return None
    image = naming.index(max(naming))
    split = next((at for at in range(len(columns)) if at != image and _is_split(header, columns, at)), None)
    key = None if asked.together is None else _column(file.name, header, len(columns), asked.together)
    label = _label_of(file.name, header, columns, {image, split, key}, answer)
    if label is None:
        return None
    named, odd = _named(file.name, rows, known, (image, label, split, key), what, by_time=asked.time is not None)
    taken = {what: image, "label": label, "split": split, "group" if asked.time is None else "time": key}
    said = ", ".join(f"{what} {_title(header, at)}" for what, at in taken.items() if at is not None)
    title = header[label] if label < len(header) else str(label + 1)
    return _Listing(file, named, (*rejects, *odd), title, said)


def _known(file: InputFile, samples: Sequence[InputFile]) -> dict[str, str]:
    """Every way in which a row may name a sample."""
    folder = PurePosixPath(file.name).parent
    bare: dict[str, list[str]] = defaultdict(list)
    known: dict[str, str] = {}
    for each in samples:
        path = PurePosixPath(each.name)
        for name in {path.name, path.stem}:
            bare[name].append(each.name)
        known[each.name] = each.name
        if path.is_relative_to(folder):
            known[str(path.relative_to(folder))] = each.name
    return {name: found[0] for name, found in bare.items() if len(found) == 1} | known


def _rows(name: str, raw: bytes, known: Mapping[str, str], rejects: list[Reject]) -> tuple[list[str], list[Row]]:
    """The names of the columns, none where the first row names a sample, and the rows; what is none is put aside."""
    header: list[str] = []
    rows: list[Row] = []
    for line, cells in read_cells(name, io.BytesIO(raw), MOST_ROW_BYTES):
        if isinstance(cells, tuple):
            rejects.append(Reject(f"{name}:{line}", *cells))
        elif isinstance(cells, dict):
            header += [key for key in cells if key not in header]
            rows.append((line, [cells.get(key) for key in header]))
        elif not rows and not header and not any(cell.strip() in known for cell in cells):
            header = [cell.strip() for cell in cells]
        elif len(cells) != (width := len(header) or len(rows[0][1] if rows else cells)):
            rejects.append(Reject(f"{name}:{line}", "ragged row", f": {len(cells)} cells, {width} are usual"))
        else:
            rows.append((line, list(cells)))
    return header, rows


def _of_parquet(file: InputFile) -> tuple[list[str], list[Row]]:
    """The names of the columns that hold names or whole numbers, and the rows; nothing where it is no Parquet file."""
    import polars
    from polars import selectors

    plain = selectors.string(include_categorical=True) | selectors.integer() | selectors.boolean()
    try:
        cells = polars.scan_parquet(file.path, glob=False).select(plain).collect()
    except (OSError, polars.exceptions.PolarsError):
        return [], []
    return cells.columns, [(number, list(row)) for number, row in enumerate(cells.iter_rows(), 1)]


def _is_split(header: Sequence[str], columns: Sequence[Sequence[Any]], at: int) -> bool:
    naming = sum(str(cell).strip().lower() in SPLIT_NAMES for cell in columns[at])
    if at < len(header):
        return header[at].lower() in SPLIT_COLUMNS and naming >= _NAMING * len(columns[at])
    return naming == len(columns[at])


def _label_of(
    name: str, header: Sequence[str], columns: Sequence[Sequence[Any]], taken: set[int | None], answer: Answer
) -> int | None:
    """The column of labels: as asked for, or by its name, else the fewest different values of those with several."""
    if answer.asked is not None:
        return _column(name, header, len(columns), answer.asked)
    others = [at for at in range(len(columns)) if at not in taken]
    names = [name.lower() for name in header]
    by_name = next((names.index(name) for name in answer.names if name in names and names.index(name) in others), None)
    if by_name is not None:
        return by_name
    kinds = {at: len({str(cell) for cell in columns[at]}) for at in others}
    several = [at for at in others if 1 < kinds[at] < len(columns[at]) and answer.guessed]
    return min(several, key=lambda at: (kinds[at], at), default=None)


def _named(
    name: str,
    rows: Sequence[Row],
    known: Mapping[str, str],
    columns: tuple[int, int, int | None, int | None],
    what: str,
    *,
    by_time: bool,
) -> tuple[dict[str, tuple[int, Named]], list[Reject]]:
    """What rows say of samples, with their lines; those that name none, say no label, or say it twice are put aside."""
    said: dict[str, list[tuple[int, Named]]] = defaultdict(list)
    rejects: list[Reject] = []
    for line, cells in rows:
        here = f"{name}:{line}"
        asked, wanted, part, belongs = (_cell(cells, at) for at in columns)
        found = known.get(asked)
        if found is None:
            rejects.append(Reject(here, f"names no {what}", f": {asked[:_SHOWN]!r}"))
        elif not wanted:
            rejects.append(Reject(here, "empty label", f": of {asked[:_SHOWN]!r}"))
        elif columns[2] is not None and part.lower() not in SPLIT_NAMES:
            rejects.append(Reject(here, "names no split", f": {part[:_SHOWN]!r}"))
        elif columns[3] is not None and (problem := no_key(belongs, by_time=by_time)):
            rejects.append(Reject(here, problem, f": {belongs[:_SHOWN]!r}"))
        else:
            said[found].append((line, Named(wanted, SPLIT_NAMES.get(part.lower(), ""), belongs)))
    named: dict[str, tuple[int, Named]] = {}
    for found, each in said.items():
        labels = in_order({one.label for _, one in each})
        if len(labels) > 1:
            reason = f"same {what} under labels {', '.join(labels[:-1])} and {labels[-1]}"
            rejects += [Reject(f"{name}:{line}", reason) for line, _ in each]
            continue
        named[found] = each[0]
        rejects += [Reject(f"{name}:{line}", "named twice", f": {found}") for line, _ in each[1:]]
    return named, rejects


def _cell(cells: Sequence[Any], at: int | None) -> str:
    if at is None or at >= len(cells) or cells[at] is None:
        return ""
    return str(cells[at]).strip()


def _column(name: str, header: Sequence[str], width: int, asked: Column) -> int:
    """Find a column by its name in the header or its number from 1."""
    names = {title.lower(): at for at, title in enumerate(header)}
    at = asked - 1 if isinstance(asked, int) else names.get(asked.lower(), width)
    if at < width:
        return at
    known = ", ".join(header) or f"numbers 1 to {width}"
    raise DataError(
        f"'{name}' has no column {asked!r}, which the job names",
        nearest=nearest(str(asked), header),
        mend=f"Columns: {known}.",
    )


def _title(header: Sequence[str], at: int) -> str:
    return f"'{header[at]}'" if at < len(header) else f"column {at + 1}"
