"""Tables into a store: read once and spilled, columns told, the target found, splits dealt, rows encoded.

Shapes: N rows of all files, F numbers and codes of a row.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thrifty.data.ahead import work_ahead
from thrifty.data.draft import Draft
from thrifty.data.inputs import DUPLICATE_ACROSS, Reject, cleaned, count_reasons, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.split import HELD_OUT, splits_by_name
from thrifty.data.tables.coded import Cells, count_cells
from thrifty.data.tables.columns import Found, tell, texts_of, time_format, times_of
from thrifty.data.tables.dealt import DROPPED, PARTS, Dealt, by_seed, deal_rows
from thrifty.data.tables.features import encode, learn_column
from thrifty.data.tables.leaks import find_leaks
from thrifty.data.tables.row_hashes import hash_texts
from thrifty.data.tables.spill import Spill, Spilled, spill, table_split
from thrifty.data.tables.tape import PART_ROWS, Tape
from thrifty.data.tables.target import Target, column_named, find_target
from thrifty.data.tables.told import Told, tell_labels, tell_numbers
from thrifty.errors import DataError, nearest
from thrifty.spec import SPLITS, Dataset, Table, TableData
from thrifty.spec.events import Emit, Warned
from thrifty.spec.table import Column

# of more training rows than these, quantiles and values are learned from as many, spread evenly
MOST_LEARNED_FROM = 1_000_000
# of which cells are held to learn from
COLUMNS_AT_ONCE = 8


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
    splits = [given[name] or "train" for name in rows.sources]
    missing = tuple(part for part in HELD_OUT if part not in given.values())
    if target.task == "classify":
        told = tell_labels(rows, target.name, splits, missing, Tape(scratch / "y", np.int16))
    else:
        told = tell_numbers(rows, target.name, Tape(scratch / "y", np.float64))
    ranks, unplaced = _ranks(data, rows, seed)
    told = replace(told, rejects={**unplaced, **told.rejects})
    parts = np.repeat(
        np.array([PARTS.index(splits[block.file]) for block in rows.blocks], np.int8),
        [block.count for block in rows.blocks],
    )
    dealt = deal_rows(rows.digests, told, parts, data.split, missing, ranks)
    rejects = [*inventory.rejects, *unread, *rows.rejects, *_rejects(rows, told, dealt)]
    _check_parts(data, target, dealt, rejects)

    found, notes = _columns(data, rows, target)
    if missing and set(given.values()) != {""}:
        notes.append(f"no file is named after {' and '.join(missing)}: dealt from the training rows")
    table = _learned(rows, target, found, dealt.parts == 0)
    mean, deviation = told.scale(dealt.parts == 0)
    table = table.model_copy(update={"mean": mean, "deviation": deviation})
    some_x, some_y = _write(draft, rows, table, dealt.parts, told)
    trained = told.count(dealt.parts == 0)
    shutil.rmtree(scratch)
    notes += _warn_of_leaks(some_x, some_y, table, target, emit)
    notes += dealt.notes

    draft.write("rejects.jsonl", reject_lines(rejects))
    counts = {part: int((dealt.parts == at).sum()) for at, part in enumerate(PARTS)}
    odd = {f"column '{name}': of another kind, taken for empty": each.odd for name, each in found.items() if each.odd}
    return Dataset(
        kind="table",
        task=target.task,
        key=inventory.key,
        counts=counts,
        labels=told.labels,
        label_counts=dict(zip(told.labels, trained, strict=True)),
        shape=(table.numbers + table.codes,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=table.vocabulary,
        tokens={},
        text_bytes={},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=cleaned(
            sum(counts.values()), count_reasons(rejects), (rows.says, target.says, *notes), {**told.repaired, **odd}
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


def _ranks(data: TableData, rows: Spill, seed: int) -> tuple[NDArray[np.uint64] | int, dict[int, tuple[str, str]]]:
    """The order of dealing: the seed, by content; by the group that rows belong to, or the latest first; and the rows
    without one.
    """
    if data.split.together is None:
        return seed, {}
    name = column_named(data.split.together, rows.names, "data.split")
    form = "" if data.split.group is not None else time_format(rows.column(name), rows.tallies[name])
    if form is None:
        raise DataError(f"column '{name}' holds neither numbers nor dates", mend="Name another: data.split.time.")
    ranks, without = np.empty(len(rows.digests), np.uint64), []
    for block, cells in zip(rows.blocks, rows.column(name), strict=True):
        if data.split.group is not None:
            keys = texts_of(cells.values)
            found = by_seed(hash_texts(keys), seed)
        else:
            keys = times_of(cells.values, form)
            found = _latest_first(keys.fill_null(0.0).to_numpy())
        ranks[block.rows] = cells.spread(found)
        without += (block.start + np.flatnonzero(cells.spread(keys.is_null().to_numpy()))).tolist()
    return ranks, dict.fromkeys(without, ("nothing to split by", f": column '{name}' is empty"))


def _latest_first(times: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Numbers that rise as times fall."""
    # the bits of IEEE 754 rise with positive numbers and fall with negative ones; -0 is taken for 0
    bits = (times + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63), bits, ~(bits | np.uint64(1 << 63)))


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
    chosen_N = _spread_evenly(train_N, MOST_LEARNED_FROM)
    columns: list[Column] = []
    for names in _some(list(found), COLUMNS_AT_ONCE):
        seen: dict[str, list[Cells]] = {name: [] for name in names}
        for block in rows.blocks:
            for name, cells in block.read(names).items():
                seen[name].append(cells.of(chosen_N[block.rows]))
        learned = (learn_column(name, found[name], count_cells(seen[name])) for name in names)
        columns += [column for column in learned if column.edges or column.values]
    if not columns:
        raise DataError(f"no column tells anything in the rows to train on of '{rows.sources[0]}'", mend="Add rows.")
    return Table(columns=tuple(columns), target=target.name)


def _some(names: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    return (names[at : at + count] for at in range(0, len(names), count))


def _spread_evenly(train_N: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Choose so many of the training rows: the same ones for the same data, no chance is in it."""
    step = -(-int(train_N.sum()) // most)
    chosen_N, before = train_N.copy(), 0
    for start in range(0, len(train_N) if step > 1 else 0, PART_ROWS):
        part = chosen_N[start : start + PART_ROWS]
        order = before + np.cumsum(part)
        before += int(part.sum())
        part &= (order - 1) % step == 0
    return chosen_N


def _write(
    draft: Draft, rows: Spill, table: Table, parts_N: NDArray[np.int8], told: Told
) -> tuple[NDArray[np.float32], NDArray]:
    """Write rows and what they tell; return those of the training split that are learned from."""
    width = table.numbers + table.codes
    y_type = np.dtype(np.int64 if told.labels else np.float32)
    draft.reserve(len(parts_N) * (4 * width + y_type.itemsize))
    with ExitStack() as stack:
        files = {
            part: (
                stack.enter_context(draft.rows(part, "x", np.dtype(np.float32), (width,))),
                stack.enter_context(draft.rows(part, "y", y_type, ())),
            )
            for part in SPLITS
        }

        def encoded(block: Spilled) -> tuple[slice, NDArray[np.float32], NDArray]:
            y = told.y.read(block.rows.start, block.rows.stop)
            x = encode(block.read([column.name for column in table.columns]), table)
            return block.rows, x, y if told.labels else (y - table.mean) / table.deviation

        chosen_N = _spread_evenly(parts_N == 0, MOST_LEARNED_FROM)
        chosen = []
        for place, x, y in work_ahead(encoded, rows.blocks):
            chosen.append((x[chosen_N[place]], y[chosen_N[place]]))
            for part, (x_file, y_file) in files.items():
                own = parts_N[place] == PARTS.index(part)
                x_file.append(x[own])
                y_file.append(y[own])
    return np.concatenate([x for x, _ in chosen]), np.concatenate([y for _, y in chosen])


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


def _warn_of_leaks(x_NF: NDArray[np.float32], y_N: NDArray, table: Table, target: Target, emit: Emit) -> list[str]:
    """Look for columns that alone tell the target, in rows of the training split."""
    leaks = find_leaks(x_NF, y_N, table, classify=target.task == "classify")
    notes = [
        f"column '{name}' alone tells '{target.name}': if it is known only after that, leave it out (data.ignore)"
        for name in leaks
    ]
    for note in notes:
        emit(Warned(note))
    return notes
