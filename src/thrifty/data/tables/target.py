"""Which column of a table is to be told, and whether as a label or as a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thrifty.data.tables.columns import Tally, tell
from thrifty.data.tables.layout import is_number
from thrifty.errors import DataError, nearest
from thrifty.spec.data import TableData

# what published tables call the column to be told, the likelier first
TARGET_NAMES = ("target", "label", "class", "y", "outcome", "response", "labels", "category")
# words in the names of columns that people want told, the likelier first
TARGET_WORDS = (
    *("target", "label", "price", "value", "churn", "survived", "diagnosis", "fraud", "default", "quality"),
    *("salary", "income", "revenue", "sales", "cost", "score", "rating", "outcome"),
)
# whole numbers of no more values than these are labels
MOST_NUMBER_LABELS = 20
MOST_LABELS = 1000


@dataclass(frozen=True)
class Target:
    """What is told.

    Attributes:
        name: of the column.
        task: ``classify`` or ``regress``.
        says: what was chosen and by what, a sentence.
    """

    name: str
    task: Literal["classify", "regress"]
    says: str


def column_named(asked: str | int, names: Sequence[str], key: str) -> str:
    """Return the column that a job names, or gives the number of, under a key.

    Raises:
        DataError: there is no such column.
    """
    if isinstance(asked, int):
        if asked > len(names):
            raise DataError(f"{key} is column {asked}, and there are {len(names)}", mend="Columns count from 1.")
        return names[asked - 1]
    if asked not in names:
        shown = ", ".join(names)[:200]
        raise DataError(f"there is no column '{asked}'", nearest=nearest(asked, names), mend=f"There are: {shown}.")
    return asked


def name_target(data: TableData, names: Sequence[str]) -> tuple[str, str]:
    """Name the column to tell, and by what it was found: as the job says, by its name, by a word in it, else the last.

    Raises:
        DataError: there is no such column.
    """
    if data.target is not None:
        return column_named(data.target, names, "data.target"), "as the job says"
    lowered = {name.lower(): name for name in names}
    for known in TARGET_NAMES:
        if known in lowered:
            return lowered[known], "by its name"
    for word in TARGET_WORDS:
        holding = [name for name in names if word in re.split(r"[^a-z]+", _spaced(name).lower())]
        if len(holding) == 1:
            return holding[0], f"its name holds '{word}', and that of no other column does"
    return names[-1], "the last column, since no name says more"


def find_target(data: TableData, names: Sequence[str], tallies: Mapping[str, Tally]) -> Target:
    """Find the column to tell, as `name_target`, and whether it is told as a label or as a number.

    Args:
        data: section ``data`` of the job.
        names: of the columns, in order.
        tallies: what their cells were.

    Raises:
        DataError: there is no such column, or what it holds cannot be told.
    """
    name, how = name_target(data, names)
    tally = tallies[name]
    if not tally.filled:
        raise DataError(f"column '{name}' is empty, and was to be told", mend=_NAME_IT)
    task, why = (data.task, "as the job says") if data.task else _task_of(name, tally)
    if task == "classify" and (tally.crowded or len(tally.values) > MOST_LABELS):
        shown = ", ".join(list(tally.values)[:3])
        raise DataError(
            f"column '{name}' has over {MOST_LABELS:,} labels, such as {shown}",
            mend=f"{_NAME_IT} Or set task: regress.",
        )
    if task == "regress" and tally.numbers < tally.filled / 2:
        shown = ", ".join(list(tally.values)[:3])
        raise DataError(
            f"column '{name}' is to be told as a number, and holds {shown}", mend=f"{_NAME_IT} Or set task: classify."
        )
    what = "a label" if task == "classify" else "a number"
    return Target(name, task, f"column '{name}' is told, as {what}: {'; '.join(dict.fromkeys((how, why)))}")


_NAME_IT = "Name the column to be told: data.target."


def _spaced(name: str) -> str:
    """Cut ``SalePrice`` into words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _task_of(name: str, tally: Tally) -> tuple[Literal["classify", "regress"], str]:
    found = tell(name, tally)
    if found.kind == "number" and _is_measured(tally):
        return "regress", "its cells are numbers"
    if found.kind == "date":
        raise DataError(f"column '{name}' holds dates, which are not told", mend=_NAME_IT)
    if found.kind != "number" and tally.numbers >= tally.filled / 2 and _is_measured(tally):
        odd = [value for value in tally.values if not is_number(value)]
        raise DataError(
            f"column '{name}' holds {tally.numbers:,} numbers and {tally.filled - tally.numbers:,} other cells, such "
            f"as {', '.join(odd[:3])}: it cannot be told whether it is an amount",
            mend="Set task: regress, which puts rows of other cells aside, or task: classify.",
        )
    if len(tally.values) < 2:
        (only,) = tally.values
        raise DataError(f"column '{name}' has one label only, '{only[:50]}': there is nothing to tell", mend=_NAME_IT)
    return "classify", "its cells are few values" if found.kind == "number" else "its cells are no numbers"


def _is_measured(tally: Tally) -> bool:
    """Whether numbers are amounts: they have fractions, or many values."""
    numbers = [value for value in tally.values if is_number(value)]
    whole = all(re.fullmatch(r"[+-]?\d+(\.0*)?", value) for value in numbers)
    return tally.crowded or not whole or len(numbers) > MOST_NUMBER_LABELS
