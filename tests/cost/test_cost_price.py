"""Energy and money: proportional to time, bounded, and naming their source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import joules, usd
from thrifty.spec import Device, Interval, Quantity

DEVICE = Device.model_construct(
    kind="cpu",
    idle_watts=Quantity(value=20.0, source="declared for idle"),
    busy_watts=Quantity(value=100.0, source="declared for busy"),
    usd_per_hour=Quantity(value=0.36, source="c7i.large on demand, 2026-11-01"),
)
SECONDS = st.floats(1e-6, 1e9)


@given(SECONDS, st.floats(0, 1))
def test_energy_lies_between_idle_and_busy_and_keeps_its_order(seconds: float, utilisation: float) -> None:
    found = joules(Interval.around(seconds, 0.1, "timed"), DEVICE, utilisation)
    assert 20 * seconds * 0.999 <= found.value <= 100 * seconds * 1.001
    assert found.low < found.value < found.high
    # declared watts are in doubt beyond the time
    assert found.high / found.value > 1.3


@given(SECONDS)
def test_money_is_time_at_the_price(seconds: float) -> None:
    found = usd(Interval.around(seconds, 0.2, "timed"), DEVICE)
    assert found.value == pytest.approx(seconds * 1e-4)
    assert found.high / found.value == pytest.approx(1.2)


def test_both_say_what_they_were_derived_from() -> None:
    seconds = Interval.around(10.0, 0.1, "timed")
    spoken = joules(seconds, DEVICE, 0.5).method
    assert all(part in spoken for part in ("60 W", "20 W idle", "100 W busy", "declared"))
    assert "c7i.large on demand, 2026-11-01" in usd(seconds, DEVICE).method
