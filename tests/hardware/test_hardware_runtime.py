"""What a run takes beside its tensors is measured once, kept, and measured again when the file is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thrifty.hardware import runtime


@pytest.mark.slow
def test_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path)
    runtime.runtime_bytes.cache_clear()
    found = runtime.runtime_bytes(1)
    assert tuple(found) == runtime.PARTS
    # torch and its kernels: tens to hundreds of MiB
    assert 50 << 20 < found["imports"] < 1 << 30
    (kept,) = (tmp_path / "hardware").glob("parts-*.json")
    kept.write_text(json.dumps({**found, "imports": 7}))
    runtime.runtime_bytes.cache_clear()
    assert runtime.runtime_bytes(1)["imports"] == 7
    kept.write_text("{")
    runtime.runtime_bytes.cache_clear()
    assert runtime.runtime_bytes(1)["imports"] > 50 << 20
    runtime.runtime_bytes.cache_clear()


def test_zeros_where_it_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(runtime.sys, "executable", str(tmp_path / "nothing"))
    runtime.runtime_bytes.cache_clear()
    assert set(runtime.runtime_bytes(1).values()) == {0}
    runtime.runtime_bytes.cache_clear()
