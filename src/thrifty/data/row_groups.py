"""Where the row groups of a Parquet file lie, and how large they are, out of its footer.

The form: Apache Parquet's `parquet.thrift`, written by the compact protocol of Apache Thrift.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thrifty.errors import DataError

_MARK, _TAIL_BYTES = b"PAR1", 8
# fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData
_GROUPS, _COLUMNS, _ROWS, _META, _PATH, _UNPACKED_BYTES = 4, 1, 3, 3, 3, 6
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that are packed together.

    Attributes:
        start: of its first row, counted from 0.
        rows: how many.
        column_bytes: of each column, once unpacked, by its outermost name.
    """

    start: int
    rows: int
    column_bytes: dict[str, int]


def row_groups(path: str, name: str) -> list[RowGroup]:
    """Return the row groups of a Parquet file, in its order.

    Args:
        path: of the file.
        name: of it, for errors.

    Raises:
        DataError: it is no Parquet file.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(size - _TAIL_BYTES, 0))
            tail = file.read()
            length = struct.unpack("<I", tail[:4])[0]
            if tail[4:] != _MARK or length + _TAIL_BYTES > size:
                raise ValueError("it has no footer")
            file.seek(size - _TAIL_BYTES - length)
            footer = _Compact(file.read(length)).struct()
        groups, start = [], 0
        for group in footer[_GROUPS]:
            column_bytes: dict[str, int] = {}
            for column in group[_COLUMNS]:
                outer = column[_META][_PATH][0].decode("utf-8")
                column_bytes[outer] = column_bytes.get(outer, 0) + column[_META][_UNPACKED_BYTES]
            groups.append(RowGroup(start, group[_ROWS], column_bytes))
            start += groups[-1].rows
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise DataError(
            f"'{name}' is no Parquet file that can be read: {error or type(error).__name__}",
            mend="Write it anew, or remove it.",
        ) from error
    return groups


class _Compact:
    """Values of Thrift's compact protocol: structs as fields by number, lists, numbers and bytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at, self.depth = raw, 0, 0

    def struct(self) -> dict[int, Any]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            kind = head & 15
            # of a field, a boolean is its kind
            fields[number] = kind == 1 if kind in {1, 2} else self.value(kind)
        self.depth -= 1
        return fields

    def value(self, kind: int) -> Any:
        if kind in {1, 2, 3}:
            return self.byte()
        if kind in {4, 5, 6}:
            return self.signed()
        if kind == 7:
            return struct.unpack("<d", self.take(8))[0]
        if kind == 8:
            return self.take(self.unsigned())
        if kind in {9, 10}:
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.unsigned()
            return [self.value(head & 15) for _ in range(self.credible(count))]
        if kind == 11:
            count = self.credible(self.unsigned())
            kinds = self.byte() if count else 0
            return [(self.value(kinds >> 4), self.value(kinds & 15)) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"its footer holds a value of kind {kind}")

    def byte(self) -> int:
        self.at += 1
        return self.raw[self.at - 1]

    def take(self, count: int) -> bytes:
        found = self.raw[self.at : self.at + count]
        if len(found) < count:
            raise ValueError("its footer ends too early")
        self.at += count
        return found

    def credible(self, count: int) -> int:
        """A number of values, each of which takes a byte at least."""
        if count > len(self.raw) - self.at:
            raise ValueError("its footer ends too early")
        return count

    def unsigned(self) -> int:
        found = shift = 0
        while True:
            byte = self.byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
            if shift > 63:
                raise ValueError("its footer holds a number of over 64 bits")

    def signed(self) -> int:
        found = self.unsigned()
        return (found >> 1) ^ -(found & 1)
