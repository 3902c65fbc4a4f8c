"""The search: starts where the space says, never exceeds its budget, goes on after being cut off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from thrifty.errors import BudgetError, DivergedError
from thrifty.spec.tuning import Settings
from thrifty.tune import Choice, Search, search
from thrifty.tune.search import Report

SPACE = {"rate": Choice(first=1.0, low=0.01, high=100.0), "kind": Choice(first="b", values=("a", "b"))}


def bowl(settings: Settings, report: Report) -> float:
    """Best at rate 10, kind a."""
    return (math.log10(float(settings["rate"])) - 1) ** 2 + (settings["kind"] == "b")


def run(
    folder: Path,
    attempt: Callable[[Settings, Report], float] = bowl,
    *,
    trials: int = 20,
    left: list[float] | None = None,
) -> Search:
    remaining = iter(left) if left is not None else itertools.repeat(1e9)
    return search(
        SPACE,
        attempt,
        database=folder / "study.sqlite",
        name="study",
        higher_is_better=False,
        trials=trials,
        seconds_left=lambda: next(remaining),
        seed=0,
    )


@pytest.mark.slow
def test_it_begins_at_the_start_and_gets_better(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found.trials[0].settings == {"rate": 1.0, "kind": "b"}
    assert found.trials[found.best].value == min(trial.value for trial in found.trials)
    assert found.trials[found.best].value < found.trials[0].value / 4
    assert found.reason == "all 20 trials done"


@pytest.mark.slow
def test_it_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    class Cut(Exception):  # noqa: N818 - a signal
        pass

    calls = itertools.count()

    def dies(settings: Settings, report: Report) -> float:
        if next(calls) == 3:
            raise Cut
        return bowl(settings, report)

    with pytest.raises(Cut):
        run(tmp_path, dies, trials=6)
    found = run(tmp_path, trials=6)
    assert [trial.status for trial in found.trials] == ["done"] * 3 + ["failed"] + ["done"] * 2


def test_no_trial_is_begun_that_does_not_fit(tmp_path: Path) -> None:
    found = run(tmp_path, left=[100.0, 100.0, -1.0])
    assert len(found.trials) == 2
    assert found.reason.startswith("budget: 0 s left")


def test_a_budget_without_one_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"not one trial ended.*Raise --budget"):
        run(tmp_path, left=[0.0])


@pytest.mark.slow
def test_a_trial_that_finds_the_budget_spent_ends_the_search_and_one_too_large_for_memory_fails_it(
    tmp_path: Path,
) -> None:
    tried = itertools.count(1)

    def spends(settings: Settings, report: Report) -> float:
        if next(tried) == 2:
            raise BudgetError("nothing was trained: time budget")
        return bowl(settings, report)

    found = run(tmp_path / "spent", spends, left=[100.0, 100.0, -1.0, -1.0])
    assert [trial.status for trial in found.trials] == ["done", "failed"]
    assert found.reason.startswith("budget: 0 s left")
    tried = itertools.count(2)
    with pytest.raises(BudgetError, match="nothing was trained"):
        run(tmp_path / "large", spends, left=[100.0] * 3)


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned_and_one_that_diverges_does_not_end_the_search(tmp_path: Path) -> None:
    def attempt(settings: Settings, report: Report) -> float:
        if settings["kind"] == "b" and float(settings["rate"]) > 20:
            raise DivergedError("training diverged")
        for step in range(1, 6):
            report(step, bowl(settings, report))
        return bowl(settings, report)

    found = run(tmp_path, attempt, trials=30)
    statuses = {trial.status for trial in found.trials}
    assert "pruned" in statuses
    assert found.trials[found.best].status == "done"
