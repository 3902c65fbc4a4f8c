"""A run with a budget of time ends within it, with the best model found, and says why it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thrifty.ledger import Ledger
from thrifty.pipeline import Outcome, run
from thrifty.spec import parse_job
from thrifty.spec.events import Evaluated, Event, StepDone

# a machine that others use may take half as long again as it was asked for
BUSY = 1.5


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_run_ends_within_its_time(digits: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def go(name: str, epochs: int, **more: Any) -> Outcome:
        events.clear()
        job = {
            "name": name,
            "data": {"kind": "image", "path": str(digits), "size": 8, "color": "gray"},
            "model": "mlp-small",
            "train": {"epochs": epochs, "batch": 32},
            "plan": {"precision": "fp32", "micro_batch": 32},
            **more,
        }
        return run(parse_job(job), "a test", runs=tmp_path / "runs", ledger=ledger, emit=events.append)

    go("first", 1)  # measures what is measured once on a machine
    short_s = go("short", 2).entry.total.wall_s
    limit_s = 2 * short_s + 10
    outcome = go("timed", 20_000, budget={"time": f"{limit_s:.1f}s"})
    assert outcome.entry.total.wall_s <= limit_s * BUSY
    assert outcome.result.steps == sum(isinstance(event, StepDone) for event in events) > 18
    looks = [event for event in events if isinstance(event, Evaluated)]
    assert outcome.result.validation["accuracy"] == max(look.metrics["accuracy"] for look in looks)
    assert outcome.result.reason.startswith(("time budget", "all "))
