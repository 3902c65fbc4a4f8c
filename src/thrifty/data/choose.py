"""Which files of a data folder are read, by the kind of data; the others are rejects, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from thrifty.data.cells import PARQUET
from thrifty.data.images.arrays import holds_arrays
from thrifty.data.images.image import IMAGE_SUFFIXES
from thrifty.data.images.picture_columns import find_picture_columns, picture_files
from thrifty.data.images.shards import SHARD_SUFFIX, shards_of
from thrifty.data.inputs import CELL_SUFFIXES, TABLE_SUFFIXES, InputFile, Reject, list_files, list_one
from thrifty.data.labels import check_class_folders, folders_of
from thrifty.data.manifest import ANY_LABEL, Answer, Manifest, find_manifest
from thrifty.data.sounds.labelled import check_labelled, manifest_of
from thrifty.data.sounds.sound import SOUND_SUFFIXES
from thrifty.data.split import NOT_A_SPLIT
from thrifty.errors import DataError
from thrifty.spec import AudioData, ImageData, KindName, LanguageData, RawData, TableData, TextData
from thrifty.spec.file_names import read_name
from thrifty.spec.units import format_bytes

TEXT_TABLES = (*TABLE_SUFFIXES, PARQUET)
TEXT_FILES = (".txt",)
# files that say something of the data beside them
_ABOUT = ("readme", "license", "licence", "copying", "source", "citation", "changelog", "notice", "authors")
_TABLES = "TSV, CSV, JSONL or Parquet"


@dataclass(frozen=True)
class Chosen:
    """The files of a data folder, told apart by name and size alone.

    Attributes:
        files: those worth reading.
        rejects: those put aside unread.
        manifest: what a table says of images or recordings, where there is one; it is none of the files.
    """

    files: list[InputFile]
    rejects: list[Reject]
    manifest: Manifest | None = None


def choose(data: RawData) -> Chosen:
    """List the files of the data and put aside those that are not of its kind, or too large.

    Raises:
        DataError: the folder is missing or holds nothing of the kind.
    """
    chosen = CHOOSERS[data.kind](data)
    files, rejects = [], list(chosen.rejects)
    for file in chosen.files:
        if file.size > data.max_file_bytes and not _holds_many(file):
            limit = format_bytes(data.max_file_bytes)
            rejects.append(Reject(file.name, "too large", f": {format_bytes(file.size)}, over the limit of {limit}"))
        else:
            files.append(file)
    return Chosen(files, rejects, chosen.manifest)


def _holds_many(file: InputFile) -> bool:
    """Whether a file is of many images, each of which has limits of its own."""
    return file.suffix in {SHARD_SUFFIX, PARQUET} or holds_arrays(file.name)


def _images(data: ImageData) -> Chosen:
    alone = holds_arrays(data.path.name) or data.path.suffix.lower() in {SHARD_SUFFIX, PARQUET}
    files, rejects = list_one(data.path) if alone else list_files(data.path)
    if shards := shards_of(files):
        _needs_no_column(data)
        return _sorted_out(files, rejects, lambda file: "" if file in shards else "not a shard")
    if tables := picture_files(files):
        if data.split.together is not None:
            raise DataError(
                f"data.split names the column {data.split.together!r}, and images in Parquet are dealt one by one",
                mend="Leave group and time out of data.split.",
            )
        find_picture_columns(tables[0], data.label)
        return _sorted_out(files, rejects, lambda file: "" if file in tables else "not a Parquet file")
    if any(holds_arrays(file.name) for file in files):
        _needs_no_column(data)
        return _sorted_out(files, rejects, lambda file: "" if holds_arrays(file.name) else "not an array file")
    answer = ANY_LABEL if data.label is None else Answer(data.label)
    manifest = find_manifest(
        files, [file for file in files if file.suffix in IMAGE_SUFFIXES], data.split, answer=answer
    )
    if manifest is None:
        _needs_no_column(data)
        check_class_folders(data.path, {file.name for file in files} | {reject.name for reject in rejects})
        folders = folders_of(file.name for file in files)
        return _sorted_out(
            files, rejects, lambda file: _no_image(file) if folders.label(file.name) else "not in a class folder"
        )
    return _listed(files, rejects, manifest, _no_image)


def _needs_no_column(data: ImageData) -> None:
    for key, column in (("data.split", data.split.together), ("data.label", data.label)):
        if column is not None:
            raise DataError(
                f"{key} names the column {column!r}, and no table in '{data.path}' names the images",
                mend="Add one, a row for each image, or leave group and time out of data.split, and data.label.",
            )


def _no_image(file: InputFile) -> str:
    return "" if file.suffix in IMAGE_SUFFIXES else "not an image file"


def _sounds(data: AudioData) -> Chosen:
    files, rejects = list_files(data.path)
    manifest = manifest_of(data, files)
    if manifest is not None:
        return _listed(files, rejects, manifest, _no_sound)
    check_labelled(data, files, rejects)
    folders = folders_of((file.name for file in files), SOUND_SUFFIXES)

    def reason(file: InputFile) -> str:
        if data.names is not None:
            return _no_sound(file) or ("" if read_name(data.names, file.name) else "not named as data.names says")
        return _no_sound(file) if folders.label(file.name) else "not in a class folder"

    return _sorted_out(files, rejects, reason)


def _no_sound(file: InputFile) -> str:
    return "" if file.suffix in SOUND_SUFFIXES else "not a sound file"


def _texts(data: TextData) -> Chosen:
    files, rejects = list_one(data.path)
    if any(file.suffix in TEXT_TABLES for file in files):
        return _sorted_out(files, rejects, lambda file: "" if file.suffix in TEXT_TABLES else f"not a {_TABLES} file")
    folders = folders_of((file.name for file in files), TEXT_FILES)

    def reason(file: InputFile) -> str:
        if file.suffix not in TEXT_FILES:
            return f"neither a {_TABLES} file nor a text file"
        if folders.label(file.name):
            return ""
        if data.task != "mask":
            return "not in a class folder"
        return "tells of the data" if is_about(file) and file.name != data.path.name else ""

    return _sorted_out(files, rejects, reason)


def is_about(file: InputFile) -> bool:
    """Say whether a file is named as those that tell of the data beside them."""
    return PurePosixPath(file.name).name.lower().split(".")[0] in _ABOUT


def _tables(data: TableData) -> Chosen:
    return _sorted_out(*list_one(data.path), lambda file: "" if file.suffix in CELL_SUFFIXES else "not a table")


def _language(data: LanguageData) -> Chosen:
    files, rejects = list_one(data.path)
    if data.path.is_file():
        return Chosen(files, rejects)
    return Chosen(
        [file for file in files if matches(file.name, data.files)],
        [reject for reject in rejects if matches(reject.name, data.files)],
    )


# Each takes the section of its kind.
CHOOSERS: dict[KindName, Callable[[Any], Chosen]] = {
    "audio": _sounds,
    "image": _images,
    "language": _language,
    "table": _tables,
    "text": _texts,
}


def _listed(
    files: list[InputFile], rejects: list[Reject], manifest: Manifest, wrong: Callable[[InputFile], str]
) -> Chosen:
    """Keep the files of the kind that tables name."""

    def reason(file: InputFile) -> str:
        if manifest.by_name and file.suffix in TEXT_TABLES:
            return NOT_A_SPLIT
        return wrong(file) or ("" if file.name in manifest.named else "named by no usable row")

    saying = {file.name for file in manifest.files}
    chosen = _sorted_out([file for file in files if file.name not in saying], [*rejects, *manifest.rejects], reason)
    return Chosen(chosen.files, chosen.rejects, manifest)


def _sorted_out(files: list[InputFile], rejects: list[Reject], reason: Callable[[InputFile], str]) -> Chosen:
    """Put aside the files that there is a reason for."""
    reasons = {file.name: reason(file) for file in files}
    return Chosen(
        [file for file in files if not reasons[file.name]],
        [*rejects, *(Reject(name, why) for name, why in reasons.items() if why)],
    )


def matches(name: str, pattern: str) -> bool:
    """Say whether a relative name fits a glob pattern; ``**`` stands for any number of folders, none included.

    >>> matches("a/b/c.txt", "**/*.txt"), matches("c.txt", "**/*.txt"), matches("a/c.txt", "*.txt")
    (True, True, False)
    """
    return _fits(name.split("/"), [part for part in pattern.split("/") if part not in {"", "."}])


def _fits(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return _fits(parts, patterns[1:]) or (bool(parts) and _fits(parts[1:], patterns))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])
