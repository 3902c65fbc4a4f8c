"""Several labels of one text: how a cell holds them, how that is recognised, and by which of them texts are dealt.

A cell is a list, the text of a JSON list, or names split by a separator. A text may have no label at all.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# looked for in this order: a comma stands within names too
SEPARATORS = ("|", ";", ",")
# each is a number of a store's rows and of a model's last layer
MOST_LABELS = 4096


def split_cell(cell: Any, separator: str | None) -> list[Any] | None:
    """Return the labels of a cell as they stand there; None where it begins as a JSON list and is none.

    >>> split_cell("war | sea|", "|"), split_cell('["war", "sea"]', None), split_cell("war", None), split_cell("", None)
    (['war', 'sea'], ['war', 'sea'], ['war'], [])
    """
    if isinstance(cell, list):
        return cell
    if not isinstance(cell, str):
        return [] if cell is None else [cell]
    if separator is not None:
        return [part.strip() for part in cell.split(separator) if part.strip()]
    text = cell.strip()
    return _list_of(text) if text.startswith("[") else [text] if text else []


def recognise(cells: Sequence[Any]) -> tuple[str | None, str] | None:
    """Tell whether cells hold several labels: their separator, None for lists, and why; None where they hold one.

    A separator is one that most cells hold, and whose parts are fewer than the different cells.

    >>> recognise(["war|sea", "sea|love", "war|love", "war|sea|love"])
    ('|', "4 of 4 cells hold '|', between 3 different labels")
    >>> recognise(["world", "sports, tennis"])
    """
    filled = [cell for cell in cells if cell not in (None, "", [])]
    lists = sum(isinstance(cell, list) or _list_of(str(cell)) is not None for cell in filled)
    if lists > len(filled) / 2:
        return None, f"{lists:,} of {len(filled):,} cells are lists"
    texts = [str(cell) for cell in filled]
    for separator in SEPARATORS:
        holding = sum(separator in text for text in texts)
        parts = {part.strip() for text in texts for part in text.split(separator)} - {""}
        if holding > len(texts) / 2 and len(parts) < len(set(texts)):
            says = f"{holding:,} of {len(texts):,} cells hold '{separator}', between {len(parts):,} different labels"
            return separator, says
    return None


def tell_apart(cells: Sequence[Any]) -> bool:
    """Say whether cells hold several labels that come again, as what is learned does and keywords do not.

    >>> tell_apart([["war"], ["sea", "war"], ["sea"], ["war"]]), tell_apart([["Napoleon", "Elba"], ["whale"]])
    (True, False)
    """
    found = recognise(cells)
    if found is None:
        return False
    parts = {str(part) for cell in cells for part in split_cell(cell, found[0]) or []}
    return 2 * len(parts) <= len(cells)


def dealt_by(labels: Mapping[int, Sequence[str]], fewest: int) -> dict[int, str]:
    """Say what each text is dealt by: the rarest of its labels, so that rare ones reach each split where they can.

    Texts without a label, and those of a label by which under ``fewest`` would be dealt, are dealt together, by "".

    >>> dealt_by({0: ["sea", "war"], 1: ["sea"], 2: ["sea"], 3: []}, 2)
    {0: '', 1: 'sea', 2: 'sea', 3: ''}
    """
    counts = Counter(itertools.chain.from_iterable(labels.values()))
    rarest = {place: min(own, key=lambda label: (counts[label], label), default="") for place, own in labels.items()}
    texts = Counter(rarest.values())
    return {place: label if texts[label] >= fewest else "" for place, label in rarest.items()}


def _list_of(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None
