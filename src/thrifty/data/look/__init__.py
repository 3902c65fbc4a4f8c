"""A first look at a folder or file: what kind of data it holds, and a job to start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from thrifty.data.inputs import list_one
from thrifty.data.look.found import MEND, Look, Recogniser, Seen, job_name
from thrifty.data.look.images import arrays, class_folders, in_rows, listed, sharded
from thrifty.data.look.language import corpus, rows_of_texts
from thrifty.data.look.sounds import recordings
from thrifty.data.look.tables import columns
from thrifty.data.look.texts import labelled_texts, texts_in_folders
from thrifty.data.look.unlabelled import hidden_words
from thrifty.data.unpacked import is_archive, unpacked
from thrifty.errors import DataError, unknown_name
from thrifty.spec.folders import cache_folder

__all__ = ["Look", "look"]

# The first that knows the files tells what they are.
RECOGNISERS: tuple[Recogniser, ...] = (
    arrays,
    sharded,
    in_rows,
    listed,
    class_folders,
    recordings,
    columns,
    rows_of_texts,
    labelled_texts,
    texts_in_folders,
    corpus,
)


# What a task that is asked for is recognised by, where it is another than the data's own.
TASKS: dict[str, Callable[[Seen], Look]] = {"mask": hidden_words}


def look(path: Path, cache: Path | None = None, task: str | None = None) -> Look:
    """Recognise images in class folders or arrays, tables of columns, texts with labels, or a folder of text.

    Decodes a few images at most; reads tables whole. An archive is unpacked.

    Args:
        path: of the data: a folder, a table, arrays, or an archive of them.
        cache: under which archives are unpacked; this package's own when left out.
        task: one of `TASKS`; told from the data when left out.

    Raises:
        DataError: the folder is missing, or holds none of them; what was found is named.
        JobError: no such task can be asked for.
    """
    if task is not None and task not in TASKS:
        raise unknown_name("task to look for", task, TASKS, see="Others are told from the data: leave --task out.")
    path, cache = Path(path), cache or cache_folder()
    if (folder := unpacked(path, cache)) != path:
        try:
            return _as_archive(look(folder, cache, task), folder, path)
        except DataError as error:
            # where it was unpacked tells nobody anything
            raise DataError(error.what.replace(str(folder), str(path)), mend=MEND) from error
    files, rejects = list_one(path)
    seen = Seen(path, files, rejects)
    if task is not None:
        return TASKS[task](seen)
    for recognise in RECOGNISERS:
        if (found := recognise(seen)) is not None:
            return found
    archives = [file for file in files if is_archive(file.name)]
    if not path.is_file() and len(archives) == 1:
        return look(path / archives[0].name, cache)
    raise _unknown(seen)


def _as_archive(found: Look, folder: Path, path: Path) -> Look:
    """What was seen in an archive, told of the archive."""
    job = {**found.job, "name": job_name(path), "data": {**found.job["data"], "path": str(path)}}
    return replace(found, says=found.says.replace(f"{folder.name}/", path.name, 1), job=job)


def _unknown(seen: Seen) -> DataError:
    suffixes = Counter(file.suffix or "without extension" for file in seen.files)
    held = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
    return DataError(f"'{seen.path}' holds no data that is recognised: {held}", mend=MEND)
