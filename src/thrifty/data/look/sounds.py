"""Recognise recordings: in class folders, named by a table, or named after what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from thrifty.data.inputs import InputFile
from thrifty.data.labels import folders_of
from thrifty.data.look.found import MEND, Look, Seen, job_name, shares, shown
from thrifty.data.look.language import TEXT_SUFFIXES
from thrifty.data.manifest import Manifest, find_manifest
from thrifty.data.sounds.labelled import transcripts_of
from thrifty.data.sounds.sound import SOUND_SUFFIXES, SOUNDS, Limits, read_sound
from thrifty.data.split import SPLIT_NAMES
from thrifty.errors import DataError
from thrifty.spec import SPLITS
from thrifty.spec.file_names import read_name

SHOWN_RECORDINGS = 64
# from so many recordings, or for transcripts, the larger model is the better buy
RECORDINGS_FOR_MINI = 20_000
# a part of a file's name is a label where files share it in the mean at least so often
LEAST_SHARED = 5
_ANY_LENGTH = Limits(0.0, 3600.0)


def recordings(seen: Seen) -> Look | None:
    """Recordings with labels or transcripts."""
    sounds = [file for file in seen.files if file.suffix in SOUND_SUFFIXES]
    texts = sum(file.suffix in TEXT_SUFFIXES for file in seen.files)
    if seen.path.is_file() or not sounds or len(sounds) < texts:
        return None
    return _transcribed(seen, sounds) or _labelled(seen, sounds) or _in_folders(seen, sounds) or _named(seen, sounds)


def _transcribed(seen: Seen, sounds: list[InputFile]) -> Look | None:
    manifest = transcripts_of(seen.files)
    if manifest is None:
        return None
    words = Counter(word for each in manifest.named.values() for word in each.label.lower().split())
    said = f"{words.total():,} words, {len(words):,} different{_parts(manifest)}, as {manifest.source}"
    found = _look(seen, [file for file in sounds if file.name in manifest.named], said, "speech-mini")
    found.job["data"]["transcript"] = manifest.label
    why = f"{manifest.says}; what is said is learned, letter by letter or word by word"
    return Look(found.kind, found.says, found.job, {"data.transcript": why, **found.why})


def _labelled(seen: Seen, sounds: list[InputFile]) -> Look | None:
    manifest = find_manifest(seen.files, sounds, what=SOUNDS.what)
    if manifest is None:
        return None
    counts = Counter(each.label for each in manifest.named.values())
    chosen = [file for file in sounds if file.name in manifest.named]
    held = f"{len(counts)} labels ({shares(counts)}){_parts(manifest)}, as {manifest.source}"
    found = _look(seen, chosen, held)
    return Look(found.kind, found.says, found.job, {"data": manifest.says, **found.why})


def _parts(manifest: Manifest) -> str:
    """How many recordings each split is given."""
    given = Counter(each.split for each in manifest.named.values())
    return "".join(f", {part} {given[part]:,}" for part in SPLITS if given[part])


def _in_folders(seen: Seen, sounds: list[InputFile]) -> Look | None:
    folders = folders_of((file.name for file in sounds), SOUND_SUFFIXES)
    counts = Counter(label for file in sounds if (label := folders.label(file.name)))
    return _look(seen, sounds, f"{len(counts)} labels ({shares(counts)})") if len(counts) > 1 else None


def _named(seen: Seen, sounds: list[InputFile]) -> Look:
    pattern, why = _pattern(sounds)
    if not pattern:
        raise DataError(
            f"'{seen.path}' holds {len(sounds):,} recordings and nothing says what they are: neither folders, nor a "
            f"table, nor names such as '{sounds[0].name}'",
            mend="Put them into folders by label, or beside a table of their names and labels, or set data.names.",
        )
    fields = (read_name(pattern, file.name) for file in sounds)
    counts = Counter(each["label"] for each in fields if each)
    found = _look(seen, sounds, f"{len(counts)} labels ({shares(counts)})")
    found.job["data"]["names"] = pattern
    return Look(found.kind, found.says, found.job, {"data.names": why, **found.why})


def _pattern(sounds: Sequence[InputFile]) -> tuple[str, str]:
    """Guess what the parts of file names are, split by ``_`` or ``-``; nothing where they have no parts in common.

    The first part that has several values, each of several files, is the label, because names begin with what is in a
    file; a later such part is a ``group``, such as the speaker; a part with a value of its own for each of the others'
    is an ``index``.
    """
    stems = [PurePosixPath(file.name).stem for file in sounds]
    for mark in "_-":
        parts = [stem.split(mark) for stem in stems]
        width = len(parts[0])
        if width < 2 or any(len(each) != width for each in parts):
            continue
        values = [Counter(column) for column in zip(*parts, strict=True)]
        label = next((at for at, each in enumerate(values) if _is_label(each, len(stems))), None)
        if label is None:
            continue
        names = ["label" if at == label else _field_name(each, len(stems)) for at, each in enumerate(values)]
        # the second group is group2
        names = [name + str(names[:at].count(name) + 1) * (name in names[:at]) for at, name in enumerate(names)]
        pattern = mark.join(f"{{{name}}}" for name in names)
        held = ", ".join(f"{name} {len(each):,} values" for name, each in zip(names, values, strict=True))
        return pattern, f"names such as '{stems[0]}', the label their first part that many share: {held}"
    return "", ""


def _is_label(values: Counter[str], files: int) -> bool:
    return len(values) > 1 and files / len(values) >= LEAST_SHARED and not _are_splits(values)


def _are_splits(values: Counter[str]) -> bool:
    return {value.lower() for value in values} <= set(SPLIT_NAMES)


def _field_name(values: Counter[str], files: int) -> str:
    if _are_splits(values):
        return "split"
    counted = all(value.isdecimal() for value in values) and len(values) > 1
    return "index" if counted or files / len(values) < LEAST_SHARED else "group"


def _look(seen: Seen, sounds: Sequence[InputFile], held: str, model: str = "") -> Look:
    seconds, rates = _sampled(sounds)
    if not seconds:
        raise DataError(
            f"none of {min(len(sounds), SHOWN_RECORDINGS)} recordings looked at in '{seen.path}' can be read", mend=MEND
        )
    spread = f"{min(seconds):.1f} to {max(seconds):.1f} s, {median(seconds):.1f} s in the middle"
    rate = " and ".join(f"{each:,}" for each in sorted(rates))
    says = f"{shown(seen.path)}: {len(sounds):,} recordings, {held}, {spread}, {rate} samples a second"
    why = {"model": "for transcripts; speech-tiny hears too little of what stands around a sound"}
    if not model:
        model = "speech-mini" if len(sounds) >= RECORDINGS_FOR_MINI else "speech-tiny"
        why = {"model": f"by the number of recordings, {len(sounds):,}; speech-mini from {RECORDINGS_FOR_MINI:,} on"}
    data: dict[str, Any] = {"kind": "audio", "path": str(seen.path)}
    return Look("audio", says, {"name": job_name(seen.path), "data": data, "model": model}, why)


def _sampled(sounds: Sequence[InputFile]) -> tuple[list[float], Counter[int]]:
    """Seconds of some recordings spread over the folder, and their rates."""
    seconds, rates = [], Counter[int]()
    for file in sounds[:: -(-len(sounds) // SHOWN_RECORDINGS)]:
        try:
            samples, rate = read_sound(Path(file.path).read_bytes(), _ANY_LENGTH)
        except (DataError, OSError):
            continue
        seconds.append(len(samples) / rate)
        rates[rate] += 1
    return seconds, rates
