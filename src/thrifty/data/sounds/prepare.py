"""Recordings into a store: decode, make frames, drop copies, split, and measure mean and deviation.

Frames are written as they are made to a scratch file in the draft, then copied into the splits, because which split a
recording goes to is known only when all have been heard. Memory holds one chunk of them.

Shapes: T frames, M numbers of a frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from thrifty.data.copies import deal, deal_together, find_copies, not_given, reject_copies
from thrifty.data.draft import Draft
from thrifty.data.inputs import DUPLICATE, Reject, cleaned, count_reasons, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.labels import in_order
from thrifty.data.sounds.hearing import FRAME_TYPE, Heard, decide_sound, hear_all
from thrifty.data.sounds.recordings import recordings_of
from thrifty.data.sounds.sound import SOUNDS
from thrifty.data.sounds.vocabulary import decide_symbols, numbered, read_symbols, reject_unsayable
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, AudioData, Dataset, Sound
from thrifty.spec.events import Emit
from thrifty.spec.transcripts import pieces

ONLY_HELD_OUT = "label not in the training split"
# recordings whose frames are copied at a time, and frames that are summed
_AT_ONCE, _BLOCK = 64, 8192


def prepare_audio(data: AudioData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the frames, answers and rejects of a data set of recordings into a draft; return what it holds.

    Arrays of each split: ``frames`` float16 [T, M], all recordings end to end; ``starts`` int64 [N + 1], where each
    begins and the last ends; ``y`` int64, its label [N], or the tokens of transcripts end to end, and then ``y_starts``
    int64 [N + 1].

    Raises:
        DataError: no recording can be read, or there is nothing to tell apart.
        StorageError: the cache has no room.
    """
    recordings = recordings_of(data, inventory)
    sound, notes = decide_sound(data, recordings, inventory, seed)
    scratch = draft.folder / "scratch"
    heard, rejects = hear_all(data, recordings, inventory, sound, seed, scratch, emit)
    kept, mislabelled, copies = find_copies(heard, SOUNDS.what)
    keys = {each.file.name: each.key for each in recordings} if data.split.together is not None else {}
    rejected = [*inventory.rejects, *rejects, *mislabelled]
    kept, splits, unanswered, labels = _answered(data, inventory, sound, kept, keys, seed, rejected, notes)
    rejects = [*rejected, *unanswered]
    still = {each.name for each in kept}
    rejects += reject_copies([pair for pair in copies if pair[1].name in still], kept, splits, keys)
    rejects += [Reject(copy.name, DUPLICATE, f": {first.name}") for copy, first in copies if first.name not in still]

    frames = np.asarray(np.load(scratch, mmap_mode="r"))
    draft.reserve(frames.nbytes)
    ends = accumulate(each.count for each in heard)
    where = {each.name: slice(end - each.count, end) for each, end in zip(heard, ends, strict=True)}
    parts = {part: [each for each in kept if splits[each.name] == part] for part in SPLITS}
    for part, some in parts.items():
        _write_frames(draft, part, [frames[where[each.name]] for each in some])
        _write_answers(draft, part, some, data, labels)
    mean, std = ((), ()) if sound.is_wave else _statistics(draft.array("train", "frames"))
    del frames
    scratch.unlink()
    draft.write("names.json", json.dumps({part: [each.name for each in some] for part, some in parts.items()}))

    rejects.sort(key=lambda reject: reject.name)
    draft.write("rejects.jsonl", reject_lines(rejects))
    reasons = count_reasons(rejects)
    longest = max(each.count for each in kept)
    longest = -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    return Dataset(
        kind="audio",
        task=data.task,
        key=inventory.key,
        counts={part: len(each) for part, each in parts.items()},
        labels=labels,
        label_counts=_label_counts(data, parts["train"], labels),
        shape=(longest, sound.width),
        mean=mean,
        std=std,
        crop="none",
        vocabulary=len(labels) + 1 if data.transcript is not None else 0,
        tokens={part: sum(each.count for each in some) for part, some in parts.items()},
        text_bytes={},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=cleaned(len(kept), reasons, (*_said(data, inventory), *notes, *_notes(sound, kept, reasons))),
        lengths={part: _histogram([each.count for each in some], longest) for part, some in parts.items()},
        sound=sound,
    )


def _answered(
    data: AudioData,
    inventory: Inventory,
    sound: Sound,
    kept: Sequence[Heard],
    keys: Mapping[str, str],
    seed: int,
    rejected: Sequence[Reject],
    notes: list[str],
) -> tuple[list[Heard], dict[str, str], list[Reject], tuple[str, ...]]:
    """Deal the splits; return what can be learned of, its splits, the rest, and the labels or symbols."""
    missing = not_given(kept)
    if missing and any(each.split for each in kept):
        notes.append(f"nothing says which are for {' and '.join(missing)}: dealt from the training recordings")
    if data.transcript is None:
        return _classes(data, kept, keys, seed, rejected)
    # dealt regardless of what is said
    splits = _dealt(data, [replace(each, label="") for each in kept], ("",), keys, seed)
    trained = [each.label for each in kept if splits[each.name] == "train"]
    given = read_symbols(inventory.tokenizer, data.tokenizer.name, notes) if data.tokenizer is not None else None
    symbols = given or decide_symbols(trained, data.tokens, notes)
    sayable, unsayable = reject_unsayable(kept, symbols, sound)
    _check_parts(data, [splits[each.name] for each in sayable])
    return sayable, splits, unsayable, symbols


def _dealt(
    data: AudioData, kept: Sequence[Heard], labels: tuple[str, ...], keys: Mapping[str, str], seed: int
) -> dict[str, str]:
    if keys:
        return deal_together(data, kept, labels, keys, seed, SOUNDS.what)
    return deal(data, kept, labels, {}, SOUNDS.what)


def _classes(
    data: AudioData, kept: Sequence[Heard], keys: Mapping[str, str], seed: int, rejected: Sequence[Reject]
) -> tuple[list[Heard], dict[str, str], list[Reject], tuple[str, ...]]:
    given = {each.label for each in kept if each.split in {"", "train"}}
    odd = [Reject(each.name, ONLY_HELD_OUT, f": {each.label[:50]}") for each in kept if each.label not in given]
    kept = [each for each in kept if each.label in given]
    labels = in_order(given)
    if len(labels) < 2:
        found = f"one label only, '{labels[0]}'" if labels else "no labels"
        aside = "".join(f"; {count} {reason}" for reason, count in count_reasons(rejected).items())
        raise DataError(
            f"the training recordings of '{data.path}' have {found}: there is nothing to tell apart{aside}",
            mend="Labels are told by folders, by a table, or by data.names.",
        )
    splits = _dealt(data, kept, labels, keys, seed)
    _check_parts(data, list(splits.values()))
    return kept, splits, odd, labels


def _check_parts(data: AudioData, found: Sequence[str]) -> None:
    for part in SPLITS:
        if part not in found:
            raise DataError(
                f"no recording of '{data.path}' is left for the {part} split", mend="Hold out fewer, or others."
            )


def _write_frames(draft: Draft, part: str, recordings: Sequence[np.ndarray]) -> None:
    with draft.rows(part, "frames", FRAME_TYPE, recordings[0].shape[1:]) as file:
        for start in range(0, len(recordings), _AT_ONCE):
            file.append(np.concatenate(recordings[start : start + _AT_ONCE]))


def _write_answers(draft: Draft, part: str, heard: Sequence[Heard], data: AudioData, labels: tuple[str, ...]) -> None:
    columns = {"starts": _starts([each.count for each in heard])}
    if data.transcript is None:
        number = {label: place for place, label in enumerate(labels)}
        columns["y"] = np.array([number[each.label] for each in heard], np.int64)
    else:
        said = [numbered(each.label, labels) for each in heard]
        columns["y"] = np.array([token for tokens in said for token in tokens], np.int64)
        columns["y_starts"] = _starts([len(tokens) for tokens in said])
    for name, column in columns.items():
        with draft.rows(part, name, column.dtype, ()) as file:
            file.append(column)


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _statistics(frames: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each number of a frame, in float64, block after block."""
    total, squares = np.zeros(frames.shape[1]), np.zeros(frames.shape[1])
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK].astype(np.float64)
        total += block.sum(0)
        squares += np.square(block).sum(0)
    mean = total / len(frames)
    # a number that never changes has nothing to scale
    deviation = np.sqrt(np.maximum(squares / len(frames) - np.square(mean), 0.0))
    return tuple(mean.tolist()), tuple(np.where(deviation > 1e-3, deviation, 1.0).tolist())


def _label_counts(data: AudioData, trained: Sequence[Heard], labels: Sequence[str]) -> dict[str, int]:
    if data.transcript is not None:
        counts = Counter(piece for each in trained for piece in pieces(each.label, labels))
    else:
        counts = Counter(each.label for each in trained)
    return {label: counts[label] for label in labels}


def _histogram(lengths: Sequence[int], longest: int) -> tuple[int, ...]:
    places = (np.asarray(lengths) - 1) // LENGTH_MULTIPLE
    return tuple(np.bincount(places, minlength=longest // LENGTH_MULTIPLE).tolist())


def _said(data: AudioData, inventory: Inventory) -> tuple[str, ...]:
    if inventory.manifest is not None:
        return (inventory.manifest.says,)
    return (f"labels are told by file names: {data.names}",) if data.names else ()


def _notes(sound: Sound, kept: Sequence[Heard], reasons: Mapping[str, int]) -> list[str]:
    seconds = [each.seconds for each in kept]
    notes = [f"{sum(seconds) / 3600:.2f} hours of sound, {min(seconds):.2f} to {max(seconds):.2f} s a recording"]
    changed = sum(each.rate != sound.rate for each in kept)
    if changed:
        notes.append(f"{changed:,} recordings of other rates were brought to {sound.rate:,} samples a second")
    doubtful = [reason for reason in reasons if reason.startswith(f"same {SOUNDS.what} under labels ")]
    notes += [f"{reason[:200]}: {reasons[reason]} files, all put aside" for reason in doubtful]
    return notes
