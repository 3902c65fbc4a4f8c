"""RandAugment: each of its changes does what its name says, on gray and colour, and nothing at strength 0."""

from __future__ import annotations

import numpy as np
import pytest

from thrifty.data.images.rand_augment import CHANGES, RandomChanges
from thrifty.spec import RandAugment

BLANK = (10, 20, 30)
# a bright block left of the middle, on a slope of grays
RAMP = np.tile(np.arange(60, 124, dtype=np.uint8)[:, None], (1, 64))
RAMP[28:36, 12:20] = 200
COLOUR = np.stack([RAMP, RAMP // 2, RAMP // 3], axis=-1)
OF_NO_STRENGTH = {"stretch", "equalize"}


def middle(image: np.ndarray) -> tuple[float, float]:
    """Where the bright block lies: down, across."""
    rows, columns = np.nonzero(image[..., 0] > 180)
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_form_and_what_is_given(name: str, channels: int) -> None:
    image = COLOUR[..., :channels].copy()
    for by in (-1.0, 0.3, 1.0):
        found = CHANGES[name](image, by, BLANK[:channels])
        assert found.shape == image.shape and found.dtype == np.uint8
    assert (image == COLOUR[..., :channels]).all()
    if name not in OF_NO_STRENGTH:
        assert (CHANGES[name](image, 0.0, BLANK[:channels]) == image).all()


@pytest.mark.parametrize(
    ("name", "down", "across"),
    [
        ("move across", 0.0, -64 * 150 / 331),
        ("move down", -64 * 150 / 331, 0.0),
        # 15.5 pixels left of the middle, on its line: turned by 30 degrees
        ("rotate", 16 * np.sin(np.pi / 6), 16 * (1 - np.cos(np.pi / 6))),
        ("shear down", 16 * 0.3, 0.0),
    ],
)
def test_where_a_block_goes(name: str, down: float, across: float) -> None:
    before = middle(COLOUR)
    moved = [np.subtract(middle(CHANGES[name](COLOUR, by, BLANK)), before) for by in (0.25, -0.25)]
    # there and back by the same way, and a quarter as far at a quarter of the strength
    assert moved[0] + moved[1] == pytest.approx([0, 0], abs=2)
    assert np.abs(moved[0]).max() == pytest.approx(max(abs(down), abs(across)) / 4, abs=1)


def test_what_has_moved_away_shows_the_mean_colour() -> None:
    found = CHANGES["move across"](COLOUR, 1.0, BLANK)
    assert (found[:, -20:] == BLANK).all()


def test_values_alone() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert len(np.unique(CHANGES["posterize"](image, 1.0, (0,)))) == 16
    assert (CHANGES["solarize"](image, -1.0, (0,)) == 255 - image).all()
    narrow = (image // 4 + 50).astype(np.uint8)
    stretched = CHANGES["stretch"](narrow, 0.0, (0,))
    assert (stretched.min(), stretched.max()) == (0, 255)
    flat = np.full((4, 4, 3), 7, np.uint8)
    assert (CHANGES["stretch"](flat, 1.0, BLANK) == flat).all()
    dark = (image // 8).astype(np.uint8)
    assert CHANGES["equalize"](dark, 0.0, (0,)).mean() == pytest.approx(127, abs=8)
    assert CHANGES["sharpness"](COLOUR, 1.0, BLANK).std() > COLOUR.std()
    assert CHANGES["sharpness"](COLOUR, -1.0, BLANK).std() < COLOUR.std()


def test_brightness_contrast_and_saturation_at_full_strength() -> None:
    assert CHANGES["brightness"](COLOUR, 1.0, BLANK).max() == 255
    assert CHANGES["contrast"](COLOUR, -1.0, BLANK).std() == pytest.approx(COLOUR.std() / 10, rel=0.2)
    gray = CHANGES["saturation"](COLOUR, -1.0, BLANK).astype(int)
    assert np.ptp(gray, axis=-1).max() <= np.ptp(COLOUR.astype(int), axis=-1).max() / 10 + 1


def test_samples_get_several_changes() -> None:
    images = np.repeat(COLOUR[None], 50, axis=0)
    changes = RandomChanges(RandAugment(changes=3, magnitude=30), blank_C=np.array(BLANK, np.uint8), count=500, seed=1)
    changes.begin(0)
    changes.change(images, np.arange(100, 150))
    assert (images != COLOUR).any((1, 2, 3)).mean() > 0.9
    assert len({image.tobytes() for image in images}) > 40
    again = np.repeat(COLOUR[None], 25, axis=0)
    changes.change(again, np.arange(149, 124, -1))
    assert (again == images[49:24:-1]).all()
