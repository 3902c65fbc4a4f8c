"""The search: what it tries first, when it ends, what it goes on from, and what it chooses; moves are made up here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thrifty.compress.search as searching
from made_devices import device
from thrifty.compress.moves import Candidate, Context, Form, Move
from thrifty.compress.search import Asked, Found, search
from thrifty.errors import BundleError
from thrifty.spec import Measured, ModelPlan, Objective, Spread, Verdict

# of each move: what it multiplies the time of a request by, and the drop of accuracy
Made = dict[str, tuple[float, float]]
ALLOWED = 0.005


class Judge:
    """A guard whose candidates say themselves how much worse they are."""

    rows, seconds_a_row, metric = 100, 0.001, "accuracy"

    def __init__(self, made: Made, noise: float = 0.001) -> None:
        self.made, self.noise = made, noise

    def judge(self, answers: Any) -> Verdict:
        drop = sum(self.made[name][1] for name in answers.taken)
        low, high = drop - self.noise, drop + self.noise
        held = "over" if low > ALLOWED else "within" if high <= ALLOWED else "unproven"
        return Verdict(
            metric="accuracy", split="validation", rows=100, reference=0.9, candidate=0.9 - drop, drop=drop, low=low,
            high=high, confidence=0.95, allowed=ALLOWED, held=held, method="test",
        )  # fmt: skip


class Taken(nn.Module):
    """A model that knows what was done to it."""

    def __init__(self, taken: tuple[str, ...]) -> None:
        super().__init__()
        self.taken = taken


class TakenForm(Form):
    @property
    def taken(self) -> tuple[str, ...]:
        return self.made  # type: ignore[no-any-return]


def _move(name: str, *, last: bool = False, seconds: float = 1.0, hope: float = 10.0, **more: Any) -> Move:
    def apply(context: Context, candidate: Candidate) -> Candidate:
        taken = (*candidate.taken, name)
        assert context.scratch.is_dir() and not any(context.scratch.iterdir())
        form = TakenForm("openvino", "fp32", context.scratch, taken, lambda x: x) if last else None
        return replace(candidate, model=Taken(taken), taken=taken, says=(*candidate.says, name), form=form)

    return Move(
        **{
            "name": name, "says": name, "applies": lambda context, candidate: None,
            "price": lambda context, candidate: seconds, "hope": lambda context, candidate: hope, "apply": apply,
            "last": last, **more,
        }
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    def go(
        made: Made,
        moves: list[Move],
        *,
        requests: float = 1e6,
        budget_s: float = 1e6,
        objective: Objective = "latency",
        noise: float = 0.001,
    ) -> Found:
        def measure(answers: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, Measured]:
            return {name: _measured(each.taken, made) for name, each in answers.items()}

        monkeypatch.setattr(searching, "measure", measure)
        monkeypatch.setattr(searching, "size_of", lambda candidate: 1)
        context = Context(
            store=None, run=None, device=device(), calibration=(), objective=objective, batch=1, seconds=0.0, seed=0,
            scratch=tmp_path,
        )  # type: ignore[arg-type]  # fmt: skip
        reference = Candidate(Taken(()), ModelPlan(name="x", family="mlp", arguments={}))
        spent = iter(range(10_000))
        asked = Asked(requests, lambda: budget_s - next(spent), {1: [torch.zeros(1)]})
        return search(reference, {each.name: each for each in moves}, Judge(made, noise), context, asked)  # type: ignore[arg-type]

    return go


def _measured(taken: tuple[str, ...], made: Made) -> Measured:
    seconds = 0.01
    for name in taken:
        seconds *= made[name][0]

    def spread(value: float) -> Spread:
        return Spread(value=value, low=value, high=value)

    return Measured(
        batch=1, latency_s=spread(seconds), rows_per_s=spread(1 / seconds), best_batch=1, cpu_s_a_row=spread(seconds),
        joules_a_row=spread(seconds), joules_method="test", bytes=round(1e6 * seconds),
    )  # fmt: skip


Run = Callable[..., Found]


def test_the_cheapest_that_is_proven_is_chosen(run: Run) -> None:
    made = {"fast": (0.2, 0.02), "fair": (0.5, 0.001), "slow": (0.9, 0.0)}
    found = run(made, [_move(name, last=True) for name in made])
    assert found.chosen.candidate.taken == ("fair",)
    assert {each.moves: each.status for each in found.tried} == {
        (): "reference", ("fast",): "over", ("fair",): "chosen", ("slow",): "held",
    }  # fmt: skip
    assert {each.moves for each in found.tried if each.front} == {("fast",), ("fair",), ("slow",)}
    assert "every move" in found.ended


def test_moves_are_put_one_after_the_other_and_a_form_is_the_last(run: Run) -> None:
    made = {"prune": (0.7, 0.001), "factor": (0.8, 0.001), "form": (0.25, 0.0)}
    found = run(made, [_move("prune"), _move("factor"), _move("form", last=True)])
    assert sorted(found.chosen.candidate.taken) == ["factor", "form", "prune"]
    assert found.chosen.candidate.taken[-1] == "form"
    assert all("form" not in each.moves[:-1] for each in found.tried)


def test_a_model_that_is_worse_than_allowed_is_not_gone_on_with(run: Run) -> None:
    made = {"prune": (0.3, 0.05), "form": (0.5, 0.0)}
    found = run(made, [_move("prune"), _move("form", last=True)])
    assert found.chosen.candidate.taken == ("form",)
    assert ("prune", "form") not in {each.moves for each in found.tried}


@pytest.mark.parametrize(
    ("drop", "wanted"),
    [
        (0.0001, {("form",): "chosen", ("prune",): "unproven"}),
        (0.0045, {("form",): "chosen", ("prune",): "unproven", ("prune", "form"): "over"}),
    ],
    ids=["something is proven", "nothing is"],
)
def test_what_too_few_rows_tell_of_is_gone_on_with_while_nothing_is_proven_alone(
    run: Run, drop: float, wanted: dict[tuple[str, ...], str]
) -> None:
    made = {"prune": (0.6, 0.0045), "form": (0.5, drop)}
    found = run(made, [_move("prune", hope=20.0), _move("form", last=True, hope=1000.0)])
    assert {each.moves: each.status for each in found.tried if each.moves} == wanted


def test_a_milder_form_is_asked_for_where_too_few_rows_tell_of_one(run: Run) -> None:
    def milder(context: Context, base: Candidate, made: Candidate) -> Candidate:
        return replace(made, model=Taken(("mild",)), taken=("mild",))

    made = {"form": (0.5, 0.0001), "prune": (0.1, 0.0045), "mild": (0.2, 0.0)}
    moves = [_move("form", last=True, hope=1000.0), _move("prune", milder=milder)]
    found = run(made, moves)
    assert ("mild",) in {each.moves for each in found.tried}
    assert found.chosen.candidate.taken[0] == "mild"


def test_a_trial_that_cannot_pay_back_is_not_run(run: Run) -> None:
    made = {"cheap": (0.5, 0.0), "dear": (0.1, 0.0)}
    found = run(made, [_move("cheap", last=True), _move("dear", last=True, seconds=1000.0, hope=10.0)], requests=10_000)
    # 10,000 requests of 10 ms are 100 s: no trial of 1,000 s gives that back
    assert [each.moves for each in found.tried] == [(), ("cheap",)]
    assert re.fullmatch(r"takes \d+ s and could save 40 s at the very most", found.left_out["dear"])
    assert "could pay back within 10,000 requests" in found.ended


def test_for_size_the_budget_alone_ends_it(run: Run) -> None:
    made = {"dear": (0.1, 0.0)}
    found = run(made, [_move("dear", last=True, seconds=1000.0)], requests=1, objective="size")
    assert found.chosen.candidate.taken == ("dear",)


def test_it_ends_within_the_budget(run: Run) -> None:
    made = {"long": (0.1, 0.0), "short": (0.6, 0.0)}
    found = run(made, [_move("long", last=True, seconds=500.0), _move("short", last=True)], budget_s=100.0)
    assert found.chosen.candidate.taken == ("short",)
    assert found.ended == "the budget is spent"
    assert "budget" in found.left_out["long"]


def test_the_best_is_kept_when_no_rows_prove_it(run: Run) -> None:
    made = {"form": (0.3, 0.002), "worse": (0.1, 0.02)}
    found = run(made, [_move(name, last=True) for name in made], noise=0.01)
    assert found.chosen.candidate.taken == ("form",)
    assert found.chosen.verdict.held == "unproven"


def test_where_nothing_is_cheaper_the_model_stays_as_it_was(run: Run) -> None:
    found = run({"slower": (1.2, 0.0)}, [_move("slower", last=True)])
    assert found.chosen.candidate.taken == ()
    assert found.chosen.verdict.held == "within"


def test_a_milder_form_is_asked_for_until_one_holds(run: Run) -> None:
    made = {"int8": (0.3, 0.05), "kept1": (0.35, 0.02), "kept2": (0.4, 0.001), "kept3": (0.5, 0.0)}
    names = iter(["kept1", "kept2", "kept3"])

    def milder(context: Context, base: Candidate, over: Candidate) -> Candidate:
        taken = (*base.taken, next(names))
        form = TakenForm("openvino", "int8", context.scratch, taken, lambda x: x)
        return replace(base, taken=taken, says=taken, form=form)

    found = run(made, [_move("int8", last=True, milder=milder)])
    assert found.chosen.candidate.taken == ("kept2",)
    assert len(found.tried) == 4


@pytest.mark.parametrize("requests, asked", [(10_000, False), (1e6, True)], ids=["few", "many"])
def test_a_milder_form_that_could_not_pay_back_is_not_asked_for(run: Run, requests: float, asked: bool) -> None:
    made = {"form": (0.5, 0.0), "int8": (0.45, 0.05), "kept": (0.46, 0.001)}

    def milder(context: Context, base: Candidate, over: Candidate) -> Candidate:
        taken = (*base.taken, "kept")
        return replace(base, model=Taken(taken), taken=taken, says=taken)

    # the form holds; 10,000 requests of 10 ms would save 5 s more by what is over, and a trial takes 10 to 20
    moves = [_move("form", last=True), _move("int8", seconds=20.0, hope=2.5, milder=milder)]
    found = run(made, moves, requests=requests)
    names = [each.moves for each in found.tried]
    assert names[:2] == [(), ("form",)] and ("int8",) in names
    assert (("kept",) in names) == asked


def test_where_there_is_no_milder_form_the_search_goes_on(run: Run) -> None:
    made = {"int8": (0.3, 0.05), "form": (0.5, 0.0)}
    moves = [_move("int8", last=True, hope=20.0, milder=lambda context, base, over: None), _move("form", last=True)]
    found = run(made, moves)
    assert [(each.moves, each.status) for each in found.tried] == [
        ((), "reference"), (("int8",), "over"), (("form",), "chosen")
    ]  # fmt: skip


def test_of_a_move_and_its_milder_form_one_is_chosen(run: Run) -> None:
    made = {"int8": (0.3, 0.05)}

    def milder(context: Context, base: Candidate, over: Candidate) -> Candidate:
        made["int8"] = (0.4, 0.001)
        form = TakenForm("openvino", "int8", context.scratch, ("int8",), lambda x: x)
        return replace(base, taken=("int8",), says=("milder",), form=form)

    found = run(made, [_move("int8", last=True, milder=milder)])
    assert [(each.moves, each.status) for each in found.tried] == [
        ((), "reference"), (("int8",), "over"), (("int8",), "chosen")
    ]  # fmt: skip


def test_a_move_that_fails_or_does_not_apply_is_noted(run: Run) -> None:
    def fails(context: Context, candidate: Candidate) -> Candidate:
        raise BundleError("it cannot be converted")

    moves = [
        _move("broken", last=True, apply=fails),
        _move("alien", last=True, applies=lambda context, candidate: "not for this"),
        _move("form", last=True),
    ]
    found = run({"form": (0.5, 0.0)}, moves)
    assert found.left_out == {"alien": "not for this"}
    failed = next(each for each in found.tried if each.status == "failed")
    assert (failed.moves, failed.reason) == (("broken",), "it cannot be converted.")
    assert found.chosen.candidate.taken == ("form",)
