"""Texts with labels: read from tables or class folders, copies put aside, dealt to splits, their labels checked."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from thrifty.data.cells import PARQUET, encoding_of
from thrifty.data.choose import TEXT_FILES
from thrifty.data.documents.dealing import given_splits
from thrifty.data.encodings import UTF8
from thrifty.data.inputs import DUPLICATE, DUPLICATE_ACROSS, InputFile, Reject, count_reasons
from thrifty.data.inventory import Inventory
from thrifty.data.labels import folders_of, in_order
from thrifty.data.split import HELD_OUT, rank, split_by_count, splits_by_name
from thrifty.data.texts.columns import Columns, find_columns
from thrifty.data.texts.labels import Sample, check_labels, check_tags, strata_of
from thrifty.data.texts.row import UNLABELLED, Row, checked_row
from thrifty.data.texts.rows import read_row_blocks
from thrifty.data.together import split_together
from thrifty.data.unchanged import open_unchanged
from thrifty.errors import DataError
from thrifty.spec import SPLITS, TextData


@dataclass(frozen=True)
class Samples:
    """Texts by split, their labels in the order of their numbers, what was put aside, and what a user should know."""

    parts: Mapping[str, Sequence[Sample]]
    labels: tuple[str, ...]
    rejects: Sequence[Reject]
    notes: Sequence[str]


def read_samples(data: TextData, inventory: Inventory, seed: int) -> Samples:
    """Read the texts and decide which are kept, and in which split.

    Raises:
        DataError: there are no texts, no columns of text and label, or fewer than two labels to tell apart.
    """
    given, rejects = _splits_of(data, inventory)
    with _collector_paused():
        samples, unread, notes = _read_all(data, inventory, given, seed)
    kept, copies, conflicting = _find_copies(samples)
    missing = tuple(part for part in HELD_OUT if part not in given.values())
    by_stratum = strata_of(data, kept, missing)
    kept, splits, few = _deal(data, kept, missing, seed, by_stratum)
    rejects = [*inventory.rejects, *rejects, *unread, *conflicting, *few]
    check = check_tags if data.task == "tag" else check_labels
    kept, labels, odd, told = check(data, kept, splits, rejects)
    rejects += odd
    notes += told
    by_key = {sample.row.key: splits[sample.order] for sample in kept} if data.split.together is not None else {}
    rejects += _reject_copies(copies, kept, splits, missing, by_key, by_stratum)
    parts = {part: [sample for sample in kept if splits[sample.order] == part] for part in SPLITS}
    _check_parts(data, parts)
    if missing and set(given.values()) != {""}:
        notes.append(f"no file is named after {' and '.join(missing)}: dealt from the training rows")
    return Samples(parts, labels, rejects, notes)


def _splits_of(data: TextData, inventory: Inventory) -> tuple[dict[str, str], list[Reject]]:
    """The split of each file to read: what its name says, or nothing for all where the names say nothing."""
    if not inventory.files:
        found = ", ".join(f"{count} {reason}" for reason, count in count_reasons(inventory.rejects).items())
        raise DataError(
            f"'{data.path}' holds no table of texts ({found or 'it is empty'})",
            mend="Rows of text and label lie in .tsv, .csv, .jsonl or .parquet files, or texts in pos/1.txt.",
        )
    if data.path.is_file():
        return {inventory.files[0].name: ""}, []
    if _in_folders(inventory):
        if data.task == "tag":
            raise DataError(
                f"task tag is of texts with several labels, and each text of '{data.path}' lies in the folder of one",
                mend="Put them into a table, or take task: classify.",
            )
        if data.split.together is not None:
            raise DataError(
                f"data.split names the column {data.split.together!r}, and the texts of '{data.path}' are files",
                mend="Put them into a table, or leave group and time out of data.split.",
            )
        folders = folders_of((file.name for file in inventory.files), TEXT_FILES)
        named = given_splits([file.name for file in inventory.files]) if data.task == "mask" else {}
        return {file.name: folders.split(file.name) or named.get(file.name, "") for file in inventory.files}, []
    return splits_by_name(data.path, (file.name for file in inventory.files), example="train.tsv")


def _in_folders(inventory: Inventory) -> bool:
    """Whether files are texts, in folders that are their labels; then all of them are."""
    return inventory.files[0].suffix in TEXT_FILES


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Have Python not look for circles: of rows, of which there are millions, none is in one, and it goes on and on."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _read_all(
    data: TextData, inventory: Inventory, given: Mapping[str, str], seed: int
) -> tuple[list[Sample], list[Reject], list[str]]:
    """Read the files of the given splits: samples, rejects, and notes of how they were read."""
    files = [file for file in inventory.files if file.name in given]
    samples: list[Sample] = []
    rejects: list[Reject] = []
    encodings: dict[str, list[str]] = defaultdict(list)
    folders = folders_of((file.name for file in files), TEXT_FILES)
    columns: Columns | None = None
    if not _in_folders(inventory):
        # those of the first file to train on; all files have them
        first = next(file for file in files if given[file.name] in {"train", ""})
        with _opened(first, inventory) as stream:
            columns = find_columns(data, first.name, stream)
    for file in files:
        part = given[file.name] or "train"
        with _opened(file, inventory) as stream:
            if told := _told_encoding(data, file, stream):
                encodings[told].append(file.name)
            blocks: Iterable[Sequence[Row | Reject]] = (
                [_of_file(data, file, stream, folders.label(file.name))]
                if columns is None
                else read_row_blocks(data, file.name, stream, columns)
            )
            for block in blocks:
                rows = [row for row in block if isinstance(row, Row)]
                rejects += [row for row in block if isinstance(row, Reject)]
                ranks = [rank(seed, hashlib.sha256(row.text.encode()).hexdigest(), row.name) for row in rows]
                samples += map(Sample, rows, itertools.repeat(part), ranks, itertools.count(len(samples)))
                if len(samples) > data.max_rows:
                    raise DataError(
                        f"'{data.path}' has over {data.max_rows:,} rows, the limit of data.max_rows",
                        mend="Raise it where there is memory for all texts, or take a part.",
                    )
    notes = [columns.says] if columns else ["each file is a text, its folder its label"]
    notes += [f"{', '.join(names[:3])}{' …' * (len(names) > 3)} {told}" for told, names in encodings.items()]
    return samples, rejects, notes


@contextlib.contextmanager
def _opened(file: InputFile, inventory: Inventory) -> Iterator[BinaryIO]:
    """Open a file that is as it was hashed, which shows at the end; Parquet is read from places all over it."""
    with open_unchanged(file, inventory.hashes[file.name]) as stream:
        if file.suffix != PARQUET:
            yield stream
            return
        with Path(file.path).open("rb") as plain:
            yield plain


def _told_encoding(data: TextData, file: InputFile, stream: BinaryIO) -> str:
    """What a user should know of a file's encoding; nothing of UTF-8."""
    if file.suffix == PARQUET:
        return ""
    found = encoding_of(stream, data.encoding)
    if found.name == UTF8:
        return ""
    return f"read as {found.name}" if found.name else f"read as UTF-8, though it is not: {''.join(found.problem)}"


def _of_file(data: TextData, file: InputFile, stream: BinaryIO, label: str) -> list[Row | Reject]:
    """A file that is a text, whose label is its folder; or one whose paragraphs are texts without labels."""
    raw = stream.read()
    long = len(raw) > data.max_row_bytes
    parted = data.task == "mask" and (long or not label)
    if long and not parted:
        return [_too_long(data, file.name, len(raw))]
    found = encoding_of(io.BytesIO(raw), data.encoding)
    try:
        text = raw[found.mark :].decode(found.name) if found.name else ""
    except UnicodeDecodeError as error:
        return [Reject(file.name, f"not {found.name}", f" at byte {found.mark + error.start}")]
    if not found.name:
        return [Reject(file.name, *found.problem)]
    if not parted:
        return [checked_row(file.name, [text], label)]
    return [
        checked_row(f"{file.name}:{line}", [each], UNLABELLED)
        if (size := len(each.encode())) <= data.max_row_bytes
        else _too_long(data, f"{file.name}:{line}", size)
        for line, each in paragraphs_of(text)
    ] or [Reject(file.name, "empty text")]


def _too_long(data: TextData, name: str, size: int) -> Reject:
    return Reject(name, "text too long", f": {size:,} bytes, over the limit of {data.max_row_bytes:,.0f}")


def paragraphs_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a text, what blank lines part, each with the line it begins on; of one without blank
    lines, its lines.

    >>> list(paragraphs_of("One\\ntwo.\\n\\nThree.\\n")), list(paragraphs_of("One.\\nTwo."))
    ([(1, 'One two.'), (4, 'Three.')], [(1, 'One.'), (2, 'Two.')])
    """
    lines = [line.strip() for line in text.splitlines()]
    by_line = all(lines)
    begin, held = 1, list[str]()
    for number, line in enumerate([*lines, ""], start=1):
        if held and (by_line or not line):
            yield begin, " ".join(held)
            held = []
        if line:
            begin = begin if held else number
            held.append(line)


def _find_copies(samples: Sequence[Sample]) -> tuple[list[Sample], list[tuple[Sample, Sample]], list[Reject]]:
    """Group rows of equal text: those to keep, (copy, kept one) for the rest, and those under several labels.

    Of equal rows the one furthest towards the held-out splits is kept, and of those the one of lowest rank.
    """
    times = Counter(sample.row.text for sample in samples)
    if len(times) == len(samples):
        return list(samples), [], []
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if times[sample.row.text] > 1:
            groups[sample.row.text].append(sample)
    kept = [sample for sample in samples if times[sample.row.text] == 1]
    copies, rejects = [], []
    for group in groups.values():
        labels = in_order({sample.row.label for sample in group})
        if len(labels) > 1:
            reason = f"same text under labels {', '.join(labels[:-1])} and {labels[-1]}"
            rejects += [Reject(sample.row.name, reason) for sample in group]
            continue
        first = min(group, key=lambda sample: ((*HELD_OUT, "train").index(sample.split), sample.rank))
        kept.append(first)
        copies += [(sample, first) for sample in group if sample is not first]
    return sorted(kept, key=lambda sample: sample.order), copies, rejects


def _deal(
    data: TextData, kept: Sequence[Sample], missing: Sequence[str], seed: int, strata: Mapping[int, str]
) -> tuple[list[Sample], dict[int, str], list[Reject]]:
    """Give every row its split: its file's, or, of the training rows, the splits that no file gives, label by label.

    Where the split goes by group or time, labels have no say.
    """
    splits = {sample.order: sample.split for sample in kept}
    if not missing:
        return list(kept), splits, []
    if data.split.together is not None:
        keys = {str(sample.order): sample.row.key for sample in kept if sample.split == "train"}
        dealt = split_together(keys, data.split, seed=seed, held_out=missing)
        return list(kept), splits | {int(order): part for order, part in dealt.items()}, []
    by_label: dict[str, dict[int, bytes]] = defaultdict(dict)
    for sample in kept:
        if sample.split == "train":
            by_label[strata[sample.order]][sample.order] = sample.rank
    few: set[str] = set()
    for label, ranks in by_label.items():
        if len(ranks) <= len(missing):
            # of several labels each may be learned of other rows too
            few |= set() if data.task == "tag" else {label}
        else:
            splits |= split_by_count(ranks, data.split, missing)
    # training alone is no use: such a label could be learned and never be checked
    reason = f"label of under {len(missing) + 1} rows"
    lone = {sample.order for sample in kept if strata.get(sample.order) in few}
    rejects = [Reject(s.row.name, reason, f": {s.row.label[:50]}") for s in kept if s.order in lone]
    return [sample for sample in kept if sample.order not in lone], splits, rejects


def _reject_copies(
    copies: Iterable[tuple[Sample, Sample]],
    kept: Iterable[Sample],
    splits: Mapping[int, str],
    missing: Sequence[str],
    by_key: Mapping[str, str],
    strata: Mapping[int, str],
) -> list[Reject]:
    """Tell the copies that would have stood in their original's own split from those in another.

    ``by_key`` is the split of each group or moment, where rows were dealt so; ``strata`` what others were dealt by.
    """
    ends: dict[tuple[str, str], bytes] = {}
    for sample in kept:
        if sample.split == "train":
            place = (strata[sample.order], splits[sample.order])
            ends[place] = max(ends.get(place, b""), sample.rank)
    rejects = []
    for copy, original in copies:
        own = copy.split
        if own == "train" and by_key:
            own = by_key.get(copy.row.key, "train")
        elif own == "train":
            # one whose original a file holds out has no place among those that were dealt
            label = strata.get(original.order, copy.row.label)
            own = next((part for part in missing if copy.rank <= ends.get((label, part), b"")), "train")
        reason = DUPLICATE if own == splits[original.order] else DUPLICATE_ACROSS
        rejects.append(Reject(copy.row.name, reason, f": {original.row.name}"))
    return rejects


def _check_parts(data: TextData, parts: Mapping[str, Sequence[Sample]]) -> None:
    for part, samples in parts.items():
        if not samples:
            raise DataError(
                f"no row of '{data.path}' is left for the {part} split",
                mend="Leave the file out to have the split dealt from the training rows, or mend its rows.",
            )
