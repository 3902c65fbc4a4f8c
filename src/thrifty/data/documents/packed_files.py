"""Files that are packed, read as what is in them: a stream that ends in an error where too much would come out."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from thrifty.errors import DataError
from thrifty.spec.units import format_bytes

PACKED_SUFFIXES = (".gz", ".xz", ".zst")
# what a file may unpack to: so much in any case, and so many times its own size
LEAST_BYTES, MOST_RATIO = 1 << 30, 200
# what unpacking may hold in memory; both formats let a file ask for gigabytes
MOST_MEMORY = 128 << 20


def inner_name(name: str) -> str:
    """Return the name of what is in a packed file; any other name comes back as it is.

    >>> inner_name("a/wiki.JSONL.zst"), inner_name("a/wiki.txt")
    ('a/wiki.JSONL', 'a/wiki.txt')
    """
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in PACKED_SUFFIXES else name


@contextlib.contextmanager
def unpacking(file: BinaryIO, name: str, size: int) -> Iterator[BinaryIO]:
    """Read a file as what is in it: unpacked where its name ends in one of `PACKED_SUFFIXES`.

    Args:
        file: open for reading.
        name: of it.
        size: its bytes as it lies, by which too much is told.

    Raises:
        DataError: it is damaged, ends too early, or unpacks to over `MOST_RATIO` times its size and over a GiB.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in PACKED_SUFFIXES:
        yield file
        return
    try:
        with contextlib.closing(_STREAMS[suffix](file)) as inside:
            limited = cast(BinaryIO, _Limited(inside, name, max(LEAST_BYTES, MOST_RATIO * size)))
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, limited), 1 << 18))
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise _damaged(name, error) from error
    except Exception as error:
        # of a library that is loaded only where such a file is read
        if type(error).__name__ != "ZstdError":
            raise
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> DataError:
    says = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"'{name}' cannot be unpacked: {says[:200]}", mend="Write it anew, or remove it.")


class _Limited(io.RawIOBase):
    """A stream that counts what is read of it."""

    def __init__(self, inside: BinaryIO, name: str, most: int) -> None:
        self._inside, self._name, self._most, self._count = inside, name, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        chunk = self._inside.read(len(view))
        view[: len(chunk)] = chunk
        self._count += len(chunk)
        if self._count > self._most:
            raise DataError(
                f"'{self._name}' unpacks to over {format_bytes(self._most)}, {MOST_RATIO} times its size or "
                f"{format_bytes(LEAST_BYTES)}",
                mend="Unpack it yourself if you trust it, and give what is in it.",
            )
        return len(chunk)


def _gzip(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))


def _xz(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, lzma.LZMAFile(file, "rb"))


def _zst(file: BinaryIO) -> BinaryIO:
    import zstandard

    return cast(BinaryIO, zstandard.ZstdDecompressor(max_window_size=MOST_MEMORY).stream_reader(file, closefd=False))


_STREAMS: dict[str, Callable[[BinaryIO], BinaryIO]] = {".gz": _gzip, ".xz": _xz, ".zst": _zst}
