"""Which columns of Parquet hold images and their labels, as Hugging Face has them or as their names say.

A cell is a struct of ``bytes`` and ``path``, or the bytes of an image file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thrifty.data.cells import PARQUET, parquet_errors
from thrifty.data.images.header import read_header
from thrifty.data.images.image import IMAGE_SUFFIXES
from thrifty.data.inputs import InputFile, Reject
from thrifty.data.texts.columns import LABEL_NAMES
from thrifty.errors import DataError, nearest
from thrifty.spec.data import Column

if TYPE_CHECKING:
    import polars as pl

# names that columns of images have in published data sets, the likelier first
IMAGE_NAMES = ("image", "img", "picture", "photo", "pixel_values", "jpg", "png")
_SNIFFED, _MOST_LABEL = 16, 200


@dataclass(frozen=True)
class PictureColumns:
    """Where images and labels stand in the rows of a file.

    Attributes:
        image, label: columns.
        nested: cells of images are structs.
        names: of labels that are numbers, by these; none where they stand for themselves.
    """

    image: str
    label: str
    nested: bool
    names: tuple[str, ...] = ()

    def files(self, cells: pl.Series) -> pl.Series:
        """Return the image files in the cells of the image column."""
        return cells.struct.field("bytes") if self.nested else cells

    @property
    def says(self) -> str:
        """What was taken, a sentence without its end."""
        named = f", whose {len(self.names):,} names the schema holds" if self.names else ""
        return f"image column '{self.image}', label column '{self.label}'{named}"


def picture_files(files: Iterable[InputFile]) -> list[InputFile]:
    """Return the Parquet files, where the first of them holds images and labels.

    Where images lie beside them, such files are taken for tables that name those.
    """
    files = list(files)
    found = [file for file in files if file.suffix == PARQUET]
    if not found or any(file.suffix in IMAGE_SUFFIXES for file in files):
        return []
    return found if _holds_pictures(found[0]) else []


def _holds_pictures(file: InputFile) -> bool:
    import polars

    try:
        with parquet_errors(file.name):
            schema = polars.read_parquet_schema(file.path)
            image = _image_column(schema, _features(file))
        if image is None:
            return False
        columns = PictureColumns(image, image, schema[image] != polars.Binary)
        return any(_is_image(cell) for cell in first_pictures(file, columns, _SNIFFED))
    except DataError:
        return False


def first_pictures(file: InputFile, columns: PictureColumns, count: int) -> list[bytes]:
    """Return the image files in the first rows of a file; empty cells are passed over.

    Raises:
        DataError: it cannot be read.
    """
    with parquet_errors(file.name):
        cells = _scanned(file).select(columns.image).head(count).collect().to_series()
    return [cell for cell in columns.files(cells) if cell]


def _is_image(raw: bytes) -> bool:
    try:
        read_header(raw)
    except DataError as error:
        return not error.what.startswith("not an image")
    return True


def find_picture_columns(file: InputFile, asked: Column | None = None) -> PictureColumns:
    """Find the columns of images and labels: by what the schema says of Hugging Face's features, else by their names.

    Args:
        file: Parquet.
        asked: the column of labels, by name or by number from 1; found when left out.

    Raises:
        DataError: it has no such columns, or cannot be read.
    """
    import polars

    with parquet_errors(file.name):
        schema = polars.read_parquet_schema(file.path)
        features = _features(file)
    image = _image_column(schema, features)
    if image is None:
        raise DataError(f"'{file.name}' has no column of images", mend=f"Columns: {', '.join(schema)}.")
    label = _label_column(file.name, schema, features, image, asked)
    names = features.get(label, {}).get("names", ())
    names = names.values() if isinstance(names, Mapping) else names
    numbered = schema[label].is_integer() and isinstance(names, Iterable)
    return PictureColumns(
        image, label, schema[image] != polars.Binary, tuple(str(name) for name in names) if numbered else ()
    )


def _features(file: InputFile) -> dict[str, dict[str, Any]]:
    """What Hugging Face's metadata says of each column; nothing where there is none."""
    import polars

    try:
        features = json.loads(polars.read_parquet_metadata(file.path)["huggingface"])["info"]["features"]
        return {str(name): each for name, each in features.items() if isinstance(each, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _image_column(schema: Mapping[str, pl.DataType], features: Mapping[str, dict[str, Any]]) -> str | None:
    import polars

    def able(kind: pl.DataType) -> bool:
        return kind == polars.Binary or (
            isinstance(kind, polars.Struct)
            and any(field.name == "bytes" and field.dtype == polars.Binary for field in kind.fields)
        )

    columns = [name for name, kind in schema.items() if able(kind)]
    said = [name for name in columns if features.get(name, {}).get("_type") == "Image"]
    unsaid = [name for name in columns if "_type" not in features.get(name, {})]
    named = [name for wanted in IMAGE_NAMES for name in unsaid if name.lower() == wanted]
    found = said or named or (unsaid if len(unsaid) == 1 else [])
    return found[0] if found else None


def _label_column(
    name: str,
    schema: Mapping[str, pl.DataType],
    features: Mapping[str, dict[str, Any]],
    image: str,
    asked: Column | None,
) -> str:
    import polars

    columns = list(schema)
    if asked is not None:
        found = columns[asked - 1] if isinstance(asked, int) and asked <= len(columns) else str(asked)
        if found in schema and found != image:
            return found
        raise DataError(
            f"'{name}' has no column {asked!r} beside its images, which data.label names",
            nearest=nearest(str(asked), columns),
            mend=f"Columns: {', '.join(columns)}.",
        )
    able = [
        each
        for each, kind in schema.items()
        if kind.is_integer()
        or kind in {polars.String, polars.Boolean}
        or isinstance(kind, polars.Categorical | polars.Enum)
    ]
    by_name = [each for wanted in LABEL_NAMES for each in able if each.lower() == wanted]
    by_class = [each for each in able if features.get(each, {}).get("_type") == "ClassLabel"]
    by_part = [each for each in able if "label" in each.lower()]
    chosen = by_name or by_class or by_part or (able if len(able) == 1 else [])
    if not chosen:
        raise DataError(
            f"'{name}' holds images, and none of its columns is known to hold their labels",
            mend=f"Set data.label to one of: {', '.join(each for each in columns if each != image)}.",
        )
    return chosen[0]


def labels_of(file: InputFile, columns: PictureColumns) -> Iterator[str | Reject]:
    """Go through the labels of a file, or why a row has none that can be used.

    Raises:
        DataError: it cannot be read.
    """
    with parquet_errors(file.name):
        cells = _scanned(file).select(columns.label).collect().to_series()
    return (_label(f"{file.name}:{row}", cell, columns) for row, cell in enumerate(cells, 1))


def _label(name: str, cell: Any, columns: PictureColumns) -> str | Reject:
    text = "" if cell is None else str(cell).strip()
    if not text:
        return Reject(name, "empty label")
    if len(text) > _MOST_LABEL:
        return Reject(name, "label too long", f": {len(text):,} characters")
    if not columns.names:
        return text
    # of test splits that keep their labels for themselves, all are -1
    return columns.names[cell] if 0 <= cell < len(columns.names) else Reject(name, "label without a name", f": {cell}")


def _scanned(file: InputFile) -> pl.LazyFrame:
    import polars

    return polars.scan_parquet(file.path, glob=False)
