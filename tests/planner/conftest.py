"""What the planner's tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the C library does not tell of its heap: what a dry run tells depends on the tests before this one."""
    monkeypatch.setattr("thrifty.planner.local.heap_peak", lambda *_, **__: None)
    monkeypatch.setattr("thrifty.planner.local.runtime_bytes", lambda *_: {})
