"""Scores of published tables: the constant guess, losses by choice, and that shipped calibrations hold."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from benchmarks.pricing import predict, priced_by
from benchmarks.published import choice_losses, constant_errors, gpt3_days, score
from benchmarks.tables import PUBLISHED, Row, read_tables

from thrifty.cost.calibrations import shipped_calibrations
from thrifty.hardware.cluster import find_cluster
from thrifty.spec import Layout, TransformerShape

SHAPE = TransformerShape(
    layers=24, hidden=1024, heads=16, kv_heads=16, head_dim=64, ffn=4096, vocabulary=51200, length=1024
)
CALIBRATION = shipped_calibrations()["a100 / default"]


def row(step_seconds: float, **more: int) -> Row:
    layout = Layout(**{"data": 8, "micro_batch": 4, "accumulation": 2, "precision": "fp16", **more})  # type: ignore[arg-type]
    return Row(
        "mine", 2, "GPT", "key", SHAPE, (layout,), find_cluster("a100-80g:8"), batch=64, step_seconds=step_seconds
    )


def test_constant_guess_is_right_where_all_rows_are_alike() -> None:
    rows = [row(1.0), row(1.0), row(1.0), row(2.0)]
    assert constant_errors(rows, rows[:1]) == [pytest.approx(0.0)]
    assert constant_errors(rows, rows[3:]) == [pytest.approx(-0.5)]


def test_choice_loses_what_the_chosen_plan_takes_longer() -> None:
    good, bad = row(1.0, data=8), row(3.0, data=1, tensor=8, micro_batch=1, accumulation=64)
    calibrations = {id(each): CALIBRATION for each in (good, bad)}
    assert [loss for loss, _, _ in choice_losses([good, bad], calibrations)] == [0.0]
    turned = [replace(good, step_seconds=3.0), replace(bad, step_seconds=1.0)]
    (loss, chosen, best), *rest = choice_losses(turned, {id(each): CALIBRATION for each in turned})
    assert not rest
    assert loss == pytest.approx(2.0)
    assert (chosen.layout.tensor, best.layout.tensor) == (1, 8)


def test_score_says_whether_the_interval_holds() -> None:
    seconds = predict(row(1.0), CALIBRATION)
    assert score(row(seconds), CALIBRATION).inside
    assert not score(row(3 * seconds), CALIBRATION).inside


def test_gpt3_within_a_tenth() -> None:
    days, _ = gpt3_days(shipped_calibrations()["a100 / megatron 2021-04"])
    assert days == pytest.approx(34, rel=0.1)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not beside the project")
@pytest.mark.parametrize(
    ("table", "bar"),
    [
        ("bigscience_a100", 0.1),
        ("llm_foundry", 0.1),
        ("llm_foundry_2023_06_a100", 0.1),
        ("maxtext", 0.1),
        ("megatron_bridge", 0.1),
        ("megatron_lm", 0.1),
        ("nvidia_dgxc_h100", 0.1),
        ("vtrain_a100_multinode", 0.12),
        ("vtrain_a100_singlenode_sample", 0.2),
    ],
)
@pytest.mark.slow
def test_shipped_calibrations_hold_on_rows_they_were_not_fitted_on(table: str, bar: float) -> None:
    left = [each for each in read_tables()[table] if each.timed and not each.fitted]
    errors = [abs(score(each, priced_by(each)).error) for each in left]
    assert statistics.median(errors) <= bar
