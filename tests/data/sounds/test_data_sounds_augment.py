"""Recordings changed by chance: by seed, epoch and sample alone, and as much as was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sounds import write_folders, write_strings

from thrifty.data import Batches, prepare, sweep
from thrifty.data.sounds.augment import SoundAugmentation
from thrifty.data.sounds.frames import PADDED, normalised
from thrifty.models.speech import PADDING
from thrifty.spec import AudioData, Augment

ALL = Augment(stretch=0.2, warp=0.1, colour=0.5, noise=10, blank_bands=6, blank_frames=8)


def frames(length: int = 60, bands: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((length, bands)).astype(np.float32)


def changed(sample: int = 3, epoch: int = 0, seed: int = 0, longest: int = 200, **wanted: Any) -> np.ndarray:
    changes = SoundAugmentation(Augment(**wanted), longest=longest, seed=seed)
    changes.begin(epoch)
    own = changes.change(frames(), sample)
    changes.blank(own, sample)
    return own


def test_seed_epoch_and_sample_decide() -> None:
    asked = ALL.model_dump(exclude_defaults=True)
    first = changed(**asked)
    assert np.array_equal(first, changed(**asked))
    for other in ({"sample": 4}, {"epoch": 1}, {"seed": 1}):
        found = changed(**{**asked, **other})
        assert found.shape != first.shape or not np.allclose(found, first)


def test_nothing_asked_for_changes_nothing() -> None:
    assert np.array_equal(changed(), frames())


@pytest.mark.parametrize("sample", range(12))
def test_a_stretch_keeps_the_ends_and_its_bounds(sample: int) -> None:
    found = changed(sample, stretch=0.2)
    assert 60 * np.exp(-0.2) - 1 <= len(found) <= 60 * np.exp(0.2) + 1
    assert np.allclose(found[[0, -1]], frames()[[0, -1]], atol=1e-4)
    assert len(changed(sample, stretch=0.2, longest=60)) <= 60


@pytest.mark.slow
def test_a_warp_moves_a_peak_by_as_much_as_was_asked_for() -> None:
    peak = np.zeros((5, 40), np.float32)
    peak[:, 20] = 1.0
    places = []
    for sample in range(200):
        found = SoundAugmentation(Augment(warp=0.1), longest=5, seed=0).change(peak, sample)
        places.append(float((found[0] * np.arange(40)).sum() / found[0].sum()))
    # up to a tenth of its place, and a band beside
    assert 17 <= min(places) < 18.5
    assert 21.5 < max(places) <= 23.5


@pytest.mark.slow
def test_noise_covers_what_is_quiet_in_half_of_the_recordings() -> None:
    quiet = np.full((50, 40), -20.0, np.float32)
    quiet[25] = 0.0
    found = [SoundAugmentation(Augment(noise=20), longest=50, seed=0).change(quiet, sample) for sample in range(100)]
    covered = [each[:20].mean() > -19 for each in found]
    assert 35 <= sum(covered) <= 65
    # 20 to 60 dB under the loudest: 4.6 to 13.8 nepers, and what the slope adds
    assert all(-16 < each[:20].mean() < -3.5 for each, is_covered in zip(found, covered, strict=True) if is_covered)


def test_blanks_are_as_wide_as_asked_for_and_no_more() -> None:
    shares = []
    for sample in range(50):
        found = changed(sample, blank_bands=6, blank_frames=8)
        bands, times = (found == 0).all(0).sum(), (found == 0).all(1).sum()
        assert bands <= 13
        assert times <= 17
        shares.append(float((found == 0).mean()))
    assert 0.05 < np.mean(shares) < 0.4


@pytest.mark.slow
def test_training_batches_are_changed_and_validation_is_not(tmp_path: Path) -> None:
    data = AudioData.model_validate({"kind": "audio", "path": write_folders(tmp_path / "tones")})
    store = prepare(data, seed=0, cache=tmp_path / "cache", emit=lambda event: None)
    plain, augmented = (Batches(store, batch=16, micro=16, seed=0, augment=each) for each in (Augment(), ALL))
    (before,), (after,) = plain.step(0), augmented.step(0)
    assert np.array_equal(before["y"], after["y"])
    assert before["x"].dtype == np.float32
    assert before["x"].shape != after["x"].shape or not np.allclose(before["x"], after["x"])
    again = Batches(store, batch=16, micro=4, seed=0, augment=ALL).step(0)
    rows = {tuple(np.round(row[row[:, 0] != PADDED].ravel()[:40], 4)) for part in again for row in part["x"]}
    assert rows == {tuple(np.round(row[row[:, 0] != PADDED].ravel()[:40], 4)) for row in after["x"]}


@pytest.mark.slow
def test_batches_are_normalised_and_filled_up(tmp_path: Path) -> None:
    assert PADDED == PADDING
    data = AudioData.model_validate(
        {"kind": "audio", "path": write_strings(tmp_path / "said"), "transcript": "transcript"}
    )
    store = prepare(data, seed=0, cache=tmp_path / "cache", emit=lambda event: None)
    seen, tokens = 0, []
    for batch in sweep(store, "test", 3):
        x, y = batch["x"], batch["y"]
        assert x.shape[1] % 8 == 0 or x.shape[1] == store.dataset.shape[0]
        for row, said in zip(x, y, strict=True):
            own = row[row[:, 0] != PADDED]
            assert np.abs(own.mean(0)).max() < 1e-3
            tokens += said[said != -100].tolist()
        seen += len(x)
    assert seen == store.dataset.counts["test"]
    assert sorted(tokens) == sorted(store.array("test", "y").tolist())
    # a factor of energy for each band, as of another microphone, leaves nothing
    own = frames()
    louder = own + np.linspace(-2, 2, 40, dtype=np.float32)
    assert np.allclose(normalised(own, store.dataset), normalised(louder, store.dataset), atol=1e-5)


def test_half_of_the_waves_get_noise_as_loud_as_asked_and_keep_their_deviation() -> None:
    wave = np.random.default_rng(1).standard_normal((50, 320)).astype(np.float32)
    wave[-1, 7:] = PADDED
    real, levels = wave != PADDED, []
    for sample in range(100):
        changes = SoundAugmentation(Augment(noise=20), longest=50, seed=0, waves=True)
        found = changes.change(wave, sample)
        assert (found.dtype, found[-1, 7]) == (np.float32, PADDED)
        assert (found[~real] == PADDED).all()
        assert found[real].std() == pytest.approx(wave[real].std(), rel=0.03)
        noise = found[real] - wave[real] * np.corrcoef(found[real], wave[real])[0, 1]
        levels.append(20 * np.log10(max(noise.std(), 1e-9)))
    loud = [each for each in levels if each > -100]
    assert 35 <= len(loud) <= 65
    assert -61 <= min(loud) < -50 < -25 < max(loud) <= -19.5


def test_a_blank_leaves_what_fills_a_wave_up() -> None:
    wave = np.ones((10, 320), np.float32)
    wave[-1, 7:] = PADDED
    for sample in range(40):
        found = wave.copy()
        SoundAugmentation(Augment(blank_frames=9), longest=10, seed=0, waves=True).blank(found, sample)
        assert (found[-1, 7:] == PADDED).all()
        assert 0.55 <= found[:-1].mean() <= 1
