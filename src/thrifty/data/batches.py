"""Batches from a store, in an order that seed and epoch alone decide; any step can be had directly.

Shapes: b samples of a micro-batch, C channels, H, W pixels, T tokens of a window or of the longest text in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from thrifty.data.answers import shares_of, smoothed
from thrifty.data.documents.tokenizer import IGNORED_TARGET
from thrifty.data.images.augment import Augmentation
from thrifty.data.images.mixing import Mixing
from thrifty.data.order import WINDOW_STEPS, deal, generator_of, order_of
from thrifty.data.samples import Batch, Turn, lengths_of, packed, take
from thrifty.data.sounds.augment import SoundAugmentation
from thrifty.data.store import Store
from thrifty.spec import Augment, Batching

AS_THEY_ARE = Augment()
# the stream of random numbers by which words are hidden
HIDES = 3


class Batches:
    """The steps of training over one split.

    Every sample comes once in each epoch; the last step of an epoch holds what is left. A language model's windows
    begin at another random place of the stream in each epoch and go round its end, so each token is predicted once
    an epoch too; the one window that is short is filled up with targets of -100.

    Texts of a micro-batch are filled up with 0 to the longest of them. Those of a step that is cut are dealt to its
    micro-batches by length; by the way of batching, those of like length make a step, which saves more, or those of a
    micro-batch lie end to end in one row, which saves all padding but a little in attention.

    Args:
        store: prepared data.
        split: which part of it.
        batch: samples of a step.
        micro: samples computed at once, at most; a step is cut into as few micro-batches as that allows, as equal as
            can be, so that none is left with a lone sample, of which batch norm can take no statistics.
        seed: of the order.
        batching: of texts, how steps are made up; of windows ``packed`` tells their documents apart.
        rank, ranks: whose share of each step's micro-batches is wanted, and among how many.
        along: a rank gets as many micro-batches as the others: where it has no sample of its own, one without answers.
        augment: how images or recordings are changed.
        label_smoothing: share of every answer that all classes have alike.
        side_at: the side of images by the step; as prepared when left out.

    Attributes:
        steps_per_epoch: steps that one pass over the split takes.
    """

    def __init__(
        self,
        store: Store,
        *,
        split: str = "train",
        batch: int,
        micro: int,
        seed: int,
        batching: Batching = "padded",
        rank: int = 0,
        ranks: int = 1,
        along: bool = False,
        augment: Augment = AS_THEY_ARE,
        label_smoothing: float = 0.0,
        side_at: Callable[[int], int] | None = None,
    ) -> None:
        assert batch >= 1
        assert micro >= 1
        assert 0 <= rank < ranks
        self.rank, self.ranks, self.along = rank, ranks, along
        self._store, self._split = store, split
        self.batch, self.micro, self.seed = batch, micro, seed
        self.count = store.dataset.counts[split]
        self.batching = batching
        self._lengths = lengths_of(store, split)
        apart = batching == "packed" and store.dataset.kind == "language"
        assert batching == "padded" or apart or self._lengths is not None, "samples without lengths"
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._shift, self._salt = 0, 0
        self.steps_per_epoch = -(-self.count // self.batch)
        self._augmentation: Augmentation | SoundAugmentation | None = None
        self._mixing = Mixing(augment, count=self.count, seed=seed) if augment.mixes else None
        self._smoothing = label_smoothing
        self._side_at, self._side = side_at, None if side_at is None else side_at(0)
        if augment != AS_THEY_ARE:
            self._augmentation = _augmentation(augment, store, count=self.count, seed=seed)

    def samples(self, step: int) -> int:
        """Return how many samples a step holds: ``batch``, or what is left at the end of an epoch."""
        return min(self.batch, self.count - step % self.steps_per_epoch * self.batch)

    def step(self, index: int) -> list[Batch]:
        """Return the micro-batches of a step, counted from 0 over all epochs.

        Images: ``x`` float32 [b, C, H, W] normalised, changed by ``augment``, ``y`` int64 [b]. Texts: ``x`` int64
        [b, T], ``y`` int64 [b]; packed ``x`` int64 [1, T], which texts of label -100 fill up, ``y`` int64 of all of
        them, as they lie, and their places by groups, as `thrifty.data.texts.packing.places_of` has them. Of several
        labels ``y`` is float32 [b, K], 1 for each that a text has, NaN of those that fill a row up. Where words are
        hidden: ``y`` int64 of the shape of ``x``, the word where one is asked for and -100 elsewhere.
        Recordings: ``x`` float32 [b, T, M] normalised, changed by ``augment``, filled up with -100, ``y`` int64 [b], or
        of transcripts their tokens [b, L], filled up with -100.
        Rows of tables: ``x`` float32 [b, F], ``y`` int64 [b] or float32 [b]. Language: ``x`` and ``y`` int64 [b, T],
        where ``y`` is the token after each of ``x``; packed, both [1, b T] with the places of documents. Where a class
        is not the whole answer, ``answers`` has the share of each, as `thrifty.data.answers.shares_of` has them.
        """
        epoch, place = divmod(index, self.steps_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        if self._side_at is not None:
            self._side = self._side_at(index)
        chosen = self._order[place * self.batch : (place + 1) * self.batch]
        parts = deal(chosen, self.micro, self._lengths, self.ranks)[self.rank :: self.ranks]
        return [
            self._made(part) if len(part) else _unanswered(self._made(chosen[:1]))
            for part in parts
            if self.along or len(part)
        ]

    def _made(self, part: np.ndarray) -> Batch:
        if self.batching == "packed":
            batch = packed(self._store, self._split, part, self._turn())
        else:
            batch = take(self._store, self._split, part, self._turn())
        if self._smoothing:
            sure = batch["answers"] if "answers" in batch else shares_of(batch["y"], len(self._store.dataset.labels))
            batch["answers"] = smoothed(sure, self._smoothing)
        return batch

    def _turn(self) -> Turn:
        return Turn(self._shift, self._augmentation, self._mixing, self._side, self._salt)

    def typical_steps(self) -> list[int]:
        """Return the steps of the first window; of texts those first that compute nearly the mean of tokens."""
        steps = range(min(WINDOW_STEPS, self.steps_per_epoch))
        if self._lengths is None:
            return list(steps)
        self._shuffle(0)
        sizes = [self._tokens(step) for step in steps]
        mean = sum(sizes) / len(sizes)
        return sorted(steps, key=lambda step: abs(sizes[step] - mean))

    def _tokens(self, place: int) -> int:
        assert self._lengths is not None
        parts = deal(self._order[place * self.batch : (place + 1) * self.batch], self.micro, self._lengths)
        if self.batching == "packed":
            return sum(int(self._lengths[part].sum()) for part in parts)
        return sum(len(part) * int(self._lengths[part].max()) for part in parts)

    def _shuffle(self, epoch: int) -> None:
        generator = generator_of(self.seed, epoch)
        dataset = self._store.dataset
        # a stream of text begins elsewhere in each epoch
        self._shift = int(generator.integers(dataset.tokens[self._split])) if dataset.kind == "language" else 0
        self._order = order_of(generator, self.count, batch=self.batch, batching=self.batching, lengths=self._lengths)
        if self._augmentation is not None:
            self._augmentation.begin(epoch)
        if self._mixing is not None:
            self._mixing.begin(epoch)
        self._salt = int(generator_of(self.seed, epoch, HIDES).integers(2**63))
        self._epoch = epoch


def sweep(store: Store, split: str, micro: int, batching: Batching = "padded") -> Iterator[Batch]:
    """Go through a split once, in batches of ``micro`` samples or less: in order, texts from the longest on.

    Batches are as in `Batches.step`, and texts always padded. Every image or text, and every token to be predicted,
    comes exactly once.
    """
    made = packed if batching == "packed" and store.dataset.kind == "language" else take
    order = sweep_order(store, split)
    for start in range(0, len(order), micro):
        yield made(store, split, order[start : start + micro])


def sweep_order(store: Store, split: str) -> np.ndarray:
    """Return the samples of a split, int64 [N], in the order in which `sweep` takes them."""
    count, lengths = store.dataset.counts[split], lengths_of(store, split)
    # the longest first: what does not fit does so at once
    return np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")


def _augmentation(augment: Augment, store: Store, *, count: int, seed: int) -> Augmentation | SoundAugmentation:
    dataset = store.dataset
    assert dataset.kind in {"audio", "image"}, "augmentation of what is neither image nor recording"
    if dataset.kind == "audio":
        waves = dataset.sound is not None and dataset.sound.is_wave
        return SoundAugmentation(augment, longest=dataset.shape[0], seed=seed, waves=waves)
    return Augmentation(augment, mean=dataset.mean, count=count, seed=seed)


def _unanswered(batch: Batch) -> Batch:
    """The same inputs, of which no answer counts."""
    nothing = {name: np.zeros_like(batch[name]) for name in batch if name == "answers"}
    no_answer = IGNORED_TARGET if batch["y"].dtype.kind in "iu" else np.nan
    return {**batch, **nothing, "y": np.full_like(batch["y"], no_answer)}
