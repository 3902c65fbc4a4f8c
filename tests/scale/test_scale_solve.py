"""The solver: derivatives are those of differences, no start ends above where it began, and all stay in their box."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from made_curves import points

from thrifty.scale.solve import box, huber, said, solve, starts

RUNS = points(noise=0.01)
LOSSES = np.array([run.loss for run in RUNS])
SIZES, DATA = (np.log([[getattr(run, name) for run in RUNS]]) for name in ("parameters", "data"))
SIZES, DATA = SIZES - SIZES.mean(), DATA - DATA.mean()


def test_derivatives_are_those_of_differences() -> None:
    at = np.log(np.array([[1.1, 0.3, 0.4, 0.5, 0.6]]))
    _, slope = said(at, SIZES, DATA)
    for place in range(5):
        step = np.zeros((1, 5))
        step[0, place] = 1e-6
        above, below = (said(at + sign * step, SIZES, DATA)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope[..., place], (above - below) / 2e-6, rtol=1e-5, atol=1e-9)


def test_every_start_ends_lower_and_the_best_ones_agree() -> None:
    begin, within = starts(LOSSES), box(LOSSES)
    before = huber(said(np.clip(begin, within.low, within.high), SIZES, DATA)[0] - np.log(LOSSES), 1e-3)
    found = solve(begin, SIZES, DATA, np.log(LOSSES)[None], 1e-3, within)
    assert (found.loss <= before).all()
    assert ((found.parameters >= within.low) & (found.parameters <= within.high)).all()
    ordered = np.sort(found.loss)
    assert ordered[len(ordered) // 10] <= 1.01 * ordered[0]


def test_huber_is_a_square_within_and_a_line_beyond() -> None:
    assert huber(np.array([[0.5e-3]]), 1e-3)[0] == 0.5 * 0.25e-6
    assert huber(np.array([[-3e-3]]), 1e-3)[0] == 1e-3 * 2.5e-3
