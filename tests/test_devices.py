"""``thrifty run --devices 2``: the same job file, one bill; nobody outlives the process that was started."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from subprocess import Popen

import pytest
import yaml

import forked
from thrifty.hardware import probe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 300


def write_job(folder: Path, digits: Path) -> Path:
    job = {
        "name": "digits",
        "data": {"kind": "image", "path": str(digits), "size": 16, "color": "gray"},
        "model": "mlp-small",
        "train": {"steps": STEPS, "batch": 32, "evaluations": 4},
        "plan": {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def start(job: Path, *more: str) -> Popen[str]:
    return forked.start(["-m", "thrifty", "run", str(job), "--runs", str(job.parent / "runs"), "--json", *more])


def ranks_of(parent: int) -> list[int]:
    """Process numbers of the ranks that a process has started."""
    found = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in path.read_text().split():
            if re.search(rb"(?:^|\0)RANK=\d+\0", Path(f"/proc/{pid}/environ").read_bytes()):
                found.append(int(pid))
    return found


def steps(runs: Path) -> int:
    path = runs / "digits" / "events.jsonl"
    return path.read_text().count('"StepDone"') if path.exists() else 0


def test_more_devices_than_there_are_is_said_before_anything_runs(digits: Path, tmp_path: Path) -> None:
    cores = probe().cores
    with start(write_job(tmp_path, digits), "--devices", str(cores + 1)) as process:
        _, errors = process.communicate(timeout=500)
    assert process.returncode == 2
    last = errors.splitlines()[-1]
    assert last.startswith(f"thrifty: the run is to take {cores + 1} devices, and this machine has ")
    assert not list((tmp_path / "runs").glob("*/checkpoints"))


@pytest.mark.skipif(probe().cores < 2, reason="two devices are two cores here")
def test_a_run_on_two_devices_goes_on_after_its_launcher_was_killed(digits: Path, tmp_path: Path) -> None:
    job, runs = write_job(tmp_path, digits), tmp_path / "runs"
    with start(job, "--devices", "2") as process:
        deadline = time.monotonic() + 500
        while steps(runs) < 10 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        ranks = ranks_of(process.pid)
        process.send_signal(signal.SIGKILL)
    assert len(ranks) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks), "ranks outlive the run"

    with start(job, "--devices", "2") as process:
        out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    said = json.loads(out)
    assert said["result"]["steps"] == STEPS
    assert len(said["result"]["rank_bytes"]) == 2 and min(said["result"]["rank_bytes"]) > 100 << 20
    assert said["bill"]["attempts"] == 2
    assert [path.name for path in runs.iterdir() if path.is_dir()] == ["digits"]
    train = next(stage for stage in reversed(said["bill"]["stages"]) if stage["stage"] == "train")
    # two processes with torch in them, beside the one that started them
    assert train["spent"]["peak_rss_bytes"] > 2 * (100 << 20)
    plan = json.loads((runs / "digits" / "plan.json").read_text())
    assert (plan["devices"], plan["zero"], plan["threads"]) == (2, 0, max(1, probe().cores // 2))
    (devices,) = [line for line in plan["why"] if line["field"] == "devices"]
    assert "not predicted" in devices["doubt"]

    lines = json.loads(forked.run(["-m", "thrifty", "ledger", "--runs", str(runs), "--json"]).stdout)
    assert [line["status"] for line in lines] == ["done"]
