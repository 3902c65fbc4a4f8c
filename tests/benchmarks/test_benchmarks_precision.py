"""The verdict on a precision: within the noise of seeds it is proven, and no further, whichever way is better."""

from __future__ import annotations

import pytest
from benchmarks.precision import COURSES, verdict

from thrifty.planner.proven import PROOFS, proof_of

NOISE = [0.80, 0.82, 0.81, 0.79, 0.83]


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "proven"), [(0.0, True), (0.005, True), (-0.1, True), (0.04, False), (0.5, False)])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_what_is_lost_is_held_against_the_noise_of_seeds(lost: float, proven: bool, higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    other = [
        each - sign * (lost + jitter) for each, jitter in zip(NOISE, (0, 0.002, -0.002, 0.001, -0.001), strict=True)
    ]
    found = verdict(NOISE, other, higher_is_better=higher_is_better)
    assert found.proven == proven
    assert found.worse == pytest.approx(lost, abs=1e-9)
    assert found.worse < found.bound


def test_few_seeds_that_differ_prove_nothing() -> None:
    scattered = [0.72, 0.90, 0.81, 0.70, 0.92]
    assert not verdict(NOISE, scattered, higher_is_better=True).proven


def test_every_family_that_is_proven_has_a_course() -> None:
    assert {family for proof in PROOFS for family in proof.families} == COURSES.keys()
    assert all(proof_of("bf16", family) for family in (*COURSES, "own", "hf"))
    assert proof_of("fp8", "mlp") is None and proof_of("fp16", "own") is None
