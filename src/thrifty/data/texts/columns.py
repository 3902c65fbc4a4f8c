"""Which columns of a table are texts and labels: as the job says, by their names, else by what stands in them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from thrifty.data.cells import Cells, read_cells
from thrifty.errors import DataError, nearest
from thrifty.spec import TextData

# names that columns of texts and labels have in published data sets, the likelier first
TEXT_NAMES = (
    *("text", "sentence", "text_a", "sentence1", "review", "content", "comment", "tweet", "message", "question"),
    *("premise", "question1"),
    *("query", "utterance", "document", "body", "title"),
)
LABEL_NAMES = (
    *("label", "class", "category", "target", "sentiment", "polarity", "intent", "topic", "rating", "stars"),
    "labels",
)
# and of several labels; documents of a corpus may have such columns too
SEVERAL_NAMES = ("tags", "genres", "emotions", "topics", "categories")
# what the second text of a pair is called where the first has such a name
SECOND_NAMES = {
    "text": "text_b", "text_a": "text_b", "sentence1": "sentence2", "question1": "question2", "premise": "hypothesis",
}  # fmt: skip
SAMPLED_ROWS = 1000
# fewer rows tell neither a header that names no known column, nor a label by its values
_ROWS_TO_TELL = 20
# half of the cells of a column of texts have at least so many characters; Chinese says much in few
_SHORTEST_TEXT = 6
_SPLIT_BY = {".tsv": "tabs", ".csv": "commas"}
_SHOWN = 60


@dataclass(frozen=True)
class Columns:
    """Where text and label stand in each row.

    Attributes:
        text, label: names in the header or keys of an object; numbers from 0 where there is no header. No label where
            none is wanted and none is named.
        text_b: of the second text of a pair; None where there is one alone.
        header: whether the first row names the columns.
        says: what was chosen and by what, a sentence.
        key: of groups or moments; None where each text is dealt by itself.
    """

    text: str | int
    label: str | int | None
    header: bool
    says: str
    text_b: str | int | None = None
    key: str | int | None = None


def find_columns(data: TextData, name: str, stream: BinaryIO) -> Columns:
    """Find the columns of text and label: as the job says, by their names, else by what stands in them.

    Where words are hidden a label is taken that is named, and none is guessed. Without names the text is the column
    with the longest cells, the label the one with the fewest different values.

    Args:
        data: section ``data`` of the job.
        name: of a file, whose suffix tells its form.
        stream: its content; the first thousand rows are looked at.

    Raises:
        DataError: there are no rows, a column is not there, or several could be meant.
    """
    sample = sampled_rows(data, name, stream)
    if not sample:
        raise DataError(f"'{name}' has no row that can be read", mend="A row holds a text and its label, in UTF-8.")
    if isinstance(sample[0], dict):
        return _of_objects(data, name, [each for each in sample if isinstance(each, dict)])
    return _of_rows(data, name, [each for each in sample if isinstance(each, list)])


def sampled_rows(data: TextData, name: str, stream: BinaryIO) -> list[Cells]:
    """The first rows that can be read; the file is turned back to its beginning."""
    rows = read_cells(name, stream, data.max_row_bytes, data.encoding)
    usable = (cells for _, cells in rows if not isinstance(cells, tuple))
    sample = list(itertools.islice(usable, SAMPLED_ROWS))
    stream.seek(0)
    return sample


def sample_labels(data: TextData, name: str, stream: BinaryIO, columns: Columns) -> list[Any]:
    """Return the cells of labels in the first thousand rows of a file, as they stand there."""
    sample = sampled_rows(data, name, stream)
    assert columns.label is not None
    if not columns.header:
        return [cell_at(cells, columns.label) for cells in sample]
    place = place_of(columns.label, [str(cell) for cell in sample[0]], name)
    return [cell_at(cells, place) for cells in sample[1:]]


def cell_at(cells: Cells, at: str | int) -> Any:
    if isinstance(cells, dict):
        return cells.get(str(at))
    assert isinstance(at, int)
    return cells[at] if at < len(cells) else None


def _of_objects(data: TextData, name: str, sample: Sequence[dict[str, Any]]) -> Columns:
    keys = list(dict.fromkeys(key for each in sample for key in each))
    for column, asked in (("text", data.text), ("text_b", data.text_b), ("label", data.label)):
        if isinstance(asked, int):
            raise DataError(
                f"data.{column} is {asked}, and the rows of '{name}' are objects, whose columns have no numbers",
                mend=f"Name a key: {', '.join(keys)[:200]}.",
            )
    if data.header:
        raise DataError(
            f"data.header is true, and the rows of '{name}' are objects, which name their own columns",
            mend="Leave it out.",
        )
    body = [[each.get(key) for key in keys] for each in sample]
    text, label, how = _choose(data, name, keys, body)
    second = _second(data, name, keys, len(keys), text, label)
    key = _asked(data.split.together, _BELONGING, keys, len(keys), name)
    says = _said(keys, text, label, how, second, key)
    titles = [None if at is None else keys[at] for at in (label, second, key)]
    return Columns(keys[text], titles[0], False, says, *titles[1:])


def _of_rows(data: TextData, name: str, sample: list[list[str]]) -> Columns:
    asked = (data.text, data.text_b, data.label, data.split.together)
    named = [each for each in asked if isinstance(each, str)]
    header = bool(named) if data.header is None else data.header
    if named and not header:
        raise DataError(f"'{named[0]}' names a column, and data.header says that none has a name", mend=_BY_NUMBER)
    width = commonest_width(sample)
    if width < 2 and not header and data.task != "mask":
        raise _one_column(name, sample)
    if data.header is None and not named:
        header = _looks_like_header(data, sample[0], [each for each in sample[1:] if len(each) == width])
    if header and len(sample) == 1:
        raise _no_rows(name)
    names = [cell.strip() for cell in sample[0]] if header else []
    body = [each for each in sample[header:] if len(each) == (len(names) or width)]
    text, label, how = _choose(data, name, names, body)
    second = _second(data, name, names, len(names) or width, text, label)
    key = _asked(data.split.together, _BELONGING, names, len(names) or width, name)
    if header:
        for at in (text, label):
            if at is not None and names.count(names[at]) > 1:
                raise DataError(f"the header of '{name}' names column '{names[at]}' twice", mend="Rename one of them.")
        says = _said(names, text, label, how, second, key)
        titles = [None if at is None else names[at] for at in (label, second, key)]
        return Columns(names[text], titles[0], True, says, *titles[1:])
    beside = "" if second is None else f", paired with column {second + 1}"
    told = "no label" if label is None else f"label column {label + 1}"
    says = f"text is column {text + 1}{beside}, {told}: {how}"
    return Columns(text, label, False, says, second, key)


_BELONGING = "split: its group or time"
_BY_NUMBER = "Give the number of the column, from 1, or set data.header: true."


def commonest_width(sample: Sequence[Cells]) -> int:
    counts = Counter(len(each) for each in sample)
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _one_column(name: str, sample: list[list[str]]) -> DataError:
    suffix = PurePosixPath(name).suffix.lower()
    line = sample[0][0]
    other = next((mark for mark, sign in (("tabs", "\t"), ("commas", ","), ("semicolons", ";")) if sign in line), "")
    looks = f"; its first row '{line[:_SHOWN]}' looks split by {other}" if other else ""
    return DataError(
        f"the rows of '{name}' have one column, and a text and its label are two{looks}",
        mend=f"A {suffix} file is split by {_SPLIT_BY.get(suffix, 'tabs')}; rename the file or write it anew.",
    )


def _no_rows(name: str) -> DataError:
    return DataError(f"'{name}' has no rows beside its header", mend="A row holds a text and its label.")


def _looks_like_header(data: TextData, cells: list[str], body: list[list[str]]) -> bool:
    """Whether the first row names columns: by known names, or because its label is one that no other row has."""
    first = [cell.strip().lower() for cell in cells]
    if data.task == "mask" and any(name in first for name in TEXT_NAMES):
        return True
    if any(name in first for name in TEXT_NAMES) and any(name in first for name in (*LABEL_NAMES, *SEVERAL_NAMES)):
        return True
    if len(body) < _ROWS_TO_TELL or len(cells) != len(body[0]):
        return False
    label = _by_content(body)[1]
    counts = Counter(each[label].strip() for each in body)
    return cells[label].strip() not in counts and min(counts.values()) > 1


def _choose(
    data: TextData, name: str, names: Sequence[str], body: Sequence[Sequence[Any]]
) -> tuple[int, int | None, str]:
    """Choose the places of text and label, and say by what."""
    width = len(names) or max(map(len, body), default=0)
    text = _asked(data.text, "text", names, width, name)
    label = _asked(data.label, "label", names, width, name)
    if text is not None and label is not None:
        return text, label, "as the job says"
    how = "by the header"
    known = [str(each).lower() for each in names]
    if text is None:
        text = next((known.index(each) for each in TEXT_NAMES if each in known and known.index(each) != label), None)
    if label is None:
        named = (each for each in (*LABEL_NAMES, *SEVERAL_NAMES) if each in known and known.index(each) != text)
        label = next((known.index(each) for each in named), None)
    if data.task == "mask" and label is None:
        if text is None:
            if not body:
                raise _no_rows(name)
            text, how = _by_content(body)[0], "the longest cells"
            _check_is_text(name, [str(each[text]) for each in body])
        return text, None, how
    if text is None or label is None:
        if not body:
            raise _no_rows(name)
        by_content = _by_content(body, text, label)
        if text is None:
            _check_is_text(name, [str(each[by_content[0]]) for each in body])
        _check_told_apart(name, names, body, *by_content, told=label is not None)
        text, label = by_content
        how = "the longest cells, and the fewest different values"
    return text, label, how


def _asked(asked: str | int | None, column: str, names: Sequence[str], width: int, name: str) -> int | None:
    if asked is None:
        return None
    if isinstance(asked, str):
        return place_of(asked, names, name)
    if asked > width:
        raise DataError(f"data.{column} is column {asked}, and '{name}' has {width}", mend="Columns count from 1.")
    return asked - 1


def place_of(column: str | int, header: Sequence[str], name: str) -> int:
    names = [cell.strip() for cell in header]
    if column not in names:
        raise DataError(
            f"'{name}' has no column '{column}'",
            nearest=nearest(str(column), names),
            mend=f"Its columns: {', '.join(names)[:200]}.",
        )
    return names.index(str(column))


def _by_content(body: Sequence[Sequence[Any]], text: int | None = None, label: int | None = None) -> tuple[int, int]:
    """The place of the longest cells, and of the fewest different values of those that have several."""
    columns = [[str(cell).strip() for cell in column] for column in zip(*body, strict=True)]
    if text is None:
        text = max((at for at in range(len(columns)) if at != label), key=lambda at: sum(map(len, columns[at])))
    if label is None:
        others = [at for at in range(len(columns)) if at != text]
        kinds = {at: len(set(columns[at])) for at in others}
        label = min(others, key=lambda at: (kinds[at] < 2, kinds[at], at), default=text)
    return text, label


def _check_is_text(name: str, cells: Sequence[str]) -> None:
    """Refuse to take for texts what are names, codes or numbers: texts have some length, and are seldom the same."""
    wordy = sum(len(each) >= _SHORTEST_TEXT and any(map(str.isalpha, each)) for each in cells)
    if len(cells) >= _ROWS_TO_TELL and (wordy < len(cells) / 2 or len(set(cells)) < len(cells) / 2):
        raise DataError(f"no column of '{name}' looks like texts", mend="If one is, name it: data.text.")


def _check_told_apart(
    name: str, names: Sequence[str], body: Sequence[Sequence[Any]], text: int, label: int, *, told: bool
) -> None:
    """Refuse to guess a label where another column would do as well, or where most rows have one of their own."""
    kinds = [len({str(cell).strip() for cell in column}) for column in zip(*body, strict=True)]
    rivals = [at for at, each in enumerate(kinds) if at not in {text, label} and each == kinds[label]]
    if told or (label != text and not rivals and (kinds[label] <= len(body) / 2 or len(body) < _ROWS_TO_TELL)):
        return
    shown = [names[at] if names else str(at + 1) for at in range(len(kinds))]
    counts = ", ".join(f"{each} ({kinds[at]:,} different values)" for at, each in enumerate(shown))
    raise DataError(
        f"it cannot be told which column of '{name}' is the label: {counts[:300]}", mend="Name it: data.label."
    )


def _second(data: TextData, name: str, names: Sequence[str], width: int, text: int, label: int | None) -> int | None:
    """The place of the second text of a pair: as the job says, or as its name says beside the first one's."""
    if data.text_b is not None:
        return _asked(data.text_b, "text_b", names, width, name)
    known = [str(each).lower() for each in names]
    second = SECOND_NAMES.get(known[text], "") if known else ""
    return known.index(second) if second in known and known.index(second) != label else None


def _said(names: Sequence[str], text: int, label: int | None, how: str, second: int | None, key: int | None) -> str:
    unused = [each for at, each in enumerate(names) if at not in {text, label, second, key}]
    beside = f"; not used: {', '.join(unused)[:200]}" if unused else ""
    paired = "" if second is None else f", paired with '{names[second]}'"
    told = "no label" if label is None else f"label column '{names[label]}'"
    return f"text is column '{names[text]}'{paired}, {told}: {how}{beside}"
