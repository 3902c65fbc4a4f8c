"""A search is asked to wait, to stop and to spend less, between its trials and within one, by one worker or several."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tuning_ground import Counting, Ground, carry_out

sys.path.insert(0, str(Path(__file__).parent.parent))
from test_tune_run import JOB, trials_of

import forked
from thrifty import api
from thrifty.api.ledger import entry_of, open_ledger
from thrifty.runs import RunFolder
from thrifty.spec import Budget, Spent, parse_budget
from thrifty.spec.events import Event, Lowered, Paused, WentOn
from thrifty.spec.steering import Steering
from thrifty.tune.steering import Wheel, lowered

LIMITS = st.none() | st.floats(min_value=1e-3, max_value=1e9)


@given(given_s=LIMITS, asked_s=LIMITS)
def test_a_budget_is_lowered_and_never_raised(given_s: float | None, asked_s: float | None) -> None:
    asked = Steering.model_construct(ask="go", time=asked_s, energy=None, money=None)
    now = lowered(Budget.model_construct(time=given_s), asked)
    assert now.time == min((each for each in (given_s, asked_s) if each is not None), default=None)


def test_each_change_is_told_once() -> None:
    now, told = Steering(), []
    wheel = Wheel(lambda: now, parse_budget("1h"), told.append)
    assert wheel.look() == "go" and told == []
    now = Steering.model_validate({"ask": "pause", "time": "2h"})
    assert (wheel.look(), wheel.look(), told) == ("pause", "pause", [Paused(0)]), "more than it has is no change"
    now = Steering.model_validate({"ask": "go", "time": "5min"})
    assert wheel.look() == "go" and wheel.budget.time == 300.0
    assert told[1:2] == [Lowered(0, "5m 00s")] and isinstance(told[2], WentOn) and len(told) == 3
    now = Steering.model_validate({"ask": "go", "time": "4min"})
    wheel.heard(Lowered(7, "4m 00s"))
    assert wheel.look() == "go" and wheel.budget.time == 240.0 and len(told) == 3, "training told it already"


@pytest.mark.slow
def test_it_stops_between_trials_and_goes_on_when_it_is_begun_again(
    ground: Ground, counting: Counting, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)

    def third(key: str, until: int) -> None:
        if len(counting.paid) == 2:
            folder.steer(Steering(ask="stop"))

    counting.before = third
    task = ground.task(tmp_path, trials=8)
    reason, study = carry_out(ground, task, steer=folder.steering)
    assert reason == "stopped as asked"
    assert len(study.records()) == 3 and not any(each.status == "running" for each in study.records())
    folder.end_search()
    counting.before = lambda key, until: None
    assert carry_out(ground, task, steer=folder.steering)[0] == "all 8 trials done"


@pytest.mark.slow
def test_what_it_waits_is_on_no_bill(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    folder, told = RunFolder(tmp_path), []
    waiting = threading.Event()

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, Paused):
            waiting.set()

    def go_on() -> None:
        waiting.wait(60)
        time.sleep(1.0)
        folder.steer(Steering(ask="go"))

    folder.steer(Steering(ask="pause"))
    other = threading.Thread(target=go_on)
    other.start()
    _, study = carry_out(ground, ground.task(tmp_path, trials=2), emit=tell, steer=folder.steering)
    other.join(60)
    (waited,) = (event.seconds for event in told if isinstance(event, WentOn))
    assert waited >= 1.0
    assert sum(each.said.spent.seconds for each in study.records()) < 1.0, "trials have no bill of the wait"


@pytest.mark.slow
def test_a_lower_budget_ends_it(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    folder, told = RunFolder(tmp_path), []
    spent_s = 0.0

    def spend(key: str, until: int) -> None:
        nonlocal spent_s
        spent_s += 10.0
        if spent_s == 30.0:
            folder.steer(Steering.model_validate({"time": "25s"}))

    counting.before = spend
    task = ground.task(tmp_path, trials=500, budget=parse_budget("1h"))
    reason, _ = carry_out(ground, task, spent=lambda: Spent(wall_s=spent_s), emit=told.append, steer=folder.steering)
    assert reason.startswith("budget: ") and spent_s == 30.0
    assert [event for event in told if isinstance(event, Lowered)] == [Lowered(0, "25.0 s")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_search_is_paused_lowered_and_stopped(tmp_path: Path, digits: Path, workers: int) -> None:
    job: dict[str, Any] = {**JOB, "data": {**JOB["data"], "path": str(digits)}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "train": {"epochs": 400, "batch": 32}}))
    runs, place = tmp_path / "runs", tmp_path / "runs" / "digits-tune"
    command = ["-m", "thrifty", "tune", "job.yaml", "--budget", "1h", "--workers", str(workers), "--json"]
    began = time.time()
    with forked.start(command, cwd=tmp_path) as process:

        def until(holds: Callable[[], bool]) -> None:
            end = time.monotonic() + 150
            while not holds():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)

        def told(kind: type[Event]) -> bool:
            return any(isinstance(each, kind) for each in RunFolder(place).events())

        def learned() -> tuple[list[dict[int, float]], list[Path]]:
            return [each.curve for each in trials_of(tmp_path)], sorted(place.glob("trials/*/step-*.sha256"))

        until(lambda: any(each.curve for each in trials_of(tmp_path)))
        api.steer(place, "pause", runs=runs)
        until(lambda: told(Paused))
        time.sleep(1.0)
        waits = learned()
        assert waits[1], "what was learned is saved"
        time.sleep(2.0)
        assert learned() == waits, "what waits takes no step"
        api.steer(place, "go", lower="40min", runs=runs)
        until(lambda: told(WentOn) and told(Lowered))
        until(lambda: learned() != waits)
        api.steer(place, "stop", runs=runs)
        out, errors = process.communicate(timeout=120)
        took_s = time.time() - began
    assert process.returncode == 0, errors
    tuned = json.loads(out)
    assert tuned["search"]["reason"] == "stopped as asked"
    assert not any(each["status"] == "running" for each in tuned["search"]["trials"])
    assert (place / "bundle").is_dir() and not (place / "control.json").exists()
    waited_s = next(each.seconds for each in RunFolder(place).events() if isinstance(each, WentOn))
    with closing(open_ledger(runs)) as ledger:
        entry = entry_of(ledger, RunFolder(place))
    assert entry.status == "done" and waited_s >= 2.5
    assert entry.total.wall_s < took_s - waited_s + 0.5, "what it waited is on no bill"
