"""Recognise texts whose words are to be hidden: rows of tables, or paragraphs of text files, with labels or without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from thrifty.data.choose import TEXT_TABLES, choose
from thrifty.data.look.found import Look, Seen, job_name, shown
from thrifty.data.split import split_of
from thrifty.data.texts.columns import find_columns
from thrifty.errors import DataError
from thrifty.spec import TextData
from thrifty.spec.units import format_bytes

# as of language models: 20 tokens a parameter, about 4 bytes a token; from a tenth of that on the larger one is taken
_BYTES_FOR_SMALL = 85e6


def hidden_words(seen: Seen) -> Look:
    """Texts to learn hidden words of, as the files to train on have them.

    Raises:
        DataError: there are neither tables of texts nor text files, or no column of a table looks like texts.
    """
    path = seen.path
    texts = choose(TextData(kind="text", path=path, task="mask")).files
    tables = [file for file in texts if file.suffix in TEXT_TABLES]
    if not texts:
        raise DataError(
            f"'{path}' holds no texts whose words could be hidden",
            mend="They are rows of TSV, CSV, JSONL or Parquet files, or paragraphs of .txt files.",
        )
    asked: dict[str, Any] = {"kind": "text", "path": str(path)}
    why = {"task": "asked for: hidden words are learned, and no labels"}
    if tables:
        first = next((file for file in tables if split_of(file.name) == "train"), tables[0])
        with Path(first.path).open("rb") as stream:
            columns = find_columns(TextData(kind="text", path=path, task="mask"), first.name, stream)
        at = {"text": columns.text, "text_b": columns.text_b, "label": columns.label}
        asked |= {key: place + 1 if isinstance(place, int) else place for key, place in at.items() if place is not None}
        asked |= {"header": columns.header} if first.suffix in {".tsv", ".csv"} else {}
        why["data.text"] = columns.says
    total = sum(file.size for file in texts)
    model = "bert-small" if total >= _BYTES_FOR_SMALL else "bert-mini"
    why["model"] = f"by the amount of text, {format_bytes(total)}; bert-small from {format_bytes(_BYTES_FOR_SMALL)} on"
    suffix = Counter(file.suffix for file in texts).most_common(1)[0][0]
    many = f"{len(texts):,} files *{suffix}" if len(texts) > 1 else "one file"
    says = f"{shown(path)}: {many}, {format_bytes(total)} of text, whose words are hidden"
    return Look("text", says, {"name": job_name(path), "task": "mask", "data": asked, "model": model}, why)
