"""Splits of samples that belong together: whole groups, such as all rows of a patient, or by time."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from thrifty.data.split import HELD_OUT, rank, split_by_bytes
from thrifty.errors import DataError
from thrifty.spec import Split


def split_together(
    keys: Mapping[str, str], split: Split, *, seed: int, held_out: Sequence[str] = HELD_OUT
) -> dict[str, str]:
    """Deal samples so that those of one group, or of one moment, stand in one split.

    Groups go whole to the split that they bring nearer to its share, in an order that the seed decides. By time the
    latest moments are tested on, those before them validate, and the earliest are trained on; a moment that a border
    falls into goes to the later side.

    Args:
        keys: of each sample its group, or its moment as `moment_of` reads it.
        split: which of the two, and the shares held out.
        seed: of the order of groups.
        held_out: the splits to deal to beside training.

    Returns:
        The split of each sample.

    Raises:
        DataError: there are fewer groups or moments than splits.

    >>> dealt = split_together({f"{day}{n}": f"2024-01-0{day}" for day in range(1, 6) for n in "ab"},
    ...                        Split(time="day", validation=0.2, test=0.2), seed=0)
    >>> [dealt[f"{day}a"] for day in range(1, 6)]
    ['train', 'train', 'train', 'validation', 'test']
    """
    sizes = Counter(keys.values())
    if len(sizes) <= len(held_out):
        what, column = ("groups", split.group) if split.group is not None else ("moments", split.time)
        raise DataError(
            f"column {column!r} has {len(sizes)} {what}, and each of {len(held_out) + 1} splits needs one",
            mend="Name another column in data.split, or leave it out to deal each sample by itself.",
        )
    if split.group is not None:
        ranks = {key: rank(seed, "", key) for key in sizes}
        dealt = split_by_bytes(ranks, sizes, split, held_out)
    else:
        dealt = _by_time(sizes, split, held_out)
    return {name: dealt[key] for name, key in keys.items()}


def _by_time(sizes: Mapping[str, int], split: Split, held_out: Sequence[str]) -> dict[str, str]:
    total = sum(sizes.values())
    later = sorted(sizes, key=lambda key: (-moment_of(key), key))
    dealt: dict[str, str] = {}
    for place, part in enumerate(held_out):
        filled, still = 0, len(held_out) - place
        while len(later) > still and (not filled or filled < getattr(split, part) * total):
            key = later.pop(0)
            dealt[key] = part
            filled += sizes[key]
    return dealt | dict.fromkeys(later, "train")


def no_key(text: str, *, by_time: bool) -> str:
    """Say why a cell tells no group, or no moment; an empty string where it does.

    >>> no_key("ann", by_time=False), no_key("ann", by_time=True), no_key("2024-02-01", by_time=True)
    ('', 'no moment', '')
    """
    if by_time:
        return "no moment" if math.isnan(moment_of(text)) else ""
    return "" if text else "no group"


def moment_of(text: str) -> float:
    """Return the seconds, or the plain number, that a moment is; NaN where it is neither a number nor an ISO 8601 date.

    >>> moment_of("2024"), moment_of("1970-01-02"), moment_of("1970-01-01T00:00:30Z"), moment_of("soon")
    (2024.0, 86400.0, 30.0, nan)
    """
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return number if math.isfinite(number) else math.nan
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
