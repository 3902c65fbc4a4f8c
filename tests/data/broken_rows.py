"""What a row of the table of broken inputs says: what is wrong, and what is made of it; with what makes it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Fill = Callable[[Path], object]


@dataclass(frozen=True)
class Broken:
    """An input with something wrong in it, and what is to become of it.

    Attributes:
        kind: of the data.
        what: is wrong.
        fill: writes the data into a folder.
        says: the whole message where all is refused, ``{at}`` for the folder.
        offered: samples that lie there, the broken ones too, where some are kept.
        rejects: reason and detail by name of those that are put aside.
        asked: of the section of the job.
        path: of the data, in the folder.
        after: changes the data once it was listed and hashed.
        limits: lower ones for the test, by module and name.
        repaired: cells that are taken for empty, as the report tells them.
        told: a note that the report holds.
        unreadable: names whose permission to be read is taken away.
    """

    kind: str
    what: str
    fill: Fill
    says: str = ""
    offered: int = 0
    rejects: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    after: Fill | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)
    told: str = ""
    unreadable: tuple[str, ...] = ()


def files(*fills: Fill) -> Fill:
    """What does one after the other."""

    def fill(at: Path) -> None:
        for each in fills:
            each(at)

    return fill


def put(name: str, content: bytes | str) -> Fill:
    """What writes one file."""
    return lambda at: write(at, name, content)


def write(at: Path, name: str, content: bytes | str) -> None:
    (at / name).parent.mkdir(parents=True, exist_ok=True)
    (at / name).write_bytes(content.encode() if isinstance(content, str) else content)


def link(name: str, to: str) -> Fill:
    """What makes a link, and the file beside the data that it may lead to."""

    def fill(at: Path) -> None:
        (at.parent / "outside").write_bytes(b"of another")
        (at / name).symlink_to(to)

    return fill


def fifo(name: str) -> Fill:
    return lambda at: os.mkfifo(at / name)


# Linux 7.0, include/uapi/linux/capability.h
_CAPABILITIES_VERSION, _DAC_OVERRIDE, _DAC_READ_SEARCH = 0x20080522, 1, 2


@contextmanager
def without_privilege() -> Iterator[bool]:
    """Obey permissions for a while, as root too, and in threads begun meanwhile; says whether that could be had."""
    if os.geteuid() != 0:
        yield True
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, had = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, had) != 0:
        yield False
        return
    fewer = (ctypes.c_uint32 * 6)(*had)
    fewer[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    if libc.capset(header, fewer) != 0:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            libc.capset(header, had)
