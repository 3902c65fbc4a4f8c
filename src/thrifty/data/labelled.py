"""What tells the labels of recordings: a table, their names, or their folders."""

from __future__ import annotations

from collections.abc import Sequence

from thrifty.data.inputs import InputFile, Reject
from thrifty.data.labels import check_class_folders
from thrifty.data.manifest import ANY_LABEL, Answer, Manifest, find_manifest
from thrifty.data.sound import SOUND_SUFFIXES, SOUNDS
from thrifty.errors import DataError
from thrifty.spec import AudioData, Split
from thrifty.spec.file_names import read_name

# names that columns of transcripts have in published data sets, the likelier first
TRANSCRIPT_NAMES = ("transcript", "transcription", "sentence", "normalized_text", "text", "words", "utterance")


def manifest_of(data: AudioData, files: Sequence[InputFile]) -> Manifest | None:
    """Return the table that names recordings, with the column that is learned; None where names or folders tell.

    Raises:
        DataError: the table lacks the column.
    """
    if data.names is not None and data.transcript is None and data.label is None:
        return None
    answer = ANY_LABEL if data.transcript is None else Answer(data.transcript, TRANSCRIPT_NAMES)
    answer = answer if data.label is None else Answer(data.label)
    sounds = [file for file in files if file.suffix in SOUND_SUFFIXES]
    asked = data.split if data.names is None else Split()
    return find_manifest(files, sounds, asked, what=SOUNDS.what, answer=answer)


def check_labelled(data: AudioData, files: Sequence[InputFile], rejects: Sequence[Reject]) -> None:
    """Check that recordings without a table have labels: in their names, or by their folders.

    Raises:
        DataError: they have not, or there are none.
    """
    sounds = [file for file in files if file.suffix in SOUND_SUFFIXES]
    if not sounds:
        raise DataError(
            f"'{data.path}' holds no recordings ({len(files):,} other files in it)",
            mend=f"Recordings end in {', '.join(sorted(SOUND_SUFFIXES))}.",
        )
    if data.transcript is not None or data.label is not None:
        column = data.transcript if data.transcript is not None else data.label
        raise DataError(
            f"no table in '{data.path}' names its recordings, and column {column!r} of one is asked for",
            mend="A row of a TSV, CSV or JSONL file holds a recording's file name and what it is.",
        )
    if data.names is None:
        check_class_folders(data.path, {file.name for file in files} | {reject.name for reject in rejects}, SOUNDS)
    elif not any(read_name(data.names, file.name) for file in sounds):
        raise DataError(
            f"no recording in '{data.path}' is named like '{data.names}'; one is '{sounds[0].name}'",
            mend="Set data.names to how they are named, without the suffix.",
        )
