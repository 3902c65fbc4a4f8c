"""What tells the labels of recordings: a table, their names, or their folders."""

from __future__ import annotations

from collections.abc import Sequence

from thrifty.data.inputs import InputFile, Reject
from thrifty.data.labels import check_class_folders
from thrifty.data.manifest import ANY_LABEL, AS_IT_COMES, Answer, Manifest, find_manifest
from thrifty.data.sounds.sound import SOUND_SUFFIXES, SOUNDS
from thrifty.data.sounds.spoken import COLUMN, find_spoken
from thrifty.errors import DataError
from thrifty.spec import AudioData, Split
from thrifty.spec.data import Column
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
    asked = data.split if data.names is None else Split()
    if data.transcript is not None:
        return transcripts_of(files, asked, data.transcript)
    answer = ANY_LABEL if data.label is None else Answer(data.label)
    return find_manifest(files, sounds_of(files), asked, what=SOUNDS.what, answer=answer)


def transcripts_of(
    files: Sequence[InputFile], asked: Split = AS_IT_COMES, column: Column | None = None
) -> Manifest | None:
    """Return what tables, or text files as of LibriSpeech, say that is said in recordings; None where nothing does.

    Args:
        files: of the data folder.
        asked: the column of groups or times, where the split goes by one.
        column: of transcripts; found by its name when left out.

    Raises:
        DataError: tables name recordings, and none has the column; or a split is asked for by a column that text files
            have not.
    """
    sounds = sounds_of(files)
    spoken = find_spoken(files, sounds) if column in {None, COLUMN, 2} else None
    if spoken is None:
        answer = Answer(column, TRANSCRIPT_NAMES, guessed=False)
        return find_manifest(files, sounds, asked, what=SOUNDS.what, answer=answer)
    if asked.together is not None:
        raise DataError(
            f"data.split goes by {asked.together!r}, and '{spoken.files[0].name}' tells transcripts alone",
            mend="Set data.names, such as '{speaker}-{chapter}-{index}', and split by one of its fields.",
        )
    return spoken


def sounds_of(files: Sequence[InputFile]) -> list[InputFile]:
    """Return those files that are recordings, by their names."""
    return [file for file in files if file.suffix in SOUND_SUFFIXES]


def check_labelled(data: AudioData, files: Sequence[InputFile], rejects: Sequence[Reject]) -> None:
    """Check that recordings without a table have labels: in their names, or by their folders.

    Raises:
        DataError: they have not, or there are none.
    """
    sounds = sounds_of(files)
    if not sounds:
        raise DataError(
            f"'{data.path}' holds no recordings ({len(files):,} other files in it)",
            mend=f"Recordings end in {', '.join(sorted(SOUND_SUFFIXES))}.",
        )
    if data.transcript is not None or data.label is not None:
        column = data.transcript if data.transcript is not None else data.label
        raise DataError(
            f"no table in '{data.path}' names its recordings, and column {column!r} of one is asked for",
            mend="A row of a TSV, CSV, JSONL or Parquet file holds a recording's file name and what it is; or, as in "
            "LibriSpeech, a line of a .trans.txt file what is said.",
        )
    if data.names is None:
        check_class_folders(data.path, {file.name for file in files} | {reject.name for reject in rejects}, SOUNDS)
    elif not any(read_name(data.names, file.name) for file in sounds):
        raise DataError(
            f"no recording in '{data.path}' is named like '{data.names}'; one is '{sounds[0].name}'",
            mend="Set data.names to how they are named, without the suffix.",
        )
