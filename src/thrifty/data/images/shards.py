"""Images in tar shards, as webdataset has them: the files of a sample share a name up to its first dot.

``000.jpg`` beside ``000.cls`` in ``train-000.tar`` is an image with its label. Nothing is unpacked: an image is read
from where it lies in its shard. The form: A. Aizman et al. 2020, "High performance I/O for large scale deep learning".
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thrifty.data.cells import load_json
from thrifty.data.images.image import IMAGE_SUFFIXES
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.manifest import SPLIT_COLUMNS
from thrifty.data.split import SPLIT_NAMES, split_by_words
from thrifty.data.texts.columns import LABEL_NAMES
from thrifty.data.unchanged import changed, gone
from thrifty.errors import DataError

SHARD_SUFFIX = ".tar"
# of those that a sample has, the first tells its label
LABEL_SUFFIXES = (".cls", ".json", ".txt")
MOST_FILES = 10_000_000
_MOST_LABEL_BYTES, _MOST_LABEL = 64 << 10, 200
# an archive without a pair among so many files is none of samples
_LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """An image in a shard, with its label.

    Attributes:
        name: of the shard and, in it, of the image.
        label: its class.
        split: the one that the label's file or the shard's name says; nothing where none does.
        shard: that it lies in.
        start, size: where, in bytes.
    """

    name: str
    label: str
    split: str
    shard: InputFile
    start: int
    size: int

    def read(self) -> bytes:
        """Read the image file."""
        with Path(self.shard.path).open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def read_unchanged(self, sha256: str) -> bytes:
        """Read an image whose hash is known.

        Raises:
            DataError: its shard has changed since, or is gone.
        """
        try:
            raw = self.read()
        except OSError as error:
            raise gone(self.shard.name, error) from error
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise changed(self.name)
        return raw


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    suffix: str
    start: int
    size: int


def shards_of(files: Iterable[InputFile]) -> list[InputFile]:
    """Return the files that are shards of samples: tar archives, the first of which holds a labelled image.

    Where images lie beside them, archives are taken for something else.
    """
    files = list(files)
    shards = [file for file in files if file.suffix == SHARD_SUFFIX]
    if not shards or any(file.suffix in IMAGE_SUFFIXES for file in files):
        return []
    return shards if holds_samples(Path(shards[0].path)) else []


def holds_samples(path: Path) -> bool:
    """Say whether an archive begins with an image that has its label beside it."""
    suffixes: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for _, member in zip(range(_LOOKED_AT), archive, strict=False):
                key, suffix = _parted(member.name)
                suffixes.setdefault(key, set()).add(suffix)
    except (OSError, tarfile.TarError):
        return False
    return any(found & IMAGE_SUFFIXES and found & set(LABEL_SUFFIXES) for found in suffixes.values())


def read_shard(file: InputFile, *, max_file_bytes: int) -> tuple[list[Sample], list[Reject]]:
    """List the labelled images of a shard; what cannot be used is put aside.

    Args:
        file: the shard.
        max_file_bytes: a larger image is put aside unread.
    """
    rejects: list[Reject] = []
    groups: dict[str, list[_Entry]] = {}
    for entry in _entries(file, max_file_bytes, rejects):
        groups.setdefault(_parted(entry.name)[0], []).append(entry)
    if not groups:
        return [], rejects
    samples, split = [], split_by_words(file.name)
    with Path(file.path).open("rb") as raw:
        for entries in groups.values():
            images = [each for each in entries if each.suffix in IMAGE_SUFFIXES]
            labels = sorted(
                (each for each in entries if each.suffix in LABEL_SUFFIXES),
                key=lambda each: LABEL_SUFFIXES.index(each.suffix),
            )
            others = [each for each in entries if each.suffix not in {*IMAGE_SUFFIXES, *LABEL_SUFFIXES}]
            rejects += [Reject(f"{file.name}/{each.name}", "neither an image nor a label") for each in others]
            if not images:
                rejects += [Reject(f"{file.name}/{each.name}", "label of no image") for each in labels]
                continue
            first, *more = images
            rejects += [Reject(f"{file.name}/{each.name}", "image of a name that another has") for each in more]
            if not labels:
                rejects.append(Reject(f"{file.name}/{first.name}", "no label beside it"))
                continue
            raw.seek(labels[0].start)
            label, own = _label(labels[0], raw.read(min(labels[0].size, _MOST_LABEL_BYTES + 1)))
            if isinstance(own, Reject):
                rejects.append(Reject(f"{file.name}/{own.name}", own.reason, own.detail))
                continue
            samples.append(Sample(f"{file.name}/{first.name}", label, own or split, file, first.start, first.size))
    return samples, rejects


def _entries(file: InputFile, max_file_bytes: int, rejects: list[Reject]) -> list[_Entry]:
    """The files of a shard up to where it is damaged."""
    found: dict[str, _Entry] = {}
    count = 0
    try:
        with Path(file.path).open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            for member in archive:
                count += 1
                name = f"{file.name}/{member.name}"
                if count > MOST_FILES:
                    raise DataError(f"shard '{file.name}' holds over {MOST_FILES:,} files")
                if member.isdir():
                    continue
                if not member.isfile() or member.issparse():
                    rejects.append(Reject(name, "not a regular file"))
                elif member.offset_data + member.size > file.size:
                    rejects.append(Reject(name, "truncated", ": its shard ends within it"))
                elif member.size > max_file_bytes:
                    rejects.append(Reject(name, "too large", f": {member.size:,} bytes"))
                elif member.name in found:
                    rejects.append(Reject(name, "named twice"))
                else:
                    suffix = _parted(member.name)[1]
                    found[member.name] = _Entry(member.name, suffix, member.offset_data, member.size)
            # an empty block ends an archive: without one more may have come, and tarfile says nothing of it
            if os.pread(raw.fileno(), tarfile.BLOCKSIZE, archive.offset) != bytes(tarfile.BLOCKSIZE):
                rejects.append(
                    Reject(file.name, "damaged shard", f": it ends after {count:,} files without an end mark")
                )
    except (OSError, tarfile.TarError) as error:
        rejects.append(Reject(file.name, "damaged shard", f": after {count:,} files: {error}"))
    return list(found.values())


def _parted(name: str) -> tuple[str, str]:
    """The name that a sample's files share, and what follows its first dot.

    >>> _parted("a/000.seg.PNG")
    ('a/000', '.seg.png')
    """
    path = PurePosixPath(name)
    own, dot, suffix = path.name.partition(".")
    return str(path.with_name(own)) if own else name, dot + suffix.lower()


def _label(entry: _Entry, raw: bytes) -> tuple[str, str | Reject]:
    """The label that a file tells, and the split; or why it tells none."""
    if len(raw) > _MOST_LABEL_BYTES:
        return "", Reject(entry.name, "label too long", f": {entry.size:,} bytes")
    try:
        text, split = raw.decode("utf-8").strip(), ""
        if entry.suffix == ".json":
            text, split = _of_json(load_json(text))
    except (ValueError, RecursionError) as error:
        return "", Reject(entry.name, "label cannot be read", f": {error}")
    if not text:
        return "", Reject(entry.name, "empty label")
    if len(text) > _MOST_LABEL:
        return "", Reject(entry.name, "label too long", f": {len(text):,} characters")
    return text, split


def _of_json(value: object) -> tuple[str, str]:
    """The label that JSON holds, by the usual names of its key, and the split where it names one."""
    split = ""
    if isinstance(value, dict):
        named = next((str(value[key]).lower() for key in SPLIT_COLUMNS if key in value), "")
        split = SPLIT_NAMES.get(named, "")
        keys = ("cls", *LABEL_NAMES)
        key = next((key for key in keys if key in value), None)
        if key is None:
            raise ValueError(f"none of its keys is {', '.join(keys)}")
        value = value[key]
    if not isinstance(value, str | int):
        raise ValueError(f"a label is a name or a whole number, and this is {json.dumps(value)[:60]}")
    return str(value).strip(), split
