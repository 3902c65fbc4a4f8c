"""Numbers of all rows, one after the other on disk: written as they come, read back in part or whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

PART_ROWS = 1 << 18


class Tape:
    """A file of numbers of one type.

    Attributes:
        path: where they lie.
        dtype: of each.

    >>> import tempfile
    >>> tape = Tape(Path(tempfile.mkdtemp()) / "lines", np.int64)
    >>> tape.append(np.array([3, 4, 5]))
    >>> len(tape), tape.read(1, 3).tolist()
    (3, [4, 5])
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._count = 0
        path.write_bytes(b"")

    def append(self, numbers: NDArray) -> None:
        """Write more, [n]."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(numbers, self.dtype).data)
        self._count += len(numbers)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> NDArray:
        """Return those from one place up to another, [n]."""
        size = self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, stop - start, offset=start * size)

    def parts(self) -> Iterator[tuple[slice, NDArray]]:
        """Go through all of them, some at once, each with its place."""
        for start in range(0, len(self), PART_ROWS):
            stop = min(start + PART_ROWS, len(self))
            yield slice(start, stop), self.read(start, stop)
