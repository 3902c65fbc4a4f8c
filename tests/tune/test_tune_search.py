"""A worker of a search: cheap beside whole trials, never paying twice, within its budget, going on after a kill."""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path

import pytest
from tuning_ground import SPACE, Counting, Ground, carry_out, truth

from thrifty.errors import BudgetError, JobError
from thrifty.spec import Budget, Spent
from thrifty.spec.events import Event, Tried
from thrifty.spec.tuning import Choice
from thrifty.tune.task import Aim

pytestmark = pytest.mark.slow


def steps_paid(counting: Counting) -> int:
    return sum(until - begun for parts in counting.paid.values() for begun, until in parts)


def test_many_configurations_cost_as_much_as_few_trials_and_no_step_twice(
    ground: Ground, counting: Counting, tmp_path: Path
) -> None:
    told: list[Event] = []
    reason, study = carry_out(ground, ground.task(tmp_path, trials=20), emit=told.append)
    records = study.records()
    assert reason == "all 20 trials done" and len(records) == 20
    assert records[0].settings == {"learning_rate": 0.3, "schedule": "cosine"}, "it begins where the space says"
    assert records[0].status == "done"
    total = ground.pricer.plan({}).stop.steps
    assert steps_paid(counting) < 0.5 * 20 * total
    for parts in counting.paid.values():
        assert parts[0][0] == 0 and all(one[1] == other[0] for one, other in itertools.pairwise(parts))
    best = max(truth(each.settings) for each in records if each.status == "done")
    assert best > truth(records[0].settings) + 0.02
    assert counting.kept == sorted(counting.kept) and counting.kept[-1] == pytest.approx(best)
    tried = [event for event in told if isinstance(event, Tried)]
    assert {event.trial.number for event in tried} == set(range(20))
    assert all(event.trial.priced_seconds > 0 for event in tried)


def test_what_is_told_of_the_end_stops_what_cannot_win(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    _, study = carry_out(ground, ground.task(tmp_path, trials=20, pruner="median"))
    records = study.records()
    pruned = [each for each in records if each.status == "pruned"]
    assert pruned and all("the best is" in each.said.says for each in pruned)
    best = max(max(each.curve.values()) for each in records)
    assert all(truth(each.settings) < best for each in pruned)


def test_it_goes_on_where_it_was_killed(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    parts = itertools.count()

    def dies(key: str, until: int) -> None:
        if next(parts) == 5:
            raise Killed

    counting.before = dies
    task = ground.task(tmp_path, trials=8)
    with pytest.raises(Killed):
        carry_out(ground, task)
    reason, study = carry_out(ground, task)
    assert reason == "all 8 trials done" and len(study.records()) == 8
    for paid in counting.paid.values():
        assert all(one[1] == other[0] for one, other in itertools.pairwise(paid)), "nothing is paid for twice"
    assert carry_out(ground, task)[0] == "all 8 trials done", "there is nothing left to do"


def test_settings_that_training_breaks_on_end_their_trial_alone(
    ground: Ground, counting: Counting, tmp_path: Path
) -> None:
    parts = itertools.count()

    def breaks(key: str, until: int) -> None:
        if next(parts) in {2, 4}:
            raise RuntimeError("shapes do not match")

    counting.before = breaks
    _, study = carry_out(ground, ground.task(tmp_path, trials=6))
    failed = [each for each in study.records() if each.status == "failed"]
    assert [each.said.says for each in failed] == ["RuntimeError: shapes do not match"] * 2
    parts = itertools.repeat(2)  # nothing was ever learned: it is not the settings
    with pytest.raises(RuntimeError, match="shapes do not match"):
        carry_out(ground, ground.task(tmp_path / "first"))


def test_a_trial_is_priced_and_not_begun_where_it_does_not_fit(
    ground: Ground, counting: Counting, tmp_path: Path
) -> None:
    spent_s = itertools.count(step=0.3)
    whole = ground.pricer.price({}, ground.pricer.plan({})).seconds
    budget = Budget.model_validate({"time": "3s"})

    def spent() -> Spent:
        return Spent(wall_s=next(spent_s))

    reason, study = carry_out(ground, ground.task(tmp_path, budget=budget, trials=500), spent=spent)
    assert reason.startswith("budget: ") and "the next trial is priced" in reason
    assert 1 <= len(study.records()) < 20
    least = Budget.model_validate({"time": f"{whole / 1000:.9f}s"})
    with pytest.raises(BudgetError, match=r"the budget is smaller than a trial: .* left, the next trial is priced"):
        carry_out(ground, ground.task(tmp_path / "least", budget=least))


def test_a_budget_of_a_part_of_a_trial_begins_with_that_part(
    ground: Ground, counting: Counting, tmp_path: Path
) -> None:
    joules = ground.pricer.price({}, ground.pricer.plan({})).joules / 2
    half = Budget.model_validate({"energy": f"{joules:.9f}J"})

    def spent() -> Spent:
        # the first part took all of it
        return Spent(joules=joules if counting.paid else 0.0)

    _, study = carry_out(ground, ground.task(tmp_path, budget=half, trials=1), spent=spent)
    (only,) = study.records()
    assert only.status == "paused" and 0 < only.said.step < only.said.total


def test_an_impossible_corner_is_noted_and_passed_over(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    space = {**SPACE, "augment.crop": Choice(values=(0, 8))}  # of images that are 8 pixels wide
    _, study = carry_out(ground, ground.task(tmp_path, space=space, trials=10))
    records = study.records()
    corner = [each for each in records if each.settings["augment.crop"] == 8]
    assert corner and all(each.status == "impossible" and "nothing would be left" in each.said.says for each in corner)
    assert sum(each.status != "impossible" for each in records) == 10
    nowhere = {"learning_rate": SPACE["learning_rate"], "augment.crop": Choice(values=(8, 9))}
    with pytest.raises(JobError, match=r"25 configurations in a row cannot be had.*Narrow tune\.space"):
        carry_out(ground, ground.task(tmp_path / "nowhere", space=nowhere))


def test_a_space_is_exhausted_when_all_of_it_was_tried(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    space = {"learning_rate": Choice(values=(0.01, 0.1, 0.5))}
    for sampler in ("random", "grid"):
        folder = tmp_path / sampler
        reason, study = carry_out(ground, ground.task(folder, space=space, sampler=sampler, trials=10))
        assert reason == "the space is exhausted: 3 configurations of it differ"
        rates = [each.settings["learning_rate"] for each in study.records()]
        assert sorted(float(rate) for rate in rates) == [0.01, 0.1, 0.5], "none is paid for twice"


def test_two_workers_share_a_study_and_no_trial(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    task = ground.task(
        tmp_path, trials=16, space={"learning_rate": Choice(values=tuple(0.01 * n for n in range(1, 30)))}
    )
    together = threading.Barrier(2, timeout=60)
    first = iter([True, True])

    def meet(key: str, until: int) -> None:
        # both are at work at the same time at least once
        if next(first, False):
            together.wait()

    counting.before = meet
    ended: list[str] = []

    def work() -> None:
        ended.append(carry_out(ground, task)[0])

    workers = [threading.Thread(target=work) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(timeout=120)
    assert len(ended) == 2
    _, study = carry_out(ground, task)
    real = [each for each in study.records() if each.status not in {"repeated", "impossible"}]
    assert len({each.said.key for each in real}) == len(real) >= 16
    for paid in counting.paid.values():
        assert paid[0][0] == 0 and all(one[1] == other[0] for one, other in itertools.pairwise(sorted(paid)))


def test_the_cheapest_way_to_a_target_is_found(ground: Ground, counting: Counting, tmp_path: Path) -> None:
    aim = Aim(goal="cheapest", metric="accuracy", rises=True, target=0.85)
    _, study = carry_out(ground, ground.task(tmp_path, aim=aim, trials=25))
    records = study.records()
    reached = [each for each in records if aim.reached_at(each) is not None]
    assert reached and all(each.status == "done" for each in reached)
    best = max(records, key=lambda each: -math.inf if math.isnan(aim.goodness(each)) else aim.goodness(each))
    assert aim.seconds_to_target(best) == min(aim.seconds_to_target(each) for each in reached)
    assert aim.seconds_to_target(best) < best.said.priced.seconds
