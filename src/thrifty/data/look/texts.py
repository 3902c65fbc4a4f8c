"""Recognise texts with labels: rows of tables, files in class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thrifty.data.cells import PARQUET
from thrifty.data.choose import TEXT_FILES, TEXT_TABLES
from thrifty.data.inputs import InputFile
from thrifty.data.labels import folders_of
from thrifty.data.look.found import Look, Seen, job_name, shares, shown
from thrifty.data.look.language import TEXT_SUFFIXES
from thrifty.data.split import split_of
from thrifty.data.texts.columns import SAMPLED_ROWS, find_columns, sample_labels
from thrifty.data.texts.row import Row
from thrifty.data.texts.rows import read_rows
from thrifty.data.texts.tags import recognise
from thrifty.errors import DataError
from thrifty.spec import SPLITS, TextData

# From SST-2's 6,920 sentences a bag of n-grams learns to tell 0.81 of those held out, BERTs from scratch 0.79 in ten
# times the work and more. Where attention catches up was not measured.
ROWS_FOR_ATTENTION = 100_000
_FEWEST_A_FOLDER = 20
_FORMS = {PARQUET: "Parquet"}
# the radicals, with which Unicode's blocks of east Asia begin
_FIRST_OF_EAST_ASIA = "\u2e80"


def labelled_texts(seen: Seen) -> Look | None:
    """Texts with labels in tables: the columns of the first table to train on, the rows of all."""
    path, tables = seen.path, [file for file in seen.files if file.suffix in TEXT_TABLES]
    others = sum(file.size for file in seen.files if file.suffix in TEXT_SUFFIXES)
    if not tables or sum(file.size for file in tables) < others:
        return None
    data = TextData(kind="text", path=path)
    named = {file.name: split_of(file.name) for file in tables} if not path.is_file() else {}
    tables = [file for file in tables if named.get(file.name)] or tables
    first = next((file for file in tables if named.get(file.name) == "train"), tables[0])
    with Path(first.path).open("rb") as stream:
        columns = find_columns(data, first.name, stream)
        several = recognise(sample_labels(data, first.name, stream, columns))
    if several is not None:
        data = data.model_copy(update={"task": "tag", "label_separator": several[0]})
    counts: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    sizes: list[int] = []
    sample: list[str] = []
    for file in tables:
        with Path(file.path).open("rb") as stream:
            for row in read_rows(data, file.name, stream, columns):
                if isinstance(row, Row):
                    counts[named.get(file.name, "")] += 1
                    labels.update((row.label,) if several is None else row.labels)
                    sizes.append(len(row.text))
                    sample += [row.text] if len(sample) < SAMPLED_ROWS else []
    rows = " + ".join(f"{counts[part]:,}" for part in ("", *SPLITS) if counts[part])
    forms = "/".join(sorted({_FORMS.get(file.suffix, file.suffix.removeprefix(".").upper()) for file in tables}))
    if not sizes:
        raise DataError(f"no row of '{path}' can be used", mend="A row holds a text and its label.")
    size = f"{min(sizes):,} to {max(sizes):,} characters"
    each = "" if several is None else f", {labels.total() / len(sizes):.2g} a text"
    says = f"{shown(path)}: {rows} texts, {len(labels)} labels{each} ({shares(labels)}), {size}, {forms}"
    # what was found is written down, so that a row that comes first one day does not change it
    at = {"text": columns.text, "label": columns.label}
    at |= {"text_b": columns.text_b} if columns.text_b is not None else {}
    asked: dict[str, Any] = {"kind": "text", "path": str(path)}
    asked |= {key: place + 1 if isinstance(place, int) else place for key, place in at.items()}
    asked |= {} if data.label_separator is None else {"label_separator": data.label_separator}
    if tables[0].suffix in {".tsv", ".csv"}:
        asked["header"] = columns.header
    # all of them where no file is named after a split
    chosen, why = _model(counts["train"] or counts.total(), sample, pairs=columns.text_b is not None)
    why = {"data.text": columns.says, **why}
    if several is None:
        return _look(path, says, asked, chosen, why)
    return _look(path, says, asked, chosen, {"task": f"texts have several labels: {several[1]}", **why}, task="tag")


def _look(
    path: Path, says: str, data: dict[str, Any], chosen: dict[str, Any], why: dict[str, str], **task: str
) -> Look:
    data |= {name: value for name, value in chosen.items() if name != "model"}
    return Look("text", says, {"name": job_name(path), "data": data, **task, "model": chosen["model"]}, why)


def texts_in_folders(seen: Seen) -> Look | None:
    """Texts with labels in class folders, within splits or not, as reviews are published: ``train/pos/1.txt``.

    Folders of a corpus look alike where they are not splits: then many files must lie in few folders, and be short.
    """
    path, texts = seen.path, [file for file in seen.files if file.suffix in TEXT_FILES]
    folders = folders_of((file.name for file in texts), TEXT_FILES)
    labelled = [file for file in texts if folders.label(file.name)]
    counts = Counter(folders.label(file.name) for file in labelled)
    if (
        len(counts) < 2
        or 2 * len(labelled) < len(seen.files)
        or not (folders.by_split or _are_reviews(labelled, counts))
    ):
        return None
    given = Counter(folders.split(file.name) for file in labelled)
    parts = "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])
    sample = [Path(file.path).read_text("utf-8", "replace") for file in labelled[:_FEWEST_A_FOLDER]]
    says = f"{shown(path)}: {len(labelled):,} texts in class folders{parts}, {len(counts)} labels ({shares(counts)})"
    return _look(path, says, {"kind": "text", "path": str(path)}, *_model(given["train"] or len(labelled), sample))


def _are_reviews(texts: Sequence[InputFile], counts: Counter[str]) -> bool:
    mean = sum(file.size for file in texts) / len(texts)
    return min(counts.values()) >= _FEWEST_A_FOLDER and mean <= TextData.model_fields["max_row_bytes"].default / 8


def _model(total: int, sample: Sequence[str], *, pairs: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """The model, with the pieces that it takes, and why."""
    if pairs:
        return {"model": "bert-small"}, {"model": "of two texts what they have to do with each other counts: attention"}
    if total >= ROWS_FOR_ATTENTION:
        return {"model": "bert-small"}, {
            "model": f"by the number of texts, {total:,}; ngrams under {ROWS_FOR_ATTENTION:,}"
        }
    name = "ngrams-short" if _says_much_in_few(sample) else "ngrams"
    why = f"{total:,} texts: from scratch a bag of n-grams learns more of so few than attention does, in seconds"
    return {"model": name, "pieces": "characters"}, {"model": why, "data.pieces": "what its runs are made of"}


def _says_much_in_few(sample: Sequence[str]) -> bool:
    """Whether most letters are of scripts whose characters are words or syllables, as Chinese, Japanese and Korean."""
    letters = [each for text in sample for each in text if each.isalpha()]
    return 2 * sum(each >= _FIRST_OF_EAST_ASIA for each in letters) > len(letters)
