"""Samples of a store as a batch, by the kind of data.

Shapes: b samples of a micro-batch, C channels, H, W pixels, T tokens of a window or of the longest text in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thrifty.data.answers import shares_of
from thrifty.data.documents.tokenizer import IGNORED_TARGET
from thrifty.data.images.augment import Augmentation
from thrifty.data.images.growth import shrunk
from thrifty.data.images.image import normalise
from thrifty.data.images.mixing import Mixing
from thrifty.data.sounds.augment import SoundAugmentation
from thrifty.data.sounds.frames import filled_up, normalised, padded_frames
from thrifty.data.store import Store
from thrifty.data.texts.hiding import Hiding
from thrifty.data.texts.packing import pack, places_of
from thrifty.data.texts.word_pieces import PAD_ID, padded_length
from thrifty.spec import KINDS, KindName

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Turn:
    """What differs from one epoch to another.

    Attributes:
        shift: tokens by which windows of a stream begin later.
        augmentation: how images or recordings are changed.
        mixing: how they are mixed with others.
        side: that images are brought to; as they were prepared where left out.
        salt: by which words are hidden.
    """

    shift: int = 0
    augmentation: Augmentation | SoundAugmentation | None = None
    mixing: Mixing | None = None
    side: int | None = None
    salt: int = 0


AS_PREPARED = Turn()


def take(store: Store, split: str, chosen: np.ndarray, turn: Turn = AS_PREPARED) -> Batch:
    """Make a batch of chosen samples [b] of a split, as `thrifty.data.batches.Batches.step` describes it."""
    return TAKERS[store.dataset.kind](store, split, chosen, turn)


def lengths_of(store: Store, split: str) -> np.ndarray | None:
    """Return the length of each sample, such as a text's tokens; None for data whose samples are all of one size."""
    return np.diff(np.asarray(store.array(split, "starts"))) if KINDS[store.dataset.kind].varies else None


def _images(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    dataset, labels = store.dataset, np.asarray(store.array(split, "y"))

    def pixels(wanted: np.ndarray) -> np.ndarray:
        images = store.array(split, "x").take(wanted, axis=0)
        return turn.augmentation(images, wanted) if isinstance(turn.augmentation, Augmentation) else images

    images, y_b, answers = pixels(chosen), labels[chosen], {}
    if turn.mixing is not None:
        others = turn.mixing.others(chosen)
        images, own_b = turn.mixing(images, pixels(others), chosen)
        answers = {"answers": shares_of(y_b, len(dataset.labels), labels[others], own_b)}
    images = images if turn.side is None else shrunk(images, turn.side)
    return {"x": normalise(images, dataset.mean, dataset.std), "y": y_b, **answers}


def _recordings(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    changes = turn.augmentation if isinstance(turn.augmentation, SoundAugmentation) else None
    starts, frames, y = (np.asarray(store.array(split, name)) for name in ("starts", "frames", "y"))
    recordings = [frames[starts[sample] : starts[sample + 1]].astype(np.float32) for sample in chosen.tolist()]
    if changes is not None:
        recordings = [changes.change(own, sample) for own, sample in zip(recordings, chosen.tolist(), strict=True)]
    recordings = [normalised(each, store.dataset) for each in recordings]
    if changes is not None:
        for own, sample in zip(recordings, chosen.tolist(), strict=True):
            changes.blank(own, sample)
    x = padded_frames(recordings, store.dataset.shape[0])
    if store.dataset.task == "classify":
        return {"x": x, "y": y[chosen]}
    ends = np.asarray(store.array(split, "y_starts"))
    return {"x": x, "y": filled_up([y[ends[sample] : ends[sample + 1]] for sample in chosen.tolist()])}


def _texts(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    if store.dataset.task == "mask":
        return _hidden(store, split, chosen, turn)
    labels = np.asarray(store.array(split, "y")[chosen])
    told = labels.astype(np.float32) if store.dataset.task == "tag" else labels
    return {"x": _padded(store, split, chosen, store.dataset.shape[0]), "y": told}


def _rows(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    return {name: store.array(split, name).take(chosen, axis=0) for name in ("x", "y")}


def _hidden(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    x_L, y_L, lengths_b = _told(store, split, chosen, turn)
    real_bT = np.arange(padded_length(int(lengths_b.max()), store.dataset.shape[0])) < lengths_b[:, None]
    x_bT, y_bT = np.full(real_bT.shape, PAD_ID, np.int64), np.full(real_bT.shape, IGNORED_TARGET, np.int64)
    x_bT[real_bT], y_bT[real_bT] = x_L, y_L
    return {"x": x_bT, "y": y_bT}


def _told(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts end to end with words hidden, int64 [L], what is to be told, int64 [L], and the length of each, [b]."""
    starts = np.asarray(store.array(split, "starts"))
    lengths_b = starts[chosen + 1] - starts[chosen]
    begins_b = np.cumsum(lengths_b) - lengths_b
    places_L = np.repeat(starts[chosen] - begins_b, lengths_b) + np.arange(lengths_b.sum())
    hiding = Hiding(store.dataset.marks, store.dataset.vocabulary, turn.salt)
    x_L, y_L = hiding(np.asarray(store.array(split, "tokens"))[places_L], places_L, begins_b)
    return x_L, y_L, lengths_b


def _windows_of(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    return _windows(store.array(split, "tokens"), store.dataset.shape[0], chosen, turn.shift)


TAKERS: dict[KindName, Callable[[Store, str, np.ndarray, Turn], Batch]] = {
    "audio": _recordings,
    "image": _images,
    "language": _windows_of,
    "table": _rows,
    "text": _texts,
}


def _padded(store: Store, split: str, chosen: np.ndarray, most: int) -> np.ndarray:
    """Put texts under each other, filled up to the longest."""
    starts, tokens = (np.asarray(store.array(split, name)) for name in ("starts", "tokens"))
    begins_b = starts[chosen]
    lengths_b = starts[chosen + 1] - begins_b
    place_T = np.arange(padded_length(int(lengths_b.max()), most))
    real_bT = place_T < lengths_b[:, None]
    x_bT = np.full(real_bT.shape, PAD_ID, np.int64)
    x_bT[real_bT] = tokens[(begins_b[:, None] + place_T)[real_bT]]
    return x_bT


def packed(store: Store, split: str, chosen: np.ndarray, turn: Turn = AS_PREPARED) -> Batch:
    """Put texts end to end, from short to long; or windows, as they come, with the places of their documents."""
    if store.dataset.kind == "language":
        return apart(_windows_of(store, split, chosen, turn), store.dataset.end)
    if store.dataset.task == "mask":
        return _packed_hidden(store, split, chosen, turn)
    begins, tokens, labels = (np.asarray(store.array(split, name)) for name in ("starts", "tokens", "y"))
    order, lengths = pack(begins[chosen + 1] - begins[chosen])
    x_T = np.full(int(lengths.sum()), PAD_ID, np.int64)
    several = store.dataset.task == "tag"
    y = np.full((len(order), *labels.shape[1:]), *((np.nan, np.float32) if several else (IGNORED_TARGET, np.int64)))
    for at, (number, end, length) in enumerate(zip(order, np.cumsum(lengths), lengths, strict=True)):
        if number < len(chosen):
            begin = begins[chosen[number]]
            x_T[end - length : end] = tokens[begin : begin + length]
            y[at] = labels[chosen[number]]
    return {"x": x_T[None], "y": y, **places_of(lengths)}


def apart(windows: Batch, end: int) -> Batch:
    """Lay windows [b, T] end to end, [1, b T], and tell their documents, each of which begins with the end token.

    So its first token is asked for by the end token alone, and the end token by what it ends.

    >>> x = np.array([[5, 0, 6, 7]])
    >>> apart({"x": x, "y": np.array([[0, 6, 7, 8]])}, end=0)["places0"].tolist()
    [[0, 4, 4, 4, 4, 4, 4, 4], [1, 2, 3, 4, 4, 4, 4, 4]]
    """
    x_bT, y_bT = windows["x"], windows["y"]
    # what fills the last window up is no document
    begins_bT = (x_bT == end) & (y_bT != IGNORED_TARGET)
    begins_bT[:, 0] = True
    starts_N = np.flatnonzero(begins_bT)
    return {"x": x_bT.reshape(1, -1), "y": y_bT.reshape(1, -1), **places_of(np.diff(starts_N, append=x_bT.size))}


def _packed_hidden(store: Store, split: str, chosen: np.ndarray, turn: Turn) -> Batch:
    starts = np.asarray(store.array(split, "starts"))
    order, lengths = pack(starts[chosen + 1] - starts[chosen])
    real = chosen[order[order < len(chosen)]]
    x_T = np.full(int(lengths.sum()), PAD_ID, np.int64)
    y_T = np.full(len(x_T), IGNORED_TARGET, np.int64)
    x_L, y_L, _ = _told(store, split, real, turn)
    # what fills the row up lies where its length puts it
    within_T = np.repeat(order < len(chosen), lengths)
    x_T[within_T], y_T[within_T] = x_L, y_L
    return {"x": x_T[None], "y": y_T[None], **places_of(lengths)}


def _windows(stream: np.ndarray, length: int, chosen: np.ndarray, shift: int) -> Batch:
    """Cut windows of ``length`` predicted tokens out of a stream that is taken as a ring, from ``shift`` on."""
    predicted = len(stream) - 1
    offset_bT = chosen[:, None] * length + np.arange(length)
    place_bT = (offset_bT + shift) % predicted
    # what lies beyond one turn of the ring was predicted by the first window
    beyond_bT = offset_bT >= predicted
    x_bT = stream[place_bT].astype(np.int64)
    y_bT = stream[place_bT + 1].astype(np.int64)
    x_bT[beyond_bT] = PAD_ID
    y_bT[beyond_bT] = IGNORED_TARGET
    return {"x": x_bT, "y": y_bT}
