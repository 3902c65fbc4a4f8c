"""How well each of several labels was told on the test split, the best told first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from thrifty.report.rows import UNKNOWN, share_text


class ToldRow(NamedTuple):
    """One label: how often it stood under a text and was said, and what of that was right.

    Attributes:
        label: its name.
        f1: ``2 h / (s + w)`` of h said rightly, s said and w wanted, as a number to three digits.
        found: share of the wanted that was said (recall).
        right: share of the said that was wanted (precision).
        wanted, said: samples.
    """

    label: str
    f1: str
    found: str
    right: str
    wanted: str
    said: str


def told_rows(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[ToldRow]:
    """Return a row for each label, the best told first.

    Args:
        labels: by number.
        counts: of each label how often it was said rightly, said, and wanted.

    >>> told_rows(["cat"], [(3, 4, 6)])
    [ToldRow(label='cat', f1='0.600', found='50 %', right='75 %', wanted='6', said='4')]
    """
    rows = []
    for label, (hit, said, wanted) in zip(labels, counts, strict=True):
        f1 = 2 * hit / (said + wanted) if said + wanted else -1.0
        row = ToldRow(
            label,
            f"{f1:.3f}" if f1 >= 0 else UNKNOWN,
            part_text(hit, wanted),
            part_text(hit, said),
            f"{wanted:,}",
            f"{said:,}",
        )
        rows.append((f1, row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def part_text(part: int, whole: int) -> str:
    """Print a part of what was counted; unknown where nothing was.

    >>> part_text(3, 4), part_text(0, 4), part_text(0, 0)
    ('75 %', '0 %', '–')
    """
    if not whole:
        return UNKNOWN
    return share_text(part / whole) if part else "0 %"
