"""Transcripts in text files beside recordings, as LibriSpeech has them: ``84-121123.trans.txt``, a line for each.

A line holds a recording's name without its suffix, and what is said in it (V. Panayotov et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from thrifty.data.inputs import InputFile, Reject
from thrifty.data.manifest import Manifest, Named, are_splits
from thrifty.data.sounds.sound import SOUNDS
from thrifty.data.split import split_of

SUFFIX = ".trans.txt"
# of the column that such a file would have
COLUMN = "transcript"
_SHOWN = 60


def find_spoken(files: Sequence[InputFile], sounds: Sequence[InputFile]) -> Manifest | None:
    """Return what such files say of the recordings in their folders; None where there are none.

    Where their folders are named after splits, such as ``train-clean-100`` and ``test-clean``, those are the splits.

    Args:
        files: of the data folder.
        sounds: those of them that are recordings.
    """
    texts = tuple(file for file in files if file.name.lower().endswith(SUFFIX))
    if not texts:
        return None
    known = {str(PurePosixPath(file.name).with_suffix("")): file.name for file in sounds}
    splits = {file.name: split_of(file.name) for file in texts}
    given = all(splits.values()) and are_splits(splits.values())
    named: dict[str, Named] = {}
    rejects: list[Reject] = []
    for file in texts:
        folder = PurePosixPath(file.name).parent
        for line, row in enumerate(Path(file.path).read_text("utf-8", "replace").splitlines(), 1):
            said_of, _, said = row.strip().partition(" ")
            found, here = known.get(str(folder / said_of)), f"{file.name}:{line}"
            if found is None:
                rejects.append(Reject(here, f"names no {SOUNDS.what}", f": {said_of[:_SHOWN]!r}"))
            elif not said.strip():
                rejects.append(Reject(here, "empty label", f": of {said_of[:_SHOWN]!r}"))
            elif found in named:
                rejects.append(Reject(here, "named twice", f": {found}"))
            else:
                named[found] = Named(said.strip(), splits[file.name] if given else "")
    many = f"{len(texts):,} files such as '{texts[0].name}' say" if len(texts) > 1 else f"'{texts[0].name}' says"
    by_folder = ", split by their folders" if given else ""
    return Manifest(texts, named, tuple(rejects), COLUMN, f"{many} what is said{by_folder}")
