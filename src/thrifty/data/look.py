"""A first look at a folder or table: what kind of data it holds, and a job to start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any

from thrifty.data.arrays import holds_arrays, read_labelled
from thrifty.data.image import IMAGE_SUFFIXES, decode, is_gray
from thrifty.data.inputs import TABLE_SUFFIXES, InputFile, list_one
from thrifty.data.labels import check_class_folders, folders_of, in_order
from thrifty.data.manifest import Manifest, find_manifest
from thrifty.data.split import split_of
from thrifty.data.survey import SMALLEST_SIDE
from thrifty.data.text_rows import Row, find_columns, read_rows
from thrifty.data.unpacked import SUFFIXES as ARCHIVES
from thrifty.data.unpacked import is_archive, unpacked
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData, TextData
from thrifty.spec.folders import cache_folder
from thrifty.spec.units import format_bytes

TEXT_SUFFIXES = frozenset(
    {
        *(".txt", ".md", ".rst", ".tex", ".html", ".xml", ".css", ".sql", ".sh"),
        *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".js", ".ts"),
        *(".jl", ".r", ".rb", ".php", ".swift", ".scala", ".hs", ".lua", ".pl"),
    }
)
SHOWN_IMAGES = 64
SHOWN_LABELS = 4
ECONOMY_SIDE = 64
# from so many rows on the larger BERT is the better buy: SST-2, with 6,920, reaches about 0.8 with it from scratch
ROWS_FOR_SMALL = 5_000
_MEND = (
    "Point it at class folders of images (cat/1.png, dog/2.png), at images as arrays (.npz, IDX), at tables of texts "
    "and labels (train.tsv), or at a folder of text or source files."
)


@dataclass(frozen=True)
class Look:
    """What a folder seems to hold.

    Attributes:
        kind: ``image``, ``text`` or ``language``.
        says: one line for people.
        job: a job to start from, ready for YAML; its path is the one that was given.
        why: the reason of each choice in ``job``, by its key, such as ``model`` and ``data.files``.
    """

    kind: str
    says: str
    job: dict[str, Any]
    why: dict[str, str]


def look(path: Path, cache: Path | None = None) -> Look:
    """Recognise images in class folders or arrays, tables of texts with labels, or a folder of text or source files.

    Decodes a few images at most; reads tables whole. An archive is unpacked.

    Args:
        path: of the data: a folder, a table, arrays, or an archive of them.
        cache: under which archives are unpacked; this package's own when left out.

    Raises:
        DataError: the folder is missing, or holds none of them; what was found is named.
    """
    path, cache = Path(path), cache or cache_folder()
    if (folder := unpacked(path, cache)) != path:
        try:
            return _as_archive(look(folder, cache), folder, path)
        except DataError as error:
            # where it was unpacked tells nobody anything
            raise DataError(error.what.replace(str(folder), str(path)), mend=_MEND) from error
    files, rejects = list_one(path)
    tables = [file for file in files if file.suffix in TABLE_SUFFIXES]
    if arrays := [file for file in files if holds_arrays(file.name)]:
        return _arrays(path, arrays)
    if path.is_file():
        if tables:
            return _tables(path, tables)
        raise _unknown(path, files, [])
    images = [file for file in files if file.suffix in IMAGE_SUFFIXES]
    texts = [file for file in files if file.suffix in TEXT_SUFFIXES]
    if (manifest := find_manifest(files, images)) is not None:
        return _manifest(path, manifest, images)
    if images and len(images) >= len(texts):
        check_class_folders(path, {file.name for file in files} | {reject.name for reject in rejects})
        return _folders(path, images)
    if tables and sum(file.size for file in tables) >= sum(file.size for file in texts):
        return _tables(path, tables)
    if len(texts) >= len(SPLITS):
        return _texts(path, texts)
    if len(archives := [file for file in files if is_archive(file.name)]) == 1:
        return look(path / archives[0].name, cache)
    raise _unknown(path, files, texts)


def _as_archive(found: Look, folder: Path, path: Path) -> Look:
    """What was seen in an archive, told of the archive."""
    job = {**found.job, "name": _job_name(path), "data": {**found.job["data"], "path": str(path)}}
    return replace(found, says=found.says.replace(f"{folder.name}/", path.name, 1), job=job)


def _unknown(path: Path, files: list[InputFile], texts: list[InputFile]) -> DataError:
    suffixes = Counter(file.suffix or "without extension" for file in files)
    held = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
    few = f", and {len(SPLITS)} text files are the least" if texts else ""
    return DataError(f"'{path}' holds no data that is recognised: {held}{few}", mend=_MEND)


def _arrays(path: Path, arrays: list[InputFile]) -> Look:
    parts = list(read_labelled({file.name: Path(file.path).read_bytes() for file in arrays}))
    if not parts:
        raise DataError(f"'{path}' holds labels and no images", mend=_MEND)
    counts = Counter(label for part in parts for label in part.labels)
    shapes = [(part.images.shape[1], part.images.shape[2]) for part in parts]
    colored = any(part.images.shape[3] > 1 for part in parts)
    given = ", ".join(f"{part.split or 'all'} {len(part.images):,}" for part in parts)
    return _images(path, counts, shapes, colored=colored, form=f", arrays ({given})")


def _folders(path: Path, images: list[InputFile]) -> Look:
    folders = folders_of(file.name for file in images)
    images = [file for file in images if folders.label(file.name)]
    counts = Counter(folders.label(file.name) for file in images)
    shapes, colored = _sampled(images)
    given = Counter(folders.split(file.name) for file in images)
    form = ", " + ", ".join(f"{part} {given[part]:,}" for part in SPLITS if given[part]) if folders.by_split else ""
    return _images(path, counts, shapes, colored=bool(colored), form=form)


def _manifest(path: Path, manifest: Manifest, images: list[InputFile]) -> Look:
    counts = Counter(each.label for each in manifest.named.values())
    shapes, colored = _sampled([file for file in images if file.name in manifest.named])
    given = Counter(each.split for each in manifest.named.values())
    parts = "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])
    found = _images(path, counts, shapes, colored=bool(colored), form=f"{parts}, as '{manifest.file.name}' says")
    return replace(found, why={"data": manifest.says, **found.why})


def _images(path: Path, counts: Counter[str], shapes: Sequence[tuple[int, int]], *, colored: bool, form: str) -> Look:
    if not shapes:
        raise DataError(
            f"none of {min(counts.total(), SHOWN_IMAGES)} images looked at in '{path}' can be read", mend=_MEND
        )
    low, high = min(shapes, key=_area), max(shapes, key=_area)
    sizes = f"{low[1]}x{low[0]}" if low == high else f"{low[1]}x{low[0]} to {high[1]}x{high[0]}"
    side = median_low(min(shape) for shape in shapes)
    data: dict[str, Any] = {"kind": "image", "path": str(path)}
    why: dict[str, str] = {}
    if side > ECONOMY_SIDE:
        data["size"] = ECONOMY_SIDE
        why["data.size"] = f"least compute: twice the side costs four times as much (the images are {sizes})"
    model, why["model"] = _image_model(side, counts.total())
    color = "colour" if colored else "gray"
    shown = path.name if path.is_file() else f"{path.name}/"
    says = f"{shown}: {counts.total():,} images, {len(counts)} labels ({_shares(counts)}), {sizes} {color}{form}"
    return Look("image", says, {"name": _job_name(path), "data": data, "model": model}, why)


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _sampled(images: Sequence[InputFile]) -> tuple[list[tuple[int, int]], int]:
    """Height and width of some images spread over the folder, and how many of them have colour."""
    shapes, colored = [], 0
    for file in images[:: -(-len(images) // SHOWN_IMAGES)]:
        try:
            image = decode(Path(file.path).read_bytes(), max_pixels=ImageData.model_fields["max_pixels"].default)
        except (DataError, OSError):
            continue
        shapes.append((image.shape[0], image.shape[1]))
        colored += not is_gray(image)
    return shapes, colored


def _shares(counts: Counter[str]) -> str:
    labels = in_order(counts)
    if len(labels) <= SHOWN_LABELS:
        total = counts.total()
        return ", ".join(f"{label} {counts[label] / total:.0%}".replace("%", " %") for label in labels)
    fewest, most = min(counts.values()), max(counts.values())
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{', '.join(labels[: SHOWN_LABELS - 1])}, … {labels[-1]}; {each} each"


def _image_model(side: int, count: int) -> tuple[str, str]:
    if side < SMALLEST_SIDE:
        return "mlp-small", f"at {side} pixels there is little for convolutions to find"
    if count < 10_000:
        return "resnet8", f"the smallest ResNet; {count:,} images seldom reward a deeper one"
    return "resnet20", f"the smallest of the published CIFAR ResNets; {count:,} images can use it"


def _tables(path: Path, tables: list[InputFile]) -> Look:
    """Texts with labels: the columns of the first table to train on, the rows of all."""
    data = TextData(kind="text", path=path)
    named = {file.name: split_of(file.name) for file in tables} if not path.is_file() else {}
    tables = [file for file in tables if named.get(file.name)] or tables
    first = next((file for file in tables if named.get(file.name) == "train"), tables[0])
    columns = find_columns(data, first.name, Path(first.path).read_bytes())
    counts: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    sizes: list[int] = []
    for file in tables:
        for row in read_rows(data, file.name, Path(file.path).read_bytes(), columns):
            if isinstance(row, Row):
                counts[named.get(file.name, "")] += 1
                labels[row.label] += 1
                sizes.append(len(row.text))
    rows = " + ".join(f"{counts[part]:,}" for part in ("", *SPLITS) if counts[part])
    forms = "/".join(sorted({file.suffix.removeprefix(".").upper() for file in tables}))
    if not sizes:
        raise DataError(f"no row of '{path}' can be used", mend="A row holds a text and its label.")
    size = f"{min(sizes):,} to {max(sizes):,} characters"
    shown = path.name if path.is_file() else f"{path.name}/"
    says = f"{shown}: {rows} texts, {len(labels)} labels ({_shares(labels)}), {size}, {forms}"
    # what was found is written down, so that a row that comes first one day does not change it
    at = {"text": columns.text, "label": columns.label}
    asked: dict[str, Any] = {"kind": "text", "path": str(path)}
    asked |= {key: place + 1 if isinstance(place, int) else place for key, place in at.items()}
    if tables[0].suffix != ".jsonl":
        asked["header"] = columns.header
    # all of them where no file is named after a split
    total = counts["train"] or counts.total()
    model = "bert-small" if total >= ROWS_FOR_SMALL else "bert-mini"
    why = {"data.text": columns.says}
    why["model"] = f"by the number of texts, {total:,}; bert-small from {ROWS_FOR_SMALL:,} on"
    return Look("text", says, {"name": _job_name(path), "data": asked, "model": model}, why)


def _texts(path: Path, texts: list[InputFile]) -> Look:
    counts = Counter(file.suffix for file in texts)
    suffix = max(counts, key=lambda each: (counts[each], each))
    chosen = [file for file in texts if file.suffix == suffix]
    total = sum(file.size for file in chosen)
    # suffixes are compared in lower case, names by the pattern as written
    glob = f"**/*{Counter(Path(file.name).suffix for file in chosen).most_common(1)[0][0]}"
    others = f"; beside them {len(texts) - len(chosen):,} other text files" if len(texts) > len(chosen) else ""
    why = {"data.files": f"the commonest kind of text: {len(chosen):,} of {len(texts):,} files"}
    # 20 tokens a parameter (Hoffmann et al. 2022), about 4 bytes a token: gpt-mini's 10.6 M parameters could use
    # 850 MB; from a tenth of that on it is the better buy, since several epochs over the same text still help
    # (Muennighoff et al. 2023)
    model = "gpt-mini" if total >= 85e6 else "gpt-nano"
    why["model"] = f"by the amount of text, {format_bytes(total)}; gpt-mini from 85 MB on"
    data = {"kind": "language", "path": str(path), "files": glob}
    says = f"{path.name}/: {len(chosen):,} files *{suffix}, {format_bytes(total)} of text{others}"
    return Look("language", says, {"name": _job_name(path), "data": data, "model": model}, why)


def _job_name(path: Path) -> str:
    """Name a job after its folder or table, with the characters that a name may hold."""
    own = path.resolve().name
    if path.is_file():
        own = next((own[: -len(suffix)] for suffix in ARCHIVES if own.lower().endswith(suffix)), path.stem)
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in own).strip(".-")
    return name[:100] or "job"
