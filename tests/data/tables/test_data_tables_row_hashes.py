"""Hashes of cells and rows tell what differs, alike on every machine."""

from __future__ import annotations

import hashlib

import polars as pl

from thrifty.data.tables.row_hashes import hash_rows, hash_texts

TEXTS = ["", "a", "b", "ab", "a" * 7, "a" * 8, "a" * 9, "a\0", "\u4e2d", "a" * 255, "a" * 256, "a" * 257, "a" * 258]


def mix(number: int) -> int:
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


def by_hand(text: bytes) -> int:
    if len(text) > 256:
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    found = mix((len(text) + 0x9E3779B97F4A7C15) % 2**64)
    for start in range(0, len(text), 8):
        word = int.from_bytes(text[start : start + 8], "little")
        found = mix(((found ^ word) + 0x9E3779B97F4A7C15) % 2**64)
    return found


def test_texts_that_differ_have_other_hashes() -> None:
    found = hash_texts(pl.Series(TEXTS)).tolist()
    assert len(set(found)) == len(TEXTS)
    # whatever stands before or behind
    assert hash_texts(pl.Series(TEXTS[::-1])).tolist() == found[::-1]
    assert found == [by_hand(text.encode()) for text in TEXTS]


def test_rows_are_told_by_every_cell_and_its_place() -> None:
    rows = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("a", "b")]
    columns = [hash_texts(pl.Series(each)) for each in zip(*rows, strict=True)]
    found = hash_rows(columns).tolist()
    assert len(set(found)) == 4
    assert found[0] == found[-1]
