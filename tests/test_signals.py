"""The command line while it trains: signals leave with a line and a code; other pins go on with the run."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

import forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def write_job(folder: Path, digits: Path, **pins: Any) -> Path:
    job = {
        "name": "digits",
        "data": {"kind": "image", "path": str(digits), "size": 16, "color": "gray"},
        "model": "mlp-small",
        "train": {"steps": 800, "batch": 32, "evaluations": 6},
        "plan": {"micro_batch": 16, "precision": "fp32", "checkpointing": "none", "compile": "none", **pins},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def start(job: Path) -> Popen[str]:
    return forked.start(["-m", "thrifty", "run", str(job), "--runs", str(job.parent / "runs"), "--json"])


def steps(runs: Path) -> list[int]:
    path = runs / "digits" / "events.jsonl"
    lines = path.read_text().splitlines()[:-1] if path.exists() else []
    return [line["step"] for line in map(json.loads, lines) if line["event"] == "StepDone"]


def leave(job: Path, *signals: signal.Signals) -> tuple[int, str]:
    """Start a run, send it signals once it trains, and return its exit code with what it said on stderr."""
    before = len(steps(job.parent / "runs"))
    with start(job) as process:
        deadline = time.monotonic() + 250
        while len(steps(job.parent / "runs")) < before + 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        for number in signals:
            process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_signals_leave_with_a_line_and_other_pins_go_on(tmp_path: Path, digits: Path) -> None:
    job = write_job(tmp_path, digits)
    code, errors = leave(job, signal.SIGTERM)
    assert code == 143
    last = errors.splitlines()[-1]
    assert last.startswith("thrifty: stopped by SIGTERM: step ") and last.endswith(
        "Go on: give the same command again."
    )
    said = forked.run(["-m", "thrifty", "ledger", "--runs", str(tmp_path / "runs"), "--json"])
    assert [(line["status"], line["attempts"]) for line in json.loads(said.stdout)] == [("stopped", 1)]
    seen = len(steps(tmp_path / "runs"))

    # half as many samples at once, on one thread: the same run goes on
    write_job(tmp_path, digits, micro_batch=8, threads=1)
    code, errors = leave(job, signal.SIGINT)
    assert code == 130
    assert "going on from step" in errors
    assert "stopped by SIGINT: step " in errors.splitlines()[-1]
    plan = json.loads((tmp_path / "runs" / "digits" / "plan.json").read_text())
    assert (plan["batch"]["micro"], plan["batch"]["accumulation"], plan["threads"]) == (8, 4, 1)
    assert seen < len(steps(tmp_path / "runs"))

    with start(job) as process:
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result = json.loads(out)
    assert result["result"]["steps"] == 800
    assert result["bill"]["attempts"] == 3
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["digits"]
    train = [stage["attempt"] for stage in result["bill"]["stages"] if stage["stage"] == "train"]
    assert train == [1, 2, 3], "each attempt is on the bill"


def test_ctrl_c_twice_ends_at_once(tmp_path: Path, digits: Path) -> None:
    job = write_job(tmp_path, digits)
    code, errors = leave(job, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in errors
