"""Pay-back, and what a candidate is worth."""

from __future__ import annotations

import math

import pytest

from made_devices import device
from thrifty.compress.payback import pay_back
from thrifty.compress.value import front, share
from thrifty.spec import Measured, Spent, Spread, Tried, Verdict


def _measured(seconds: float, size: int = 1000) -> Measured:
    def spread(value: float) -> Spread:
        return Spread(value=value, low=value, high=value)

    return Measured(
        batch=4, latency_s=spread(seconds), rows_per_s=spread(4 / seconds), best_batch=4,
        cpu_s_a_row=spread(seconds / 4), joules_a_row=spread(seconds * 10), joules_method="test", bytes=size,
    )  # fmt: skip


def _tried(drop: float, seconds: float) -> Tried:
    verdict = Verdict(
        metric="accuracy", split="validation", rows=10, reference=0.9, candidate=0.9 - drop, drop=drop, low=drop,
        high=drop, confidence=0.95, allowed=0.1, held="within", method="test",
    )  # fmt: skip
    return Tried(moves=(f"{seconds}",), status="held", verdict=verdict, measured=_measured(seconds))


def test_a_search_is_paid_back_after_what_it_took_over_what_a_request_saves() -> None:
    found = pay_back(_measured(0.010), _measured(0.002), Spent(wall_s=80, joules=3200, usd=0.01), device())
    assert found.saved_seconds == pytest.approx(8.0)
    assert found.requests == pytest.approx(10_000, abs=1)
    assert found.saved_joules == pytest.approx(1000 * 4 * 0.08)
    assert found.requests_by_joules == pytest.approx(10_000, abs=1)
    assert found.saved_usd == pytest.approx(8.0 * 0.1 / 3600)


def test_what_saves_nothing_is_never_paid_back() -> None:
    found = pay_back(_measured(0.010), _measured(0.011), Spent(wall_s=80, joules=3200), device())
    assert found.saved_seconds < 0
    assert found.requests == found.requests_by_joules == math.inf


def test_shares_of_the_reference() -> None:
    before, after = _measured(0.010), _measured(0.002, size=250)
    assert [share(each, after, before) for each in ("latency", "throughput", "size", "energy")] == pytest.approx(
        [0.2, 0.2, 0.25, 0.2]
    )


def test_the_front_is_what_no_other_beats() -> None:
    marked = front([_tried(0.0, 5.0), _tried(0.01, 2.0), _tried(0.02, 3.0), _tried(0.03, 1.0)], "latency")
    assert [each.front for each in marked] == [True, True, False, True]
