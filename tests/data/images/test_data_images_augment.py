"""Images changed by chance: each change is what it says, and seed, epoch and sample alone decide it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.images.augment import Augmentation
from thrifty.spec import Augment, RandAugment

COUNT, HEIGHT, WIDTH = 400, 9, 7
MEAN = (0.2, 0.4, 0.6)
BLANK = np.array([51, 102, 153], np.uint8)
# pixels from 160 on are told from the blank
IMAGES = np.random.default_rng(0).integers(160, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
EVERYONE = np.arange(COUNT)


def changed(augment: Augment, *, epoch: int = 0, seed: int = 0, chosen: np.ndarray = EVERYONE) -> np.ndarray:
    augmentation = Augmentation(augment, mean=MEAN, count=COUNT, seed=seed)
    augmentation.begin(epoch)
    return augmentation(IMAGES[chosen], chosen)


def test_half_are_mirrored() -> None:
    found = changed(Augment(flip=True))
    mirrored = (found == IMAGES[:, :, ::-1]).all((1, 2, 3))
    same = (found == IMAGES).all((1, 2, 3))
    assert (mirrored | same).all() and not (mirrored & same).any()
    assert 0.4 < mirrored.mean() < 0.6


@given(margin=st.integers(1, 6))
def test_a_crop_is_a_window_of_the_framed_image(margin: int) -> None:
    found = changed(Augment(crop=margin))
    framed = np.tile(BLANK, (COUNT, HEIGHT + 2 * margin, WIDTH + 2 * margin, 1))
    framed[:, margin:-margin, margin:-margin] = IMAGES
    windows = np.lib.stride_tricks.sliding_window_view(framed, (HEIGHT, WIDTH), axis=(1, 2))
    places = set()
    for image, window in zip(found, windows.transpose(0, 1, 2, 4, 5, 3), strict=True):
        (place,) = np.argwhere((window == image).all((2, 3, 4)))
        places.add(tuple(place))
    at = np.array(sorted(places))
    assert at.min(0).tolist() == [0, 0] and at.max(0).tolist() == [2 * margin, 2 * margin]


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_a_square_is_cut_out(side: int) -> None:
    found = changed(Augment(cutout=side))
    sizes = []
    for image, before in zip(found, IMAGES, strict=True):
        blank = (image == BLANK).all(-1)
        assert (image[~blank] == before[~blank]).all()
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        # whole between its edges, and no larger than asked
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        sizes.append((len(rows), len(columns)))
    assert max(sizes) == (side, side) and min(min(size) for size in sizes) >= 1
    assert side == 1 or min(sizes) < (side, side)


@given(
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
    chosen=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=50).map(np.array),
)
def test_seed_epoch_and_sample_alone_decide(seed: int, epoch: int, chosen: np.ndarray) -> None:
    everything = Augment(flip=True, crop=2, cutout=3)
    whole = changed(everything, seed=seed, epoch=epoch)
    assert (changed(everything, seed=seed, epoch=epoch, chosen=chosen) == whole[chosen]).all()
    assert (changed(everything, seed=seed, epoch=epoch + 1) != whole).any()
    assert (changed(everything, seed=seed + 1, epoch=epoch) != whole).any()


def test_one_change_more_leaves_the_others_as_they_were() -> None:
    both = changed(Augment(crop=2, flip=True))
    flipped = changed(Augment(flip=True))
    assert (
        changed(Augment(crop=2))[(flipped == IMAGES).all((1, 2, 3))] == both[(flipped == IMAGES).all((1, 2, 3))]
    ).all()


def test_what_is_given_stays_as_it_was() -> None:
    before = IMAGES.copy()
    changed(Augment(flip=True, crop=2, cutout=3))
    assert (before == IMAGES).all()
    assert (changed(Augment()) == IMAGES).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_are_changed_by_so_much_at_most(name: str) -> None:
    found = changed(Augment.model_validate({name: 0.25})).astype(float)
    before = IMAGES.astype(float)
    gray = before @ [0.299, 0.587, 0.114]
    middle = {
        "brightness": np.zeros((COUNT, 1, 1, 1)),
        "contrast": gray.mean((1, 2))[:, None, None, None],
        "saturation": gray[..., None],
    }[name]
    low, high = (np.sort([middle + f * (before - middle) for f in (0.75, 1.25)], axis=0)[at] for at in (0, 1))
    assert (found >= np.clip(low, 0, 255) - 1).all() and (found <= np.clip(high, 0, 255) + 1).all()
    moved = np.abs(found - before).mean((1, 2, 3))
    assert moved.max() > 4 * np.median(moved) / 3 and (moved > 0.5).mean() > 0.8


def test_colours_and_randaugment_are_drawn_by_seed_epoch_and_sample() -> None:
    everything = Augment(flip=True, brightness=0.2, contrast=0.2, saturation=0.2, randaugment=RandAugment(), cutout=2)
    whole, chosen = changed(everything, epoch=3), EVERYONE[::-7]
    assert (changed(everything, epoch=3, chosen=chosen) == whole[chosen]).all()
    assert (changed(everything, epoch=4) != whole).any((1, 2, 3)).mean() > 0.9
