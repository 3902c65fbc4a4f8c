"""Rows of the table of broken inputs: archives, of what any kind of data is in."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

from broken_rows import Broken, put
from data_folders import encoded, image


def picture(label: str, index: int) -> bytes:
    return encoded(image(index + {"cat": 0, "dog": 100}[label], 8, 8))


FILES = [(f"{label}/{index}.png", picture(label, index)) for label in ("cat", "dog") for index in range(4)]
GOOD = FILES[0][1]
Members = Sequence[tuple[str, bytes]]


def zipped(members: Members = FILES) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)
        for name, raw in members:
            archive.writestr(zipfile.ZipInfo(name), raw, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tarred(members: Members = FILES, mode: str = "w", links: Sequence[tuple[str, bytes, str]] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, raw in members:
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        for name, kind, to in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, to
            archive.addfile(member)
    return file.getvalue()


def archive(what: str, name: str, raw: bytes, **more: Any) -> Broken:
    return Broken("image", what, put(name, raw), path=name, **more)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :]


def encrypted() -> bytes:
    raw = bytearray(zipped())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = raw.find(mark)
        while place >= 0:
            raw[place + at] |= 1
            place = raw.find(mark, place + 4)
    return bytes(raw)


TWICE: Members = [*FILES, ("cat/0.png", encoded(image(999, 8, 8)))]

ARCHIVES = [
    archive(
        "zip: empty",
        "a.zip",
        b"",
        says=("archive '{at}/a.zip' cannot be unpacked: File is not a zip file. Fetch it again, or pack it anew."),
    ),
    archive(
        "zip: no zip",
        "a.zip",
        b"nothing of the kind" * 9,
        says=("archive '{at}/a.zip' cannot be unpacked: File is not a zip file. Fetch it again, or pack it anew."),
    ),
    archive(
        "zip: cut off",
        "a.zip",
        zipped()[:-60],
        says=("archive '{at}/a.zip' cannot be unpacked: File is not a zip file. Fetch it again, or pack it anew."),
    ),
    archive(
        "zip: a flipped byte",
        "a.zip",
        flipped(zipped([("cat/0.png", GOOD)]), 60),
        says=(
            "archive '{at}/a.zip' cannot be unpacked: Error -3 while decompressing data: invalid "
            "distance too far back. Fetch it again, or pack it anew."
        ),
    ),
    archive(
        "zip: needs a password",
        "a.zip",
        encrypted(),
        says=(
            "archive '{at}/a.zip' is not unpacked: it needs a password. Unpack it yourself if you "
            "trust it, and give the folder."
        ),
    ),
    archive(
        "zip: a bomb",
        "a.zip",
        zipped([("cat/0.png", bytes(2_000_000))]),
        limits={"unpacked.LEAST_BYTES": 50_000},
        says=(
            "archive '{at}/a.zip' unpacks to over 404 KiB, 200 times its size or 48.8 KiB. Unpack "
            "it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "zip: a name with ..",
        "a.zip",
        zipped([*FILES, ("../out.png", GOOD)]),
        says=(
            "archive '{at}/a.zip' is not unpacked: '../out.png' would lead out of its folder. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "zip: a whole path",
        "a.zip",
        zipped([*FILES, ("/tmp/out.png", GOOD)]),
        says=(
            "archive '{at}/a.zip' is not unpacked: '/tmp/out.png' would lead out of its folder. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "zip: a name twice",
        "a.zip",
        zipped(TWICE),
        says=(
            "archive '{at}/a.zip' holds two files named 'cat/0.png'. Pack it anew with one of "
            "them, or unpack it yourself and give the folder."
        ),
    ),
    archive(
        "zip: a file that is a folder too",
        "a.zip",
        zipped([*FILES, ("cat/0.png/1.png", GOOD)]),
        says=(
            "archive '{at}/a.zip' is not unpacked: 'cat/0.png/1.png' is a file and a folder. "
            "Fetch it again, or pack it anew."
        ),
    ),
    archive(
        "zip: nothing in it",
        "a.zip",
        zipped([]),
        says="archive '{at}/a.zip' is empty. Fetch it again, or pack it anew.",
    ),
    archive(
        "zip: too many files",
        "a.zip",
        zipped(),
        limits={"unpacked.MOST_FILES": 5},
        says=("archive '{at}/a.zip' holds over 5 files. Unpack it yourself if you trust it, and give the folder."),
    ),
    archive(
        "zip: one broken image",
        "a.zip",
        zipped([*FILES, ("cat/x.png", GOOD[:-9])]),
        offered=9,
        rejects={"cat/x.png": "truncated: the PNG has no end chunk"},
    ),
    archive(
        "tar: no tar",
        "a.tar",
        b"nothing of the kind" * 90,
        says=(
            "archive '{at}/a.tar' cannot be unpacked: file could not be opened successfully. "
            "Fetch it again, or pack it anew."
        ),
    ),
    archive(
        "tar.gz: cut off",
        "a.tar.gz",
        tarred(mode="w:gz")[:-200],
        says=(
            "archive '{at}/a.tar.gz' cannot be unpacked: Compressed file ended before the "
            "end-of-stream marker was reached. Fetch it again, or pack it anew."
        ),
    ),
    archive(
        "tar.xz: cut off",
        "a.tar.xz",
        tarred(mode="w:xz")[:-60],
        says=(
            "archive '{at}/a.tar.xz' cannot be unpacked: Compressed file ended before the "
            "end-of-stream marker was reached. Fetch it again, or pack it anew."
        ),
    ),
    archive(
        "tar: cut off",
        "a.tar",
        tarred()[:4000],
        says=("archive '{at}/a.tar' cannot be unpacked: unexpected end of data. Fetch it again, or pack it anew."),
    ),
    archive(
        "tar: a bomb",
        "a.tar.bz2",
        tarred([("cat/0.png", bytes(2_000_000))], "w:bz2"),
        limits={"unpacked.LEAST_BYTES": 50_000},
        says=(
            "archive '{at}/a.tar.bz2' unpacks to over 48.8 KiB, 200 times its size or 48.8 KiB. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "tar: a name with ..",
        "a.tar",
        tarred([*FILES, ("../out.png", GOOD)]),
        says=(
            "archive '{at}/a.tar' is not unpacked: '../out.png' would lead out of its folder. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "tar: a link that leaves",
        "a.tar",
        tarred(links=[("cat/x.png", tarfile.SYMTYPE, "/etc/passwd")]),
        says=(
            "archive '{at}/a.tar' is not unpacked: 'cat/x.png' would lead out of its folder. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "tar: a hard link that leaves",
        "a.tar",
        tarred(links=[("cat/x.png", tarfile.LNKTYPE, "../../out")]),
        says=(
            "archive '{at}/a.tar' is not unpacked: 'cat/x.png' would lead out of its folder. "
            "Unpack it yourself if you trust it, and give the folder."
        ),
    ),
    archive(
        "tar: a device",
        "a.tar",
        tarred(links=[("cat/x.png", tarfile.CHRTYPE, "")]),
        says="archive '{at}/a.tar' is not unpacked: 'cat/x.png' is a device or a pipe.",
    ),
    archive(
        "tar: a name twice",
        "a.tar",
        tarred(TWICE),
        says=(
            "archive '{at}/a.tar' holds two files named 'cat/0.png'. Pack it anew with one of "
            "them, or unpack it yourself and give the folder."
        ),
    ),
    archive(
        "tar: may not be read",
        "a.tar",
        tarred(),
        unreadable=("a.tar",),
        says="archive '{at}/a.tar' cannot be read. Give yourself the right to read it.",
    ),
]
