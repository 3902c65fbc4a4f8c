"""What happened on the way: every kind of event is shown somewhere, in words, with units, and counted."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from thrifty.report.happened import Mark, happened, marks, noted, summary, told
from thrifty.spec.events import (
    CheckpointDamaged,
    Checkpointed,
    CheckpointFailed,
    CheckpointsRemoved,
    Compiled,
    Ended,
    Evaluated,
    Event,
    Initialised,
    Lowered,
    Narrowed,
    Paused,
    Planned,
    Progress,
    RateLowered,
    Resumed,
    RolledBack,
    Skipped,
    StageDone,
    StageStarted,
    StepDone,
    Stopped,
    Tried,
    Warned,
    WentOn,
)

# drawn, counted in the bill, told to writers, or the reason why training ended
SHOWN_OTHERWISE = {
    Initialised, StageStarted, StageDone, Planned, Progress, StepDone, Evaluated, Checkpointed, Stopped, Ended, Tried,
}  # fmt: skip
ROWS: list[tuple[Event, str, str]] = [
    (Warned("mind the gap"), "mind the gap", ""),
    (CheckpointFailed(12, "no space"), "step 12 could not be saved: no space", ""),
    (
        CheckpointDamaged(1200, "/r/damaged-1200", "a sum is off"),
        "1,200 is damaged: a sum is off; it is kept as /r/",
        "",
    ),
    (CheckpointsRemoved(12, "step-4, step-8"), "checkpoint of step 12: step-4, step-8", ""),
    (Skipped(1500, 9.5, 3.25, 4.2, 0.5), "step 1,500 was skipped: loss 9.5, gradient norm 3.25, at most 4.2", "500 ms"),
    (Skipped(15, 9.5, 3.25, float("inf"), 0.5), "gradient norm 3.25; 500 ms wasted", "500 ms"),
    (RateLowered(15, 143, 0.5, 9.5, 3.0, 1.5), "0.5 of the schedule's until step 143, after 1.5 s of skipped", ""),
    (RolledBack(16, 8, 0.25, 9.5, 3.0, 90.0), "weights of step 8, at 0.25 of the learning rate; 1m 30s", "1m 30s"),
    (Narrowed(16, "training", 64, 32, "full"), "training at step 16: 32 samples at once from here on, 64 until", ""),
    (Resumed(1500), "going on from step 1,500", ""),
    (Paused(40), "paused as asked at step 40; what was learned is saved", ""),
    (WentOn(40, 90.0), "going on at step 40 after a pause of 1m 30s, which is on no bill", ""),
    (Lowered(40, "5m 00s"), "the budget is lower from step 40 on: 5m 00s of the whole run", ""),
    (Compiled(1, 12, 41.0), "compiled 12 blocks in 41.0 s, at step 1", ""),
    (Compiled(1, 1, 41.0), "compiled the model in 41.0 s", ""),
]


@pytest.mark.parametrize(("event", "says", "wasted"), ROWS)
def test_each_is_told_in_words_with_what_it_wasted(event: Event, says: str, wasted: str) -> None:
    text = told(event) or noted(event)
    assert says in text and type(event).__name__ not in text and "=" not in text
    (line,) = happened([event])
    assert line.wasted == wasted and line.says[0].isupper() and "wasted" not in line.says
    assert line.trouble == bool(told(event))


def test_there_is_no_kind_of_event_that_nobody_sees() -> None:
    assert {type(event) for event, _, _ in ROWS} | SHOWN_OTHERWISE == set(get_args(Event))
    assert not {type(event) for event, _, _ in ROWS} & SHOWN_OTHERWISE


def test_what_the_guard_and_memory_did_is_counted() -> None:
    skipped = [Skipped(step, 9.5, 3.0, 4.2, 0.5) for step in range(10, 16)]
    lowered, back = RateLowered(12, 140, 0.5, 9.5, 3.0, 1.5), RolledBack(15, 5, 0.5, 9.5, 3.0, 2.0)
    cuts = [Narrowed(16, "training", 64, 32, "full"), Narrowed(17, "training", 32, 16, "full")]
    assert summary([*skipped, lowered, back, back], 5.0) == (
        "6 steps were skipped, the rate was lowered once and weights were rolled back twice: 5.0 s of training wasted.",
        "跳过了 6 步，学习率降低了一次，权重回退了两次：浪费了 5.0 s 的训练。",
    )
    assert summary(skipped[:1], 0.5).en == "1 step was skipped: 500 ms of training wasted."
    assert summary(cuts, 0.0).en == "For memory, training took 16 samples at once in the end, not 64."
    assert summary([Narrowed(9, "validation", 512, 64, "full"), Resumed(9)], 0.0) == (
        "For memory, validation took 64 samples at once in the end, not 512.",
        "为节省内存，验证最后每次取 64 个样本，而不是 512 个。",
    )
    assert summary([Resumed(3), Compiled(1, 2, 3.0), Warned("mind")], 0.0) == ("", "")


def test_only_what_bears_on_a_curve_is_marked() -> None:
    found = marks([event for event, _, _ in ROWS] + [Narrowed(9, "validation", 512, 64, "full")])
    assert found == [
        Mark(1500, "skipped"), Mark(15, "skipped"), Mark(15, "rate lowered"), Mark(16, "rolled back"),
        Mark(16, "fewer at once"), Mark(1500, "gone on"), Mark(1, "compiled"), Mark(1, "compiled"),
    ]  # fmt: skip


def test_a_sentence_is_told_once() -> None:
    event = Skipped(15, float("nan"), float("nan"), 4.2, 0.5)
    assert len(re.findall("500 ms", told(event))) == 1
