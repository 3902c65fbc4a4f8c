"""Cores shared out by model, and as many threads as the system grants the time of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.serve import cores


@pytest.fixture(autouse=True)
def granted_anew() -> Iterator[None]:
    cores._granted.cache_clear()
    yield
    cores._granted.cache_clear()


@pytest.mark.parametrize(("quota", "count"), [(None, 4), (2.0, 2), (1.5, 2), (0.2, 1), (64.0, 4)])
def test_a_quota_of_processors_bounds_threads(quota: float | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cpu_quota", lambda: None if quota is None else (quota, "cgroup v2 quota"))
    assert cores.threads([3, 4, 5, 6]) == count


@given(names=st.lists(st.text(max_size=3), min_size=1, max_size=9), count=st.integers(1, 12))
def test_every_model_has_cores_and_none_is_idle(names: list[str], count: int) -> None:
    shared = cores.shares(names, range(count))
    assert set(shared) == set(names)
    assert all(shared.values())
    taken = [core for each in shared.values() for core in each]
    if len(shared) <= count:
        assert sorted(taken) == list(range(count))
    else:
        assert set(taken) == set(range(count))
