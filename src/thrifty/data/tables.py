"""Tables into a store: read once and spilled, columns told, the target found, splits dealt, rows encoded.

Shapes: N rows of all files, F numbers and codes of a row.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thrifty.data.columns import Found, tell, texts_of, times_of
from thrifty.data.dealt import DROPPED, PARTS, Dealt, deal_rows, seeded
from thrifty.data.draft import Draft
from thrifty.data.features import encode, learn_column
from thrifty.data.inputs import DUPLICATE_ACROSS, Reject, count_reasons, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.leaks import find_leaks
from thrifty.data.spill import Spill, digests_of, spill, table_split
from thrifty.data.split import HELD_OUT, splits_by_name
from thrifty.data.target import Target, column_named, find_target
from thrifty.data.told import Told, tell_labels, tell_numbers
from thrifty.errors import DataError, nearest
from thrifty.spec import SPLITS, Cleaning, Dataset, Table, TableData
from thrifty.spec.events import Emit, Warned

# of more training rows than these, quantiles and values are learned from as many, spread evenly
MOST_LEARNED_FROM = 1_000_000


def prepare_tables(data: TableData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the encoded rows, what they tell, and the rejects of a table into a draft; return what it holds.

    Arrays of each split: ``x`` float32 [n, F], as `Table` has them; ``y``, labels int64 [n], or numbers float32 [n],
    standardised.

    Raises:
        DataError: there are no tables, no column to tell, nothing to learn it from, or too few rows.
        StorageError: the cache has no room.
    """
    given, unread = _splits_of(data, inventory)
    draft.reserve(3 * sum(file.size for file in inventory.files if file.name in given))
    scratch = draft.folder / "scratch"
    scratch.mkdir()
    rows = spill(data, inventory, given, scratch, emit)
    target = find_target(data, rows.names, rows.tallies)
    parts = np.array([PARTS.index(given[name] or "train") for name in rows.sources], np.int8)[rows.files]
    missing = tuple(part for part in HELD_OUT if part not in given.values())
    cells = rows.column(target.name)
    told = tell_labels(cells, parts, missing) if target.task == "classify" else tell_numbers(cells)
    ranks, unplaced = _ranks(data, rows, seed)
    told = replace(told, rejects={**unplaced, **told.rejects})
    dealt = deal_rows(rows.digests, told, parts, data.split, missing, ranks)
    _check_parts(data, target, dealt, [*inventory.rejects, *unread, *rows.rejects, *_rejects(rows, told, dealt)])

    found, notes = _columns(data, rows, target)
    if missing and set(given.values()) != {""}:
        notes.append(f"no file is named after {' and '.join(missing)}: dealt from the training rows")
    table = _learned(rows, target, found, dealt.parts == 0)
    y_N, mean, deviation = told.standardised(dealt.parts == 0)
    table = table.model_copy(update={"mean": mean, "deviation": deviation})
    _write(draft, rows, table, dealt.parts, y_N)
    shutil.rmtree(scratch)
    notes += _warn_of_leaks(draft, table, target, emit)
    notes += dealt.notes

    rejects = [*inventory.rejects, *unread, *rows.rejects, *_rejects(rows, told, dealt)]
    draft.write("rejects.jsonl", reject_lines(rejects))
    reasons = count_reasons(rejects)
    counts = {part: int((dealt.parts == at).sum()) for at, part in enumerate(PARTS)}
    trained = Counter(y_N[dealt.parts == 0].tolist()) if told.labels else Counter()
    odd = {f"column '{name}': of another kind, taken for empty": each.odd for name, each in found.items() if each.odd}
    return Dataset(
        kind="table",
        task=target.task,
        key=inventory.key,
        counts=counts,
        labels=told.labels,
        label_counts={label: trained[at] for at, label in enumerate(told.labels)},
        shape=(table.numbers + table.codes,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=table.vocabulary,
        tokens={},
        text_bytes={},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=Cleaning(
            seen=sum(counts.values()) + len(rejects),
            kept=sum(counts.values()),
            rejected=reasons,
            duplicates=0,
            across_splits=reasons.get(DUPLICATE_ACROSS, 0),
            repaired={**told.repaired, **odd},
            notes=(rows.says, target.says, *notes),
        ),
        table=table,
    )


def _splits_of(data: TableData, inventory: Inventory) -> tuple[dict[str, str], list[Reject]]:
    """The split of each file to read: what its name says, or nothing for all where the names say nothing."""
    if not inventory.files:
        found = ", ".join(f"{count} {reason}" for reason, count in count_reasons(inventory.rejects).items())
        raise DataError(
            f"'{data.path}' holds no table ({found or 'it is empty'})",
            mend="Rows lie in .csv, .tsv or .parquet files, or UCI's .data and .test.",
        )
    if data.path.is_file():
        return {inventory.files[0].name: ""}, []
    return splits_by_name(data.path, (file.name for file in inventory.files), table_split, example="train.csv")


def _ranks(data: TableData, rows: Spill, seed: int) -> tuple[NDArray[np.uint64], dict[int, tuple[str, str]]]:
    """The order of dealing: by content, by the group that rows belong to, or the latest first; and rows without one."""
    if data.split.together is None:
        return seeded(rows.digests, seed), {}
    name = column_named(data.split.together, rows.names, "data.split")
    cells = rows.column(name)
    if data.split.group is not None:
        keys = texts_of(cells)
        ranks = seeded(digests_of(keys), seed)
    else:
        keys = times_of(cells)
        if keys.null_count() == len(keys):
            raise DataError(f"column '{name}' holds neither numbers nor dates", mend="Name another: data.split.time.")
        ranks = (-keys.fill_null(0.0)).rank("dense").cast(int).to_numpy().astype(np.uint64)
    without = np.flatnonzero(keys.is_null().to_numpy()).tolist()
    return ranks, dict.fromkeys(without, ("nothing to split by", f": column '{name}' is empty"))


def _columns(data: TableData, rows: Spill, target: Target) -> tuple[dict[str, Found], list[str]]:
    """What each column is that is learned from, and how that was told."""
    for name in data.ignore:
        if name not in rows.names:
            shown = ", ".join(rows.names)[:200]
            raise DataError(
                f"data.ignore names column '{name}'", nearest=nearest(name, rows.names), mend=f"There are: {shown}."
            )
    told = {name: tell(name, rows.tallies[name]) for name in rows.names if name not in {target.name, *data.ignore}}
    found = {name: each for name, each in told.items() if each.kind}
    if not found:
        raise DataError(f"no column of '{data.path}' but '{target.name}' tells anything", mend="Name it: data.target.")
    notes = [f"column '{name}' is a {each.kind}: {each.why}" for name, each in found.items()]
    left = [f"column '{name}' is left out: {each.why}" for name, each in told.items() if not each.kind]
    return found, notes + left


def _learned(rows: Spill, target: Target, found: Mapping[str, Found], train_N: NDArray[np.bool_]) -> Table:
    """The columns as the training split has them."""
    import polars as pl

    chosen = np.flatnonzero(train_N)
    # the same rows for the same data: no chance is in it
    chosen = chosen[:: -(-len(chosen) // MOST_LEARNED_FROM)]
    columns = []
    for name, each in found.items():
        cells = rows.column(name).gather(pl.Series(chosen))
        column = learn_column(name, each, cells)
        if column.edges or column.values:
            columns.append(column)
    if not columns:
        raise DataError(f"no column tells anything in the rows to train on of '{rows.sources[0]}'", mend="Add rows.")
    return Table(columns=tuple(columns), target=target.name)


def _write(draft: Draft, rows: Spill, table: Table, parts_N: NDArray[np.int8], y_N: NDArray) -> None:
    width = table.numbers + table.codes
    draft.reserve(len(y_N) * (4 * width + y_N.itemsize))
    with ExitStack() as stack:
        x_files = {part: stack.enter_context(draft.rows(part, "x", np.dtype(np.float32), (width,))) for part in SPLITS}
        for start, frame in rows.batches():
            parts = parts_N[start : start + len(frame)]
            x = encode(frame, table)
            for part, file in x_files.items():
                file.append(x[parts == PARTS.index(part)])
    for part in SPLITS:
        with draft.rows(part, "y", y_N.dtype, ()) as file:
            file.append(y_N[parts_N == PARTS.index(part)])


def _check_parts(data: TableData, target: Target, dealt: Dealt, rejects: Sequence[Reject]) -> None:
    for at, part in enumerate(PARTS):
        if not (dealt.parts == at).any():
            aside = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(rejects).items())
            raise DataError(
                f"no row of '{data.path}' is left for the {part} split{f'; put aside: {aside}' if aside else ''}",
                mend=f"Column '{target.name}' was to be told; another is named by data.target.",
            )


def _rejects(rows: Spill, told: Told, dealt: Dealt) -> list[Reject]:
    """The rows that were read and are not used, in order."""
    found = [Reject(rows.name(row), *told.rejects[row]) for row in sorted(told.rejects)]
    for row, original in dealt.copies.items():
        found.append(Reject(rows.name(row), DUPLICATE_ACROSS, f": {rows.name(original)}"))
    assert len(found) == int((dealt.parts == DROPPED).sum())
    return found


def _warn_of_leaks(draft: Draft, table: Table, target: Target, emit: Emit) -> list[str]:
    """Look for columns that alone tell the target, in the training split as it was written."""
    x, y = (np.load(draft.folder / f"train.{name}.npy", mmap_mode="r") for name in ("x", "y"))
    step = -(-len(y) // MOST_LEARNED_FROM)
    leaks = find_leaks(np.asarray(x[::step]), np.asarray(y[::step]), table, classify=target.task == "classify")
    notes = [
        f"column '{name}' alone tells '{target.name}': if it is known only after that, leave it out (data.ignore)"
        for name in leaks
    ]
    for note in notes:
        emit(Warned(note))
    return notes
