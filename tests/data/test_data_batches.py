"""Batches: every sample once an epoch, whatever the cut; any step directly; windows that go round."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data_folders import image_store, text_store, token_store
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data import Batches, Store, sweep
from thrifty.data.order import WINDOW_STEPS, window_steps
from thrifty.data.texts.packing import row_size
from thrifty.spec import LENGTH_MULTIPLE, Augment, Batching

FEW = st.integers(1, 40)
# lengths of the texts of some stores
SHELF = [tuple(np.random.default_rng(n).integers(2, 60, n).tolist()) for n in (1, 2, 3, 8, 13, 29, 50)]
SHELF.append((9,) * 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    # not in the time of a test
    for lengths in SHELF:
        texts(folder, lengths)
    return folder


@cache
def images(folder: Path, count: int) -> Store:
    return image_store(folder, count)


@cache
def tokens(folder: Path, count: int, length: int) -> Store:
    return token_store(folder, count, length)


def predicted(batch: dict[str, np.ndarray]) -> list[int]:
    """The tokens to be predicted; each must be the one after its input, or the end token's first follower."""
    x, y = batch["x"], batch["y"]
    real = y != -100
    assert (y[real] == x[real] + 1).all()
    assert (x[~real] == 0).all()
    return [int(token) for token in y[real]]


@given(
    count=FEW,
    batch=FEW,
    cuts=st.tuples(FEW, FEW),
    seed=st.integers(0, 99),
    step=st.integers(0, 200),
    ranks=st.integers(1, 3),
)
@pytest.mark.slow
def test_images_are_changed_alike_however_a_step_is_cut(
    folder: Path, count: int, batch: int, cuts: tuple[int, int], seed: int, step: int, ranks: int
) -> None:
    store = images(folder, count)
    augment = Augment(flip=True, crop=1, cutout=1, brightness=0.5, mixup=0.5, cutmix=1)

    def taken(micro: int, ranks: int) -> list[list[float]]:
        how = {"batch": batch, "micro": micro, "seed": seed, "ranks": ranks, "augment": augment, "label_smoothing": 0.1}
        parts = [part for rank in range(ranks) for part in Batches(store, rank=rank, **how).step(step)]
        return sorted(
            [*image.ravel().tolist(), *answer.tolist()]
            for part in parts
            for image, answer in zip(part["x"], part["answers"], strict=True)
        )

    assert taken(cuts[0], 1) == taken(cuts[1], ranks)


@given(count=FEW, batch=FEW, micro=FEW, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 5))
def test_every_image_once_an_epoch(folder: Path, count: int, batch: int, micro: int, seed: int, epoch: int) -> None:
    batches = Batches(images(folder, count), batch=batch, micro=micro, seed=seed)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen: list[int] = []
    for step in steps:
        parts = batches.step(step)
        sizes = [len(part["y"]) for part in parts]
        assert len(sizes) == -(-batches.samples(step) // micro)
        assert max(sizes) <= micro
        assert max(sizes) - min(sizes) <= 1
        labels = [int(label) for part in parts for label in part["y"]]
        assert len(labels) == batches.samples(step)
        assert len(labels) == batch or step == steps[-1]
        seen += labels
    assert sorted(seen) == list(range(count))


@given(count=FEW, batch=FEW, micro=FEW, other=FEW, seed=st.integers(0, 99), step=st.integers(0, 200))
def test_the_cut_into_micro_batches_changes_nothing(
    folder: Path, count: int, batch: int, micro: int, other: int, seed: int, step: int
) -> None:
    store = images(folder, count)
    one = Batches(store, batch=batch, micro=micro, seed=seed).step(step)
    two = Batches(store, batch=batch, micro=other, seed=seed).step(step)
    for name in ("x", "y"):
        assert np.array_equal(np.concatenate([b[name] for b in one]), np.concatenate([b[name] for b in two]))


@given(step=st.integers(0, 300), seed=st.integers(0, 99))
def test_any_step_can_be_had_directly(folder: Path, step: int, seed: int) -> None:
    store = tokens(folder, 100, 8)
    going = Batches(store, batch=4, micro=4, seed=seed)
    for index in range(max(0, step - 9), step):
        going.step(index)
    fresh = Batches(store, batch=4, micro=4, seed=seed)
    for one, two in zip(going.step(step), fresh.step(step), strict=True):
        assert np.array_equal(one["x"], two["x"])
        assert np.array_equal(one["y"], two["y"])


def test_the_order_follows_seed_and_epoch_alone(folder: Path) -> None:
    def order(seed: int, epoch: int, batch: int = 5) -> list[int]:
        batches = Batches(images(folder, 40), batch=batch, micro=5, seed=seed)
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        return [int(label) for step in steps for part in batches.step(step) for label in part["y"]]

    assert order(0, 0) == order(0, 0, batch=13)
    assert len({tuple(order(*place)) for place in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4


def test_image_batches_are_normalised(folder: Path) -> None:
    (batch,) = Batches(images(folder, 40), batch=3, micro=3, seed=0).step(0)
    assert batch["x"].dtype == np.float32
    assert batch["x"].shape == (3, 1, 2, 2)
    assert batch["y"].dtype == np.int64
    assert np.allclose(batch["x"][:, 0, 0, 0], (batch["y"] / 255 - 0.5) / 0.25, atol=1e-6)


@given(
    count=st.integers(1, 120), length=st.integers(1, 20), batch=FEW, micro=FEW,
    seed=st.integers(0, 999), epoch=st.integers(0, 3),
)  # fmt: skip
@pytest.mark.slow
def test_every_token_is_predicted_once_an_epoch(
    folder: Path, count: int, length: int, batch: int, micro: int, seed: int, epoch: int
) -> None:
    batches = Batches(tokens(folder, count, length), batch=batch, micro=micro, seed=seed)
    seen: list[int] = []
    for step in range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch):
        for part in batches.step(step):
            assert part["x"].shape == part["y"].shape == (len(part["x"]), length)
            assert part["x"].dtype == part["y"].dtype == np.int64
            seen += predicted(part)
    assert sorted(seen) == list(range(1, count + 1))


def test_windows_begin_elsewhere_in_each_epoch(folder: Path) -> None:
    batches = Batches(tokens(folder, 96, 8), batch=12, micro=12, seed=0)
    borders = {tuple(sorted(batches.step(epoch)[0]["x"][:, 0] % 8)) for epoch in range(10)}
    assert len(borders) > 3


@given(count=st.integers(1, 120), length=st.integers(1, 20), micro=FEW)
def test_a_sweep_meets_every_token_once_and_in_order(folder: Path, count: int, length: int, micro: int) -> None:
    found = list(sweep(tokens(folder, count, length), "validation", micro))
    assert all(len(batch["x"]) == micro for batch in found[:-1])
    assert [token for batch in found for token in predicted(batch)] == list(range(1, count + 1))


@given(count=FEW, micro=FEW)
def test_a_sweep_meets_every_image_once_and_in_order(folder: Path, count: int, micro: int) -> None:
    found = list(sweep(images(folder, count), "test", micro))
    assert np.concatenate([batch["y"] for batch in found]).tolist() == list(range(count))


LENGTHS = st.sampled_from(SHELF)
BATCHING = st.sampled_from(["padded", "by_length"])


@cache
def texts(folder: Path, lengths: tuple[int, ...]) -> Store:
    return text_store(folder, lengths)


def numbers(batch: dict[str, np.ndarray], lengths: tuple[int, ...]) -> list[int]:
    """The texts of a batch by their number; each must be whole, with its label, and filled up with 0 to the longest."""
    x_bT, found = batch["x"], []
    assert x_bT.dtype == batch["y"].dtype == np.int64
    for tokens, label in zip(x_bT, batch["y"], strict=True):
        number = int(tokens[0]) - 1
        length = lengths[number]
        assert (tokens[:length] == number + 1).all()
        assert (tokens[length:] == 0).all()
        assert label == number % 2
        found.append(number)
    longest = max(lengths[number] for number in found)
    assert 0 <= x_bT.shape[1] - longest < LENGTH_MULTIPLE
    assert x_bT.shape[1] % LENGTH_MULTIPLE == 0
    return found


@given(lengths=LENGTHS, batch=FEW, micro=FEW, batching=BATCHING, seed=st.integers(0, 999), epoch=st.integers(0, 3))
def test_every_text_once_an_epoch(
    folder: Path, lengths: tuple[int, ...], batch: int, micro: int, batching: Batching, seed: int, epoch: int
) -> None:
    store = texts(folder, lengths)
    batches = Batches(store, batch=batch, micro=micro, seed=seed, batching=batching)
    plain = Batches(store, batch=batch, micro=micro, seed=seed)
    assert batches.steps_per_epoch == plain.steps_per_epoch
    seen: list[int] = []
    for step in range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch):
        parts = batches.step(step)
        found = [numbers(part, lengths) for part in parts]
        assert [len(each) for each in found] == [len(part["y"]) for part in plain.step(step)]
        assert sum(map(len, found)) == batches.samples(step)
        # samples of like length are computed together
        ends = [(min(lengths[n] for n in each), max(lengths[n] for n in each)) for each in found]
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ends))
        seen += [number for each in found for number in each]
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths=LENGTHS, batch=FEW, micro=FEW, other=FEW, batching=BATCHING, step=st.integers(0, 99))
def test_the_cut_of_a_step_of_texts_changes_not_what_is_in_it(
    folder: Path, lengths: tuple[int, ...], batch: int, micro: int, other: int, batching: Batching, step: int
) -> None:
    def chosen(micro: int) -> list[int]:
        batches = Batches(texts(folder, lengths), batch=batch, micro=micro, seed=1, batching=batching)
        return sorted(number for part in batches.step(step) for number in numbers(part, lengths))

    assert chosen(micro) == chosen(other)


@given(lengths=LENGTHS, batch=FEW, batching=BATCHING, step=st.integers(0, 200), seed=st.integers(0, 99))
def test_any_step_of_texts_can_be_had_directly(
    folder: Path, lengths: tuple[int, ...], batch: int, batching: Batching, step: int, seed: int
) -> None:
    store = texts(folder, lengths)
    going = Batches(store, batch=batch, micro=3, seed=seed, batching=batching)
    for index in range(max(0, step - 9), step):
        going.step(index)
    fresh = Batches(store, batch=batch, micro=3, seed=seed, batching=batching)
    for one, two in zip(going.step(step), fresh.step(step), strict=True):
        assert np.array_equal(one["x"], two["x"])
        assert np.array_equal(one["y"], two["y"])


@pytest.fixture(scope="module")
def many(folder: Path) -> tuple[Store, tuple[int, ...]]:
    """Four windows and a half of steps of 4, and one text left over."""
    generator = np.random.default_rng(0)
    lengths = tuple(int(n) for n in generator.integers(2, 60, 4 * (4 * WINDOW_STEPS + WINDOW_STEPS // 2) + 1))
    return texts(folder, lengths), lengths


def steps_of(many: tuple[Store, tuple[int, ...]], batching: Batching, epoch: int, seed: int = 0) -> list[list[int]]:
    store, lengths = many
    batches = Batches(store, batch=4, micro=4, seed=seed, batching=batching)
    per_epoch = batches.steps_per_epoch
    return [numbers(batches.step(epoch * per_epoch + step)[0], lengths) for step in range(per_epoch)]


def test_steps_of_a_window_hold_texts_of_like_length(many: tuple[Store, tuple[int, ...]]) -> None:
    lengths = many[1]
    steps = steps_of(many, "by_length", 0)
    for start in range(0, len(steps) - 1, WINDOW_STEPS):
        window = steps[start : min(start + WINDOW_STEPS, len(steps) - 1)]
        ends = sorted((min(lengths[n] for n in step), max(lengths[n] for n in step)) for step in window)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ends))
        longest = [max(lengths[n] for n in step) for step in window]
        assert longest not in (sorted(longest), sorted(longest, reverse=True)), "the steps come in random order"


def test_windows_hold_the_samples_of_the_random_order(many: tuple[Store, tuple[int, ...]]) -> None:
    """A text is at most a window away from where it would have come, so learning sees nearly the same order."""
    random, grouped = steps_of(many, "padded", 1), steps_of(many, "by_length", 1)
    for start in range(0, len(random), WINDOW_STEPS):
        one, two = ({n for step in each[start : start + WINDOW_STEPS] for n in step} for each in (random, grouped))
        assert one == two
    assert random[-1] == grouped[-1], "the shorter last step is drawn at random"


def test_padding_is_saved(many: tuple[Store, tuple[int, ...]]) -> None:
    def padded(batching: Batching) -> int:
        return sum(max(many[1][n] for n in step) * len(step) for step in steps_of(many, batching, 0))

    assert padded("by_length") < 0.75 * padded("padded")


def test_epochs_and_seeds_have_their_own_order(many: tuple[Store, tuple[int, ...]]) -> None:
    orders = {str(steps_of(many, "by_length", *place)) for place in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(orders) == 4


@given(lengths=LENGTHS, micro=FEW)
def test_a_sweep_meets_every_text_once_the_longest_first(folder: Path, lengths: tuple[int, ...], micro: int) -> None:
    found = [number for batch in sweep(texts(folder, lengths), "test", micro) for number in numbers(batch, lengths)]
    assert sorted(found) == list(range(len(lengths)))
    assert [lengths[number] for number in found] == sorted(lengths, reverse=True)


def test_only_texts_are_put_together_by_length(folder: Path) -> None:
    with pytest.raises(AssertionError, match="samples without lengths"):
        Batches(images(folder, 8), batch=4, micro=4, seed=0, batching="by_length")


def test_typical_steps_are_of_the_mean_length(folder: Path, many: tuple[Store, tuple[int, ...]]) -> None:
    batches = Batches(many[0], batch=4, micro=4, seed=0, batching="by_length")
    typical = batches.typical_steps()
    assert sorted(typical) == list(range(WINDOW_STEPS))
    lengths = [batches.step(step)[0]["x"].shape[1] for step in typical]
    mean = sum(lengths) / len(lengths)
    assert max(abs(length - mean) for length in lengths[:5]) < min(abs(length - mean) for length in lengths[-5:])
    assert Batches(images(folder, 8), batch=4, micro=4, seed=0).typical_steps() == [0, 1]


@given(lengths=LENGTHS, batch=FEW, micro=FEW, seed=st.integers(0, 99), step=st.integers(0, 60))
def test_packed_texts_lie_end_to_end(
    folder: Path, lengths: tuple[int, ...], batch: int, micro: int, seed: int, step: int
) -> None:
    """Those of the same step as padded, without padding between them; what fills the row up has no label."""
    store = texts(folder, lengths)
    packed, padded = (Batches(store, batch=batch, micro=micro, seed=seed, batching=how) for how in ("packed", "padded"))
    seen: list[int] = []
    parts = packed.step(step)
    assert [int((part["y"] != -100).sum()) for part in parts] == [len(part["y"]) for part in padded.step(step)]
    for part in parts:
        (x_T,), y = part["x"], part["y"]
        places = [row[row < len(x_T)] for key in sorted(part) if key.startswith("places") for row in part[key]]
        assert all(each.dtype == np.int64 for each in part.values())
        assert len(x_T) == row_size(int((x_T != 0).sum()))
        assert np.concatenate(places).tolist() == list(range(len(x_T)))
        for place, label in zip(places, y, strict=True):
            if label == -100:
                assert (x_T[place] == 0).all()
                continue
            number = int(x_T[place[0]]) - 1
            assert x_T[place].tolist() == [number + 1] * lengths[number]
            assert label == number % 2
            seen.append(number)
    assert sorted(seen) == sorted(number for part in padded.step(step) for number in numbers(part, lengths))


def test_a_short_epoch_has_windows_too(folder: Path) -> None:
    assert window_steps(50, 3) == 4
    store, lengths = texts(folder, SHELF[-2]), SHELF[-2]
    met = [frozenset(step) for epoch in range(4) for step in steps_of((store, lengths), "by_length", epoch)]
    assert len(set(met)) > 0.9 * len(met), "the same texts do not meet again and again"
