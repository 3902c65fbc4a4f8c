"""How texts lie packed: end to end in one row without padding, in groups of like length for attention.

Linear layers take the row as it is. Attention is over each text alone: for it the texts of a group are laid under each
other, and those of a group are padded to its longest alone. So are the documents of a language model's windows.

Shapes: N texts, T tokens of the row, L tokens of the longest of a group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thrifty.spec import LENGTH_MULTIPLE

# Rows have one of so many sizes between a power of two and the next: libraries compile for each, and to fill a row up
# to the next costs 1.5 % of its tokens in the mean.
SIZES = 32
# more groups pad less and call more kernels
MOST_GROUPS, LEAST_TEXTS = 4, 4


def row_size(tokens: int) -> int:
    """Return the tokens of the row that so many fill: up to a thirty-second more.

    >>> row_size(97), row_size(800), row_size(801), row_size(20_000)
    (104, 800, 816, 20480)
    """
    step = max(LENGTH_MULTIPLE, (1 << tokens.bit_length() - 1) // SIZES)
    return -(-tokens // step) * step


def filler(tokens: int, longest: int) -> list[int]:
    """Return the lengths of texts that count for nothing and fill the row up, none longer than the longest.

    >>> filler(800, 20), filler(801, 20), filler(801, 10)
    ([], [15], [10, 5])
    """
    left = row_size(tokens) - tokens
    return [longest] * (left // longest) + [left % longest] * (left % longest > 0)


def groups_of(lengths_N: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield where each group of texts begins and ends, and the length it is padded to; the texts are sorted by length.

    >>> list(groups_of(np.array([3, 3, 4, 5, 9, 9, 10, 30])))
    [(0, 4, 8), (4, 8, 32)]
    """
    count = max(1, min(MOST_GROUPS, len(lengths_N) // LEAST_TEXTS))
    for numbers in np.array_split(np.arange(len(lengths_N)), count):
        longest = int(lengths_N[numbers[-1]])
        yield int(numbers[0]), int(numbers[-1]) + 1, -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def places_of(lengths_N: np.ndarray) -> dict[str, np.ndarray]:
    """Return the places in the row of each group's tokens, int64 [texts, L]: ``places0`` and so on; T where is none.

    Args:
        lengths_N: of the texts that lie end to end, filler included.
    """
    begins_N, tokens = np.cumsum(lengths_N) - lengths_N, int(lengths_N.sum())
    order_N = np.argsort(lengths_N, kind="stable")
    begins_N, lengths_N = begins_N[order_N], lengths_N[order_N]
    places = {}
    for index, (begin, end, longest) in enumerate(groups_of(lengths_N)):
        place_L = np.arange(longest)
        real_NL = place_L < lengths_N[begin:end, None]
        places[f"places{index}"] = np.where(real_NL, begins_N[begin:end, None] + place_L, tokens).astype(np.int64)
    return places


def pack(lengths_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that texts lie in, and their lengths in it: both [N + fillers]; a filler has number N."""
    fill = filler(int(lengths_N.sum()), int(lengths_N.max()))
    whole = np.concatenate([lengths_N, np.array(fill, lengths_N.dtype)])
    order = np.argsort(whole, kind="stable")
    return np.minimum(order, len(lengths_N)), whole[order]
