"""Examples of what cleaning put aside: a few of each reason, with the detail that is told of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

EXAMPLES = 3
MOST_REASONS = 12


class Example(NamedTuple):
    """One reason: how many were rejected for it, and some of them, a place and a detail each."""

    reason: str
    rejected: int
    such: list[tuple[str, str]]


def examples(rejects: Sequence[Mapping[str, Any]], reasons: Mapping[str, int]) -> list[Example]:
    """Choose a few rejects of each reason, the commonest reason first; at most 12 reasons.

    Args:
        rejects: ``path`` and ``reason`` each; a reason's detail follows it.
        reasons: that are counted, and how often each was.

    >>> examples([{"path": "a.png", "reason": "truncated: no end"}], {"truncated": 1})
    [Example(reason='truncated', rejected=1, such=[('a.png', 'no end')])]
    """
    longest_first = sorted(reasons, key=len, reverse=True)
    found: dict[str, list[tuple[str, str]]] = {}
    counts: dict[str, int] = {}
    for each in rejects:
        said = str(each.get("reason", ""))
        reason = next((known for known in longest_first if said.startswith(known)), said)
        counts[reason] = counts.get(reason, 0) + 1
        such = found.setdefault(reason, [])
        if len(such) < EXAMPLES:
            such.append((str(each.get("path", "")), said[len(reason) :].lstrip(": ")))
    rows = [Example(reason, reasons.get(reason, counts[reason]), such) for reason, such in found.items()]
    return sorted(rows, key=lambda row: -row.rejected)[:MOST_REASONS]
