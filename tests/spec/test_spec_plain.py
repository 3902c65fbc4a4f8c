"""The nouns: frozen, whole through JSON, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.spec import Interval, Quantity, Spent, StopPlan
from thrifty.spec.units import (
    format_bytes,
    format_count,
    format_joules,
    format_seconds,
    format_usd,
    parse_bytes,
    parse_seconds,
)


@pytest.mark.parametrize("module", ["thrifty", "thrifty.spec", "thrifty.cli", "thrifty.errors"])
def test_importing_the_ground_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'cv2', 'sqlalchemy', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_limits_that_are_not_set_survive_json() -> None:
    stop = StopPlan(
        steps=1,
        metric="loss",
        higher_is_better=False,
        target=float("-inf"),
        patience=0,
        seconds=float("inf"),
        joules=float("inf"),
        usd=float("inf"),
    )
    assert StopPlan.model_validate_json(stop.model_dump_json()) == stop


def test_an_interval_holds_its_value() -> None:
    with pytest.raises(ValueError, match="out of order"):
        Interval(low=2, value=1, high=3, method="wrong")


@given(st.floats(0, 1e12), st.text(max_size=30))
def test_nouns_survive_json(value: float, source: str) -> None:
    for noun in (Quantity(value=value, source=source), Spent(wall_s=value, joules_method=source)):
        assert type(noun).model_validate_json(noun.model_dump_json()) == noun


@given(st.floats(0, 1e11))
def test_every_amount_can_be_printed(value: float) -> None:
    for show in (format_bytes, format_seconds, format_joules, format_usd, format_count):
        assert 0 < len(show(value)) <= 20


@given(st.integers(1, 2**53))
def test_bytes_are_read_back_exactly(count: int) -> None:
    assert parse_bytes(f"{count}B") == count


@given(st.floats(1e-6, 1e9))
def test_seconds_are_read_back_exactly(seconds: float) -> None:
    assert parse_seconds(f"{seconds!r}s") == seconds
