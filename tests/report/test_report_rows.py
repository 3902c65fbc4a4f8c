"""The words and figures of bills, whatever the numbers."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_cost, make_dataset, make_device, make_entry, make_plan

from thrifty.ledger import StageEntry
from thrifty.report import rows
from thrifty.spec import Budget, Interval, Spent


def test_an_unmetered_stage_says_so() -> None:
    row = rows.spent_row("train", Spent(wall_s=2))
    assert (row.energy, row.money, row.work, row.of_peak) == ("–", "–", "–", "–")
    assert rows.spent_row("train", Spent(joules_method="RAPL")).energy == "0.0 J"


def test_the_accelerator_memory_is_shown_where_there_is_one() -> None:
    assert rows.spent_row("train", Spent(peak_rss_bytes=2**20, device_peak_bytes=2**30)).memory == "1.0 GiB"


def test_attempts_are_named_where_there_was_more_than_one() -> None:
    stages = tuple(StageEntry(stage="train", attempt=attempt, spent=Spent(wall_s=attempt)) for attempt in (1, 2))
    names = [row.stage for row in rows.bill_rows(make_entry(stages=stages))[0]]
    assert names == ["train 1", "train 2"]
    assert [row.stage for row in rows.bill_rows(make_entry())[0]][:2] == ["prepare", "plan"]


def test_notes_say_each_method_once_and_the_share_of_the_work() -> None:
    said = rows.notes(make_entry())
    methods = [method for _, method in said]
    assert len(methods) == len(set(methods))
    assert said[-1][1].startswith("training did 83 % of the planned work (accuracy reached 0.985)")
    same = make_cost().model_copy(update={"joules": make_cost().seconds})
    assert rows.notes(make_entry(predicted=same))[2][0] == "predicted time and energy"


def test_budgets_are_held_against_the_whole_interval() -> None:
    plan = make_plan()
    verdicts = {row.quantity: row.verdict for row in rows.budget_rows(plan, Budget.model_validate(
        {"memory": "4GiB", "time": "115s", "energy": "1Wh"}))}  # fmt: skip
    # the interval of time reaches 125 s; that of energy begins above its limit; money is limited by the plan
    assert verdicts == {"peak memory": "fits", "time": "tight", "energy": "breaks", "money": "fits"}
    free = plan.model_copy(
        update={"stop": plan.stop.model_copy(update={"seconds": math.inf, "usd": math.inf, "joules": math.inf})}
    )
    assert rows.budget_rows(free, Budget()) == []


def test_hardware_rows_carry_sources_and_shares() -> None:
    found = {row.quantity: row for row in rows.hardware_rows(make_device())}
    assert found["matrix products, bf16"].share == "21 %"
    assert found["memory bandwidth"].measured == "27.1 GB/s"
    assert "Intel ARK" in found["matrix products, fp32"].source
    unknown = make_device().model_copy(update={"datasheet_flops_per_second": {}})
    assert rows.hardware_rows(unknown)[0].datasheet == "–"


def test_language_data_is_counted_in_tokens() -> None:
    dataset = make_dataset(
        kind="language", labels=(), label_counts={}, shape=(256,), vocabulary=4096, tokens={"train": 300_000}
    )
    said = dict(rows.dataset_rows(dataset))
    assert said["train split"] == "1,437 windows of 256 tokens"
    assert said["tokens"] == "train 300,000" and said["vocabulary"] == "4,096 tokens"


@given(st.floats(-0.999, 50))
def test_differences_are_short_and_signed(difference: float) -> None:
    text = rows.difference_text(difference)
    assert re.fullmatch(r"[+−]\d{1,2} %|0 %|\+100 %|−100 %|×\d+\.\d", text)
    assert text.startswith("−") == (round(difference * 100) < 0)


@given(st.floats(0, 1e13), st.floats(0, 1), st.sampled_from(sorted(rows.QUANTITIES)))
def test_ranges_name_both_bounds(value: float, share: float, quantity: str) -> None:
    text = rows.range_text(Interval.around(value, share, ""), quantity)
    high = rows.QUANTITIES[quantity][1](Interval.around(value, share, "").high)
    assert text.endswith(high)
