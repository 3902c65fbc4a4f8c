"""kill -9 at random instants: the resumed run ends with the same weights, and nothing that was kept is damaged."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

import forked
from thrifty.data import open_store
from thrifty.spec import Plan

KILLS = 6
# the same arithmetic however fast the machine seems when a run is planned
PINNED = {"precision": "fp32", "checkpointing": "none", "compile": "none", "threads": 1}
JOBS = {
    "digits": {
        "data": {"kind": "image", "size": 16, "color": "gray"},
        "model": "resnet8",
        "train": {"epochs": 10, "batch": 32, "schedule": "plateau"},
        "plan": {"micro_batch": 16, "memory_format": "contiguous", **PINNED},
    },
    "sources": {
        "data": {"kind": "language", "files": "**/*.py", "vocabulary": 512, "length": 64},
        "model": "gpt-nano",
        "train": {"steps": 60, "batch": 8, "evaluations": 5},
        "plan": {"micro_batch": 8, **PINNED},
    },
}


def write_job(folder: Path, name: str, data: Path) -> Path:
    job = {"name": name, **JOBS[name]}
    job["data"] = {**JOBS[name]["data"], "path": str(data)}  # type: ignore[dict-item]
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def command(job: Path, runs: Path) -> list[str]:
    return ["-m", "thrifty", "run", str(job), "--runs", str(runs)]


def finish(job: Path, runs: Path) -> float:
    """Let a run end by itself; seconds it took."""
    began = time.perf_counter()
    done = forked.run(command(job, runs))
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


def check_whole(runs: Path, name: str, cache: Path) -> None:
    """Whatever the kill hit: the ledger opens and is sound, and a store that is there is complete."""
    ledger = runs / "ledger.sqlite"
    if ledger.exists():
        with sqlite3.connect(ledger) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for folder in (cache / "prepared").glob("*"):
        if "tmp" not in folder.name and folder.is_dir():
            assert open_store(cache, folder.name) is not None
    for noun in (runs / name).glob("*.json"):
        json.loads(noun.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_killed_at_random_instants_the_weights_are_the_same(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, name, request.getfixturevalue(name))
    kills = KILLS if name == "digits" else KILLS // 2

    whole = tmp_path / "whole"
    # hashed otherwise, by an interpreter of its own
    subprocess.run([sys.executable, *command(job, whole)], capture_output=True, check=True)
    seconds = finish(job, tmp_path / "again")
    expected = load_file(whole / name / "bundle" / "model.safetensors")
    again = load_file(tmp_path / "again" / name / "bundle" / "model.safetensors")
    assert all((again[key] == value).all() for key, value in expected.items()), "not even two quiet runs agree"

    # a cache without prepared data, so that kills fall into preparing too; measured speeds stay
    cache = tmp_path / "cache"
    (cache / "hardware").parent.mkdir()
    (cache / "hardware").symlink_to(Path(os.environ["THRIFTY_CACHE"]) / "hardware")
    monkeypatch.setenv("THRIFTY_CACHE", str(cache))
    instants = random.Random(7)
    killed, folder = 0, 0
    while killed < kills:
        runs = tmp_path / f"killed-{folder}"
        with forked.start(command(job, runs)) as process:
            time.sleep(instants.uniform(0.0, seconds))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            else:
                folder += 1
        check_whole(runs, name, cache)
    for runs in sorted(tmp_path.glob("killed-*")):
        finish(job, runs)
        found = load_file(runs / name / "bundle" / "model.safetensors")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert (found[key] == value).all(), f"{runs.name}: {key} differs"
        check_whole(runs, name, cache)


@pytest.mark.slow
def test_a_resumed_run_follows_the_first_plan(tmp_path: Path, digits: Path) -> None:
    job = write_job(tmp_path, "digits", digits)
    runs = tmp_path / "runs"
    plan = runs / "digits" / "plan.json"
    with forked.start(command(job, runs)) as process:
        deadline = time.monotonic() + 60
        while not plan.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    first = Plan.model_validate_json(plan.read_bytes())
    finish(job, runs)
    assert Plan.model_validate_json(plan.read_bytes()) == first
