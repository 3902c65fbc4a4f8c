"""The list of moves: fields and values of the nouns, marked ones off unless asked for, wrong names told."""

from __future__ import annotations

import typing

import pytest

from made_devices import device
from thrifty.errors import JobError
from thrifty.planner.moves import DEGREES, MOVES, askable, check_allowed, name_of, off_unless_asked, values
from thrifty.spec import BatchPlan, Layout, Plan, Precision


def test_names_and_values_stand_once() -> None:
    assert len({move.name for move in MOVES}) == len(MOVES)
    assert len({(move.field, str(move.value)) for move in MOVES}) == len(MOVES)
    assert all(move.does for move in MOVES)


def test_every_priced_move_is_a_field_of_a_noun() -> None:
    fields = set(Layout.model_fields) | set(Plan.model_fields) | set(BatchPlan.model_fields)
    assert {move.field for move in MOVES if move.priced} <= fields
    assert set(DEGREES) - {"workers"} <= fields | {"micro_batch"}
    assert {move.value for move in MOVES if move.field == "precision"} == set(typing.get_args(Precision))


def test_every_field_has_a_value_that_changes_nothing_learned() -> None:
    for field in {move.field for move in MOVES}:
        assert any(not move.changes_learning for move in MOVES if move.field == field), field


def test_marked_moves_are_off_unless_asked_for() -> None:
    able = device(rates={"fp32": 1e12, "bf16": 4e12, "fp8": 8e12})
    assert values("precision", able) == ("fp32", "bf16")
    assert values("precision", able, ("fp8",)) == ("fp32", "bf16", "fp8")
    assert values("state_bytes", able) == (4,)
    assert values("state_bytes", able, ("8bit-states",)) == (4, 1)
    held = {"bf16-weights", "bf16-compensated", "bf16-stochastic"}
    assert {move.name for move in off_unless_asked(able)} == {*held, "fp8", "bf16-states", "8bit-states"}


def test_a_device_without_a_precision_has_no_moves_in_it() -> None:
    old = device(rates={"fp32": 1e12, "fp16": 8e12})
    assert values("precision", old, ("fp8", "bf16-weights")) == ("fp32", "fp16")


def test_here_only_what_the_loop_executes() -> None:
    assert values("precision", device(), ("bf16-weights",), here=True) == ("fp32", "bf16")
    assert values("zero", device(), here=True) == (0,)


def test_what_a_job_may_pin_here_is_what_the_device_can_do() -> None:
    held = ("bf16_compensated", "bf16_stochastic")
    assert askable("precision", device(rates={"fp32": 1e12, "bf16": 4e12})) == ("fp32", "bf16", *held)
    old = device(rates={"fp32": 1e12, "fp16": 8e12})
    assert askable("precision", old) == ("fp32", "fp16")
    # marked here, and without a price on clusters
    able = device(rates={"fp32": 1e12, "bf16": 4e12})
    assert values("precision", able, ("bf16-compensated",), here=True) == ("fp32", "bf16", "bf16_compensated")
    assert values("precision", able, ("bf16-compensated",)) == ("fp32", "bf16")


def test_a_move_says_its_name() -> None:
    assert name_of("checkpointing", "full") == "checkpointed"
    assert name_of("pipeline", 16) == "pipeline 16"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fp9", "Did you mean 'fp8'"),
        ("no-dropout", "has no price yet"),
        ("bf16", "needs no allowing"),
        ("bf16-stochastic", "plan.precision: bf16_stochastic"),
    ],
)
def test_wrong_moves_are_told(name: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        check_allowed([name])
    check_allowed(["fp8", "8bit-states"])
