"""Parts of a long benchmark: made once, read again, dropped by a new start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.kept import Kept

from thrifty.spec import Interval


@dataclass(frozen=True)
class Taken:
    seconds: tuple[float, ...]
    said: Interval


TAKEN = Taken((0.1, 0.25), Interval(low=1, value=2, high=3, method="made up"))
PARTS: list[tuple[Any, Any]] = [
    (Taken, TAKEN),
    (float, 0.1),
    (float | None, None),
    (dict, {"batch_s": {"1": 0.5}, "rival_bytes": {}}),
]


def never() -> Any:
    raise AssertionError("made twice")


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_part_is_made_once(tmp_path: Path, kind: Any, part: Any) -> None:
    assert Kept(tmp_path)("a-part", kind, lambda: part) == part
    assert Kept(tmp_path)("a-part", kind, never) == part
    assert Kept()("a-part", kind, lambda: part) == part


def test_a_new_start_drops_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    assert Kept.of("plan", resume=False)("a", float, lambda: 1.0) == 1.0
    assert Kept.of("plan", resume=True)("a", float, never) == 1.0
    assert Kept.of("plan", resume=False)("a", float, lambda: 2.0) == 2.0


def test_other_code_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path))
    assert Kept.of("plan", resume=False)("a", float, lambda: 1.0) == 1.0
    monkeypatch.setattr("benchmarks.kept.CODE", (Path(__file__).parent,))
    assert Kept.of("plan", resume=True)("a", float, lambda: 2.0) == 2.0
