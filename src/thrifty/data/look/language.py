"""Recognise what a language model learns from: files of text or source, rows of texts without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from thrifty.data.choose import is_about
from thrifty.data.documents.dealing import given_splits, held_out_alone
from thrifty.data.documents.files import ROW_SUFFIXES, first_rows
from thrifty.data.documents.packed_files import inner_name
from thrifty.data.inputs import InputFile
from thrifty.data.look.found import Look, Seen, job_name, shown
from thrifty.data.texts.columns import LABEL_NAMES, SEVERAL_NAMES
from thrifty.data.texts.tags import tell_apart
from thrifty.spec import SPLITS
from thrifty.spec.units import format_bytes

TEXT_SUFFIXES = frozenset(
    {
        *(".txt", ".md", ".rst", ".tex", ".html", ".xml", ".css", ".sql", ".sh"),
        *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".js", ".ts"),
        *(".jl", ".r", ".rb", ".php", ".swift", ".scala", ".hs", ".lua", ".pl"),
    }
)
_LOOKED_AT = 100
# characters of a document, in the mean; what is shorter is rather a sentence or a name
_LONG_TEXT = 200


def corpus(seen: Seen) -> Look | None:
    """Files of text or source: a folder of them, one alone, or few beside what tells of them."""
    texts = [file for file in seen.files if _is_text(file)]
    told = [] if seen.path.is_file() else [file for file in texts if is_about(file)]
    if len(texts) - len(told) < len(SPLITS):
        texts = [file for file in texts if file not in told]
        # a few notes beside what is no text are not what the folder is for
        if 2 * sum(file.size for file in texts) <= sum(file.size for file in seen.files if file not in told):
            return None
    return _of_files(seen, texts, told)


def rows_of_texts(seen: Seen) -> Look | None:
    """Rows of texts without labels, as corpora are published: JSONL, packed or not, and Parquet."""
    rows = [file for file in seen.files if _suffix(file).startswith(ROW_SUFFIXES)]
    if not rows or 2 * sum(file.size for file in rows) <= sum(file.size for file in seen.files):
        return None
    column = _column_of_texts(rows[0])
    if not column:
        return None
    found = _of_files(seen, rows, [])
    data = {**found.job["data"], "text": column}
    why = {"data.text": f"the longest cells of '{rows[0].name}', and no column of labels", **found.why}
    return replace(found, job={**found.job, "data": data}, why=why)


def _column_of_texts(file: InputFile) -> str:
    """The column of long texts in a file of rows; empty where there is none, or a column is named as labels are."""
    columns = first_rows(file, _LOOKED_AT)
    tags = [cells for name, cells in columns.items() if name.lower() in SEVERAL_NAMES]
    if any(name.lower() in LABEL_NAMES for name in columns) or any(map(tell_apart, tags)):
        return ""
    lengths = {
        name: sum(map(len, cells)) / len(cells)
        for name, cells in columns.items()
        if cells and all(isinstance(cell, str) for cell in cells)
    }
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return longest if longest and (lengths[longest] >= _LONG_TEXT or longest.lower() == "text") else ""


def _of_files(seen: Seen, texts: Sequence[InputFile], told: Sequence[InputFile]) -> Look:
    path = seen.path
    counts = Counter(_suffix(file) for file in texts)
    suffix = max(counts, key=lambda each: (counts[each], each))
    chosen = [file for file in texts if _suffix(file) == suffix]
    total = sum(file.size for file in chosen)
    others = f"; beside them {len(texts) - len(chosen):,} other text files" if len(texts) > len(chosen) else ""
    data: dict[str, Any] = {"kind": "language", "path": str(path)}
    why: dict[str, str] = {}
    if not path.is_file():
        data["files"], why["data.files"] = _pattern(chosen, texts, told)
    given = given_splits([file.name for file in chosen])
    if given:
        why["data.split"] = f"as the files are named: {', '.join(dict.fromkeys(given.values()))}"
    elif len(chosen) < len(SPLITS) and suffix not in ROW_SUFFIXES:
        data["split_by"] = "position"
        why["data.split_by"] = (
            "too few documents to deal: the beginning of each is trained on, its end held out; a long text seldom "
            "repeats what it says, so little of what is held out was seen"
        )
    if passed_over := held_out_alone([file.name for file in chosen]):
        why["data.split"] = passed_over
    # 20 tokens a parameter (Hoffmann et al. 2022), about 4 bytes a token: gpt-mini's 10.6 M parameters could use
    # 850 MB; from a tenth of that on it is the better buy, since several epochs over the same text still help
    # (Muennighoff et al. 2023)
    model = "gpt-mini" if total >= 85e6 else "gpt-nano"
    why["model"] = f"by the amount of text, {format_bytes(total)}; gpt-mini from 85 MB on"
    many = f"{len(chosen):,} files *{suffix}" if len(chosen) > 1 else "one file"
    says = f"{shown(path)}: {many}, {format_bytes(total)} of text{others}"
    return Look("language", says, {"name": job_name(path), "data": data, "model": model}, why)


def _is_text(file: InputFile) -> bool:
    return PurePosixPath(inner_name(file.name)).suffix.lower() in TEXT_SUFFIXES


def _suffix(file: InputFile) -> str:
    """The end of a name that tells its form: of ``a.txt.gz`` both suffixes."""
    inside = inner_name(file.name)
    return (PurePosixPath(inside).suffix + file.name[len(inside) :]).lower()


def _pattern(chosen: Sequence[InputFile], texts: Sequence[InputFile], told: Sequence[InputFile]) -> tuple[str, str]:
    """The glob pattern that fits the chosen files, and why they are."""
    left = [file for file in told if file not in texts]
    beside = (
        f"; {', '.join(file.name for file in left[:3])} {'tells' if len(left) == 1 else 'tell'} of the data"
        if left
        else ""
    )
    if len(chosen) == 1:
        return chosen[0].name, f"the one file of text{beside}"
    # suffixes are compared in lower case, names by the pattern as written
    ends = Counter(file.name[len(str(Path(inner_name(file.name)).with_suffix(""))) :] for file in chosen)
    end = ends.most_common(1)[0][0]
    return f"**/*{end}", f"the commonest kind of text: {len(chosen):,} of {len(texts):,} files{beside}"
