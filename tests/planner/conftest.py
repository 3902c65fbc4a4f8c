"""What the planner's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from thrifty.planner.remembered import remembering


@pytest.fixture(scope="module", autouse=True)
def like_plans() -> Iterator[None]:
    """The plans of a module are of a few models, each of whose steps is traced once."""
    with remembering():
        yield


@pytest.fixture
def no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the C library does not tell of its heap: what a dry run tells depends on the tests before this one."""
    monkeypatch.setattr("thrifty.planner.dry.heap_peak", lambda *_, **__: None)
    monkeypatch.setattr("thrifty.planner.dry.runtime_bytes", lambda *_: {})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, on a machine that may be asked."""
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "6")
    return tmp_path
