"""The labels of texts: which are learned, and what texts are dealt to splits by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from thrifty.data.inputs import Reject, count_reasons
from thrifty.data.labels import in_order
from thrifty.data.texts.row import Row
from thrifty.data.texts.tags import MOST_LABELS, dealt_by
from thrifty.errors import DataError
from thrifty.spec import TextData

ONLY_HELD_OUT = "label not in the training split"


class Sample(NamedTuple):
    """A row with its place: the split its file says, or training where no file does; its rank in the seeded order."""

    row: Row
    split: str
    rank: bytes
    order: int


def strata_of(data: TextData, kept: Iterable[Sample], missing: Sequence[str]) -> dict[int, str]:
    """What each row of training is dealt by: its label, or of several the rarest that reaches each split."""
    rows = {sample.order: sample.row for sample in kept if sample.split == "train"}
    if data.task == "tag":
        return dealt_by({order: row.labels for order, row in rows.items()}, len(missing) + 1)
    return {order: row.label for order, row in rows.items()}


def check_labels(
    data: TextData, kept: Sequence[Sample], splits: Mapping[int, str], rejects: Sequence[Reject]
) -> tuple[list[Sample], tuple[str, ...], list[Reject], list[str]]:
    """The labels of the training split, in order; rows with another one are rejects."""
    labels = in_order({sample.row.label for sample in kept if splits[sample.order] == "train"})
    if data.task == "mask":
        return list(kept), labels, [], []
    _check_several(data, labels, rejects)
    known = set(labels)
    odd = [sample for sample in kept if sample.row.label not in known]
    rejects = [Reject(sample.row.name, ONLY_HELD_OUT, f": {sample.row.label[:50]}") for sample in odd]
    return [sample for sample in kept if sample.row.label in known], labels, rejects, []


def check_tags(
    data: TextData, kept: Sequence[Sample], splits: Mapping[int, str], rejects: Sequence[Reject]
) -> tuple[list[Sample], tuple[str, ...], list[Reject], list[str]]:
    """The labels of the training split, in order; others are taken off held-out rows, and rows of others alone are
    rejects. Notes say how many.
    """
    known = {label for sample in kept if splits[sample.order] == "train" for label in sample.row.labels}
    labels = in_order(known)
    _check_several(data, labels, rejects)
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"the rows of '{data.path}' have {len(labels):,} different labels, over the limit of {MOST_LABELS:,}",
            mend="Name the column of the labels (data.label) and what stands between them (data.label_separator).",
        )
    odd = [sample for sample in kept if sample.row.labels and known.isdisjoint(sample.row.labels)]
    rejects = [Reject(sample.row.name, ONLY_HELD_OUT, f": {sample.row.label[:50]}") for sample in odd]
    aside = {sample.order for sample in odd}
    left, off = [], Counter[str]()
    for sample in kept:
        if sample.order not in aside:
            off.update(label for label in sample.row.labels if label not in known)
            own = tuple(label for label in sample.row.labels if label in known)
            left.append(sample._replace(row=sample.row._replace(labels=own)))
    mean = sum(len(sample.row.labels) for sample in left) / len(left)
    none = sum(not sample.row.labels for sample in left)
    notes = [f"{mean:.2f} labels a text in the mean; {none:,} texts have none"]
    if off:
        named = ", ".join(f"{label[:50]} ({count:,})" for label, count in off.most_common(5))
        notes.append(f"{off.total():,} labels of held-out texts are not in the training split, and left out: {named}")
    return left, labels, rejects, notes


def _check_several(data: TextData, labels: Sequence[str], rejects: Iterable[Reject]) -> None:
    if len(labels) < 2:
        found = f"one label only, '{labels[0]}'" if labels else "no labels"
        aside = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(rejects).items())
        beside = f"; put aside: {aside}" if aside else ""
        raise DataError(
            f"the training rows of '{data.path}' have {found}: there is nothing to tell apart{beside}",
            mend="Name the column of the labels: data.label. Lists of labels are for task: tag.",
        )
