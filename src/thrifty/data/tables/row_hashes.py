"""Hashes of texts and of rows of them: the same on every machine, of many at once.

Shapes: N rows, V texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

WORD = 8
# longer texts are few, and hashed one by one
_MOST_BYTES = 32 * WORD
# odd constants of SplitMix64 (Steele et al. 2014)
MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(WORD + 1)], np.uint64)


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits of numbers, one to one (SplitMix64's last step)."""
    found = numbers >> np.uint64(30)
    found ^= numbers
    found *= np.uint64(MIX[1])
    found ^= found >> np.uint64(27)
    found *= np.uint64(MIX[2])
    found ^= found >> np.uint64(31)
    return found


def hash_texts(texts: pl.Series) -> NDArray[np.uint64]:
    """Hash texts, None as an empty one: uint64 [V]; the bytes of each, eight at once, are mixed into its length.

    >>> import polars as pl
    >>> found = hash_texts(pl.Series(["cook", "clerk", "cook", ""]))
    >>> found[0] == found[2], len(set(found.tolist()))
    (np.True_, 3)
    """
    texts = texts.fill_null("") if texts.null_count() else texts
    joined = texts.str.join("").item().encode() + bytes(WORD)
    # a word begins at every byte
    words = np.ndarray((len(joined) - WORD + 1,), "<u8", joined, strides=(1,))
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    found = mixed(lengths.astype(np.uint64) + np.uint64(MIX[0]))
    long = np.flatnonzero(lengths > _MOST_BYTES)
    left = np.where(lengths > _MOST_BYTES, 0, lengths)
    rows = np.flatnonzero(left)
    while len(rows):
        word = words[starts[rows]].astype(np.uint64) & _MASKS[np.minimum(left[rows], WORD)]
        found[rows] = mixed((found[rows] ^ word) + np.uint64(MIX[0]))
        starts[rows] += WORD
        left[rows] -= WORD
        rows = rows[left[rows] > 0]
    for row in long.tolist():
        text = joined[starts[row] : starts[row] + lengths[row]]
        found[row] = int.from_bytes(hashlib.blake2b(text, digest_size=WORD).digest(), "little")
    return found


def hash_rows(columns: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Hash rows by the hashes of their cells, column after column: uint64 [N]."""
    found: NDArray[np.uint64] | None = None
    for hashes in columns:
        found = mixed(hashes) if found is None else mixed(found * np.uint64(MIX[0]) + hashes)
    assert found is not None
    return found
