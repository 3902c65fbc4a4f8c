"""Texts that are nearly the same: by the share of pieces that two have in common, estimated from short sketches.

A text is the set of its shingles, runs of 16 bytes of its lower-case form with single spaces. Two texts are near where
|A and B| / |A or B| (Jaccard) is about 0.8 or more. Each shingle is hashed; of 64 bins of the hash's upper bits a
sketch keeps the least value: the share of equal bins estimates the Jaccard index (Broder 1997; one permutation: Li,
Owen, Zhang 2012; a bin without a shingle takes the next one's: Shrivastava and Li 2014). Candidates share four bins in
a row (Indyk and Motwani 1998): of pairs at 0.8 all but 2 in 10,000 do.

Shapes: N texts, K bins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

BINS = 64
NEAR = 0.8
SHINGLE_BYTES = 16
# a text of fewer shingles is too short to tell a copy from what anybody would write
LEAST_SHINGLES = 64
_BAND = 4
_CHUNK_BYTES = 1 << 20
_EMPTY = np.uint32(0xFFFFFFFF)
# odd numbers without pattern: a base of the rolling hash, and the two of MurmurHash3's last mix
_BASE = 0x9E3779B97F4A7C15
_BIN_SHIFT = np.uint64(64 - BINS.bit_length() + 1)
_BINS_BEGIN = np.arange(BINS, dtype=np.uint64) << _BIN_SHIFT
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def sketch(chunks: Iterable[str]) -> np.ndarray | None:
    """Return the sketch of a text, uint32 [K]; None for one that is too short.

    >>> text = " ".join(map(str, range(500)))
    >>> float((sketch([text]) == sketch([text.replace("250", "two hundred")])).mean()) > 0.9
    True
    """
    least_K, count, tail = np.full(BINS, _EMPTY), 0, b""
    for raw in _blocks(chunks):
        block = tail + raw
        count += _take(block, least_K)
        tail = block[1 - SHINGLE_BYTES :]
    return _filled(least_K) if count >= LEAST_SHINGLES else None


def _blocks(chunks: Iterable[str]) -> Iterable[bytes]:
    """A text in lower case with single spaces, in blocks of some size."""
    for chunk in chunks:
        raw = b" ".join(chunk.lower().encode("utf-8", "replace").split())
        for begin in range(0, len(raw), _CHUNK_BYTES):
            yield raw[begin : begin + _CHUNK_BYTES]
        yield b" "


def _take(block: bytes, least_K: np.ndarray) -> int:
    """Put the shingles of a block into a sketch; return how many they are."""
    hashes = np.frombuffer(block, np.uint8).astype(np.uint64)
    step, base = 1, _BASE
    with np.errstate(over="ignore"):
        # a run of twice the length is two runs side by side
        while step < SHINGLE_BYTES and len(hashes) > step:
            hashes = hashes[:-step] * np.uint64(base) + hashes[step:]
            base, step = base * base & (1 << 64) - 1, 2 * step
        if step < SHINGLE_BYTES:
            return 0
        hashes ^= hashes >> np.uint64(33)
        hashes *= _MIX_1
        hashes ^= hashes >> np.uint64(33)
        hashes *= _MIX_2
    hashes.sort()
    # the upper bits say the bin, so the least of each bin is the first from where the bin begins
    firsts_K = np.searchsorted(hashes, _BINS_BEGIN)
    inside = np.minimum(firsts_K, len(hashes) - 1)
    least = hashes[inside]
    mine = (firsts_K < len(hashes)) & (least >> _BIN_SHIFT == np.arange(BINS, dtype=np.uint64))
    values = (least >> np.uint64(26)).astype(np.uint32)
    np.minimum(least_K, np.where(mine, values, _EMPTY), out=least_K)
    return len(hashes)


def _filled(least_K: np.ndarray) -> np.ndarray:
    """Give each bin without a shingle the value of the next that has one."""
    full = np.flatnonzero(least_K != _EMPTY)
    return least_K[full[np.searchsorted(full, np.arange(BINS)) % len(full)]]


def near_copies(sketches_NK: np.ndarray, order: Sequence[int], near: float = NEAR) -> dict[int, int]:
    """Find the texts that are nearly one that comes before them.

    Args:
        sketches_NK: of the texts.
        order: their numbers, the ones to keep first.
        near: the least share of equal bins.

    Returns:
        The number of the kept text that each of the others is nearly equal to.
    """
    groups = _groups(sketches_NK)
    kept: dict[int, list[int]] = defaultdict(list)
    copies: dict[int, int] = {}
    for number in order:
        mine = groups.get(number)
        if mine is None:
            continue
        candidates = sorted({other for group in mine for other in kept[group]})
        if candidates:
            share = (sketches_NK[candidates] == sketches_NK[number]).mean(1)
            best = int(share.argmax())
            if share[best] >= near:
                copies[number] = candidates[best]
                continue
        for group in mine:
            kept[group].append(number)
    return copies


def _groups(sketches_NK: np.ndarray) -> dict[int, list[int]]:
    """The groups that each text is in with another, by number: those with the same four bins at the same place."""
    found: dict[int, list[int]] = defaultdict(list)
    name = 0
    for band in range(0, BINS, _BAND):
        bins_NB = np.ascontiguousarray(sketches_NK[:, band : band + _BAND])
        _, inverse, counts = np.unique(bins_NB, axis=0, return_inverse=True, return_counts=True)
        inverse = inverse.reshape(-1)
        for number in np.flatnonzero(counts[inverse] > 1):
            found[int(number)].append(name + int(inverse[number]))
        name += len(counts)
    return found
