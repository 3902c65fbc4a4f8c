"""Searches for real, as a user starts them: killed and gone on with, by several workers, by Ray, to a target."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))
import forked
from thrifty.export.bundle import load_bundle
from thrifty.tune.record import Record
from thrifty.tune.storage import Study

pytestmark = pytest.mark.slow

PINNED = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "compile": "none", "threads": 1}
JOB: dict[str, Any] = {
    "name": "digits",
    "data": {"kind": "image"},
    "model": "mlp-small",
    "train": {"epochs": 9, "batch": 32},
    "plan": PINNED,
    # a figure that is never perfect: a search would end there
    "target": {"loss": 1e-9},
    "tune": {"space": {"learning_rate": {"low": 1e-5, "high": 1e-1, "first": 1e-4}, "batch": [16, 32]}},
}


def write(folder: Path, digits: Path, **changes: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, "data": {**JOB["data"], "path": str(digits)}, **changes}))
    return path


def tune(folder: Path, *options: str) -> dict[str, Any]:
    done = forked.run(["-m", "thrifty", "tune", "job.yaml", "--budget", "10min", "--json", *options], cwd=folder)
    assert done.returncode == 0, done.stderr
    tuned: dict[str, Any] = json.loads(done.stdout)
    return tuned


def trials_of(folder: Path) -> list[Record]:
    """Of the only study in a search's database; none while there is no database yet."""
    path = folder / "runs/digits-tune/study.sqlite"
    names = _names(path)
    return Study(str(path), names[0], rises=False, emit=print).records() if names else []


def _names(path: Path) -> list[str]:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as database:
            return [str(name) for (name,) in database.execute("SELECT study_name FROM studies")]
    except sqlite3.OperationalError:
        return []


def test_a_killed_search_goes_on_and_its_best_is_always_there(tmp_path: Path, digits: Path) -> None:
    write(tmp_path, digits)
    command = ["-m", "thrifty", "tune", "job.yaml", "--budget", "10min", "--trials", "7"]
    with forked.start(command, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while sum(each.status != "running" for each in trials_of(tmp_path)) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait(30)
    before = trials_of(tmp_path)
    assert 2 <= len(before) < 7
    assert load_bundle(tmp_path / "runs/digits-tune/bundle").info.name == "digits"

    tuned = tune(tmp_path, "--trials", "7")
    trials, best = tuned["search"]["trials"], tuned["search"]["best"]
    assert [each["settings"] for each in trials[: len(before)]] == [each.settings for each in before]
    assert len(trials) == 7 and tuned["search"]["reason"] == "all 7 trials done"
    assert tuned["metric"] == "loss"
    assert trials[best]["value"] == min(each["value"] for each in trials) < trials[0]["value"]
    assert any(each["share"] < 1 for each in trials), "most are ended early"
    assert all(each["priced_seconds"] > 0 for each in trials)
    assert tuned["spent"]["wall_s"] > 0 and tuned["spent"]["joules"] > 0
    assert tuned["target_seconds"] == 0

    bundle = load_bundle(tuned["bundle"])
    image = next((digits / "3").iterdir())
    assert bundle.predict(image.read_bytes())["label"] in bundle.info.data.labels
    told = yaml.safe_load(Path(tuned["best_job"]).read_text())
    assert told["train"]["learning_rate"] == pytest.approx(trials[best]["settings"]["learning_rate"])
    assert "tune" not in told
    listed = forked.run(["-m", "thrifty", "ledger", "--json"], cwd=tmp_path)
    (line,) = [each for each in json.loads(listed.stdout) if each["name"] == "digits-tune"]
    assert line["status"] == "done" and line["attempts"] == 2
    assert {each["attempt"] for each in line["stages"]} == {1, 2}
    assert line["total"]["wall_s"] == pytest.approx(tuned["spent"]["wall_s"], rel=0.05)


def test_two_workers_take_each_trial_once(tmp_path: Path, digits: Path) -> None:
    write(tmp_path, digits)
    tuned = tune(tmp_path, "--trials", "6", "--workers", "2")
    trials = [each for each in tuned["search"]["trials"] if each["status"] != "repeated"]
    assert len(trials) >= 6 and not any(each["status"] == "running" for each in trials)
    assert len({json.dumps(each["settings"]) for each in trials}) == len(trials)
    assert load_bundle(tuned["bundle"]).info.data.kind == "image"


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'thrifty[ray]'")
def test_ray_carries_a_search_out(tmp_path: Path, digits: Path) -> None:
    write(tmp_path, digits)
    tuned = tune(tmp_path, "--trials", "3", "--engine", "ray")
    assert [each["status"] != "running" for each in tuned["search"]["trials"]] == [True] * 3
    assert load_bundle(tuned["bundle"]).info.data.kind == "image"


def test_ray_that_is_not_installed_names_the_extra(tmp_path: Path, digits: Path) -> None:
    if find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    write(tmp_path, digits)
    done = forked.run(["-m", "thrifty", "tune", "job.yaml", "--budget", "10min", "--engine", "ray"], cwd=tmp_path)
    assert done.returncode == 2 and "thrifty[ray]" in done.stderr


def test_the_cheapest_way_to_a_target_is_priced(tmp_path: Path, digits: Path) -> None:
    write(tmp_path, digits, target={"accuracy": 0.5})
    tuned = tune(tmp_path, "--trials", "5", "--objective", "cheapest", "--sampler", "random")
    assert tuned["goal"] == "cheapest" and 0 < tuned["target_seconds"] < 600
    best = tuned["search"]["trials"][tuned["search"]["best"]]
    assert best["value"] >= 0.5


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"target": None}, ("--objective", "cheapest"), "the job has no target to reach"),
        ({}, ("--workers", "99"), "99 workers do not fit on"),
        ({}, ("--storage", "mysql://host/name"), "cannot be kept in 'mysql'"),
        ({}, ("--pruner", "ahsa"), "unknown pruner 'ahsa'. Did you mean 'asha'?"),
        ({"tune": {"space": {"schedule": ["cosin"]}}}, (), "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ({"tune": {"space": {"model": ["mlp-smal"]}}}, (), "unknown model 'mlp-smal'. Did you mean 'mlp-small'?"),
        ({"tune": {"space": {"model": ["bert-tiny"]}}}, (), "learns from data of kind 'text'"),
        ({"tune": {"space": {"lerning_rate": [1]}}}, (), "did you mean 'learning_rate'?"),
    ],
    ids=["no-target", "workers", "storage", "pruner", "schedule", "model", "kind", "setting"],
)
def test_what_cannot_be_meant_is_told_before_anything_is_tried(
    tmp_path: Path, digits: Path, changes: dict[str, Any], options: tuple[str, ...], said: str
) -> None:
    write(tmp_path, digits, **changes)
    done = forked.run(["-m", "thrifty", "tune", "job.yaml", "--budget", "10min", *options], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs/digits-tune/bundle").exists()


def test_a_budget_smaller_than_a_trial_says_what_one_is_priced(tmp_path: Path, digits: Path) -> None:
    write(tmp_path, digits)
    done = forked.run(["-m", "thrifty", "tune", "job.yaml", "--budget", "0.0000001USD"], cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the budget is smaller than a trial" in done.stderr and "the next trial is priced" in done.stderr
