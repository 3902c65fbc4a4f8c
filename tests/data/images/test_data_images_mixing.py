"""Mixup and cutmix: pixels and answers are mixed alike, and seed, epoch and sample alone decide how."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.images.mixing import Mixing
from thrifty.spec import Augment

COUNT, SIDE = 600, 16
# a flat image of each sample tells how much of which is in it
BRIGHT, DARK = np.full((COUNT, SIDE, SIDE, 1), 255, np.uint8), np.zeros((COUNT, SIDE, SIDE, 1), np.uint8)
EVERYONE = np.arange(COUNT)


def mixed(augment: Augment, *, chosen: np.ndarray = EVERYONE, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    mixing = Mixing(augment, count=COUNT, seed=5)
    mixing.begin(epoch)
    return mixing(BRIGHT[chosen].copy(), DARK[chosen], chosen)


@pytest.mark.parametrize("augment", [Augment(mixup=0.4), Augment(cutmix=1), Augment(mixup=0.4, cutmix=1)])
def test_an_answer_is_shared_as_the_pixels_are(augment: Augment) -> None:
    images, own = mixed(augment)
    assert images.mean((1, 2, 3)) / 255 == pytest.approx(own, abs=1 / 255)
    assert own.dtype == np.float32 and own.min() >= 0 and own.max() <= 1 and own.std() > 0.15


def test_mixup_shines_through_and_cutmix_is_a_rectangle() -> None:
    assert all(len(np.unique(image)) == 1 for image in mixed(Augment(mixup=1))[0])
    areas = []
    for image in mixed(Augment(cutmix=1))[0][..., 0]:
        rows, columns = np.flatnonzero((image == 0).any(1)), np.flatnonzero((image == 0).any(0))
        areas.append(len(rows) * len(columns))
        assert (image == 0).sum() == areas[-1] and set(np.unique(image)) <= {0, 255}
    assert max(areas) > SIDE * SIDE * 0.8 and min(areas) < 4


def test_with_both_an_image_gets_one() -> None:
    images, own = mixed(Augment(mixup=1, cutmix=1))
    flat = np.array([len(np.unique(image)) == 1 for image in images])
    assert 0.4 < flat[(own > 0.1) & (own < 0.9)].mean() < 0.6


def test_shares_of_mixup_are_of_its_beta() -> None:
    wide, narrow = (mixed(Augment(mixup=a))[1] for a in (1, 50))
    # deviation of Beta(a, a): 1 / sqrt(4 (2 a + 1))
    assert wide.std() == pytest.approx(0.289, abs=0.03) and narrow.std() == pytest.approx(0.05, abs=0.01)


@given(chosen=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=40).map(np.array))
def test_the_step_that_a_sample_is_in_does_not_matter(chosen: np.ndarray) -> None:
    augment = Augment(mixup=0.2, cutmix=1)
    images, own = mixed(augment, epoch=2)
    some, their = mixed(augment, chosen=chosen, epoch=2)
    assert (some == images[chosen]).all() and (their == own[chosen]).all()
    mixing = Mixing(augment, count=COUNT, seed=5)
    mixing.begin(2)
    assert (mixing.others(chosen) == mixing.others(EVERYONE)[chosen]).all()
    assert len(set(mixing.others(EVERYONE).tolist())) > COUNT / 2
