"""What Weights & Biases' own files hold after a run, without a network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from told_runs import check, steps, tell, tell_two_attempts

pytest.importorskip("wandb", reason="Weights & Biases is in the extra 'wandb'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_what_was_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thrifty.report.to.wandb import records

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert tell_two_attempts("wandb", tmp_path / "digits") == []
    files = sorted((tmp_path / "digits" / "reported" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "one run, a file an attempt"
    # its own process may write a moment longer
    wait_until(lambda: all(any(r.WhichOneof("record_type") == "exit" for r in records(file)) for file in files))
    figures: dict[str, list[tuple[int, float]]] = {}
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for record in (record for file in files for record in records(file)):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    figures.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
        if kind == "summary":
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        if kind in {"config", "run"}:
            held = record.config if kind == "config" else record.run.config
            config |= {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in held.update}

    def read(name: str) -> list[tuple[int, float]]:
        told = name.startswith(("test/", "bill/"))
        return [(0, summary[name])] if told and name in summary else figures.get(name, [])

    check(read)
    assert config["optim.learning_rate"] == 2e-3 and summary["status"] == "done"


def test_what_was_told_last_is_in_its_own_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thrifty.report.to.wandb import records

    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert tell("wandb", tmp_path, steps(1, 700)) == []
    reported = tmp_path / "reported"
    (file,) = reported.glob("wandb/offline-run-*/run-*.wandb")
    wait_until(lambda: len(told_steps(file)) == 700)
    assert file.stat().st_size > 32_768, "more than one block"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert 100 < len(told_steps(file)) < 600 and len(list(records(file))) > 100
    (reported / "wandb.json").write_text("{")
    from thrifty.report.to import Place
    from thrifty.report.to.wandb import WeightsAndBiases

    writer = WeightsAndBiases(Place("digits", tmp_path))
    assert writer.last().step == max(told_steps(file))
    writer.close()


def told_steps(file: Path) -> list[int]:
    from thrifty.report.to.wandb import records

    return [r.history.step.num for r in records(file) if r.WhichOneof("record_type") == "history"]


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(400):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("never true")
