"""The expected calibration error against a plain count, and what cannot be a probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.evaluate.calibrated import BINS, calibration


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 200), seed=st.integers(0, 999))
def test_against_bins_that_are_counted_one_by_one(samples: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    sure, right = random.uniform(0, 1, samples).astype(np.float32), random.uniform(0, 1, samples) < 0.6
    found = calibration(sure, right)
    error, seen = 0.0, 0
    for at in range(BINS):
        inside = (sure > at / BINS + 1e-7) & (sure <= (at + 1) / BINS + 1e-7)
        if inside.any():
            error += inside.sum() / samples * abs(sure[inside].mean(dtype=np.float64) - right[inside].mean())
        seen += inside.sum()
    assert sum(found.counts) == samples
    assert seen < samples or found.error == pytest.approx(error, abs=1e-5)


def test_a_perfect_and_a_blind_model() -> None:
    sure = np.full(100, 0.8, np.float32)
    right = np.arange(100) < 80
    assert calibration(sure, right).error == pytest.approx(0.0, abs=1e-6)
    assert calibration(sure, np.zeros(100, bool)).error == pytest.approx(0.8, abs=1e-6)


def test_what_is_no_probability_counts_all_the_same() -> None:
    found = calibration(np.array([np.nan, 1.0000001, 0.0, 1 / 15], np.float32), np.array([False, True, False, True]))
    assert found.counts[0] == 3 and found.counts[-1] == 1
    assert calibration(np.zeros(0, np.float32), np.zeros(0, bool)).error == 0.0
