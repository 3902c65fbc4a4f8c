"""A long run as a page draws it: a part of its steps, with every spike, read on at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from thrifty.runs import Following, RunFolder
from thrifty.spec.events import Evaluated, Event, Resumed, StepDone, Warned
from thrifty.web import course as module
from thrifty.web.course import Course, is_paused


def step(number: int, loss: float = 0.5) -> StepDone:
    return StepDone(number, 100_000, 0.1, loss, 1e-3, 1.0, 100.0, 0.5)


def write(folder: Path, *events: Event) -> Course:
    writer = RunFolder(folder).writer()
    for event in events:
        writer(event)
    writer.flush()
    return Course(Following(folder / "events.jsonl"))


def test_a_long_run_keeps_few_steps_and_every_spike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_STEPS", 200)
    spikes = {777: 9.0, 1500: -3.0}
    found = write(tmp_path, *(step(number, spikes.get(number, 0.5)) for number in range(1, 3001)))
    found.read()
    assert found.seen == 3000 and 50 < len(found.steps) <= 200
    assert [each.step for each in found.steps] == sorted({each.step for each in found.steps})
    assert {each.step for each in found.steps} >= {*spikes, 3000}
    assert found.spent_s == pytest.approx(1500.0) and found.step_s == 0.5


def test_what_is_repeated_after_a_crash_counts_once(tmp_path: Path) -> None:
    found = write(tmp_path, step(1), step(2), step(3), Warned("a"))
    found.read()
    assert (found.seen, found.spent_s, len(found.others)) == (4, 1.5, 1)
    write(tmp_path, Resumed(1), step(2), Evaluated(2, 0.1, {"accuracy": 0.5}, True, 1e-3, 2.0))
    found.read()
    assert [each.step for each in found.steps] == [1, 2] and found.spent_s == 3.0
    assert not is_paused(found.others)


@pytest.mark.slow
def test_reading_on_costs_what_is_new(tmp_path: Path) -> None:
    found = write(tmp_path, *(step(number) for number in range(1, 100_001)))
    found.read()
    writer = RunFolder(tmp_path).writer()
    writer(step(100_001))
    writer.flush()
    began = time.process_time()
    found.read()
    assert time.process_time() - began < 0.02
    assert found.steps[-1].step == 100_001
