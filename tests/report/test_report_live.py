"""The live view: whole lines where there is no terminal, a bar where there is one, users' text never as markup."""

from __future__ import annotations

import io
import itertools
import re

import pytest
from made_runs import make_device, make_plan
from rich.console import Console

from thrifty.report.live import LiveView
from thrifty.spec import Spent
from thrifty.spec.events import (
    Evaluated,
    Event,
    Narrowed,
    Planned,
    Progress,
    Resumed,
    StageDone,
    StageStarted,
    StepDone,
    Warned,
)

HOSTILE = "[red]not red[/] [/nothing]"
CONTROL = r"[\n\r]|\x1b\[[0-9;?]*[A-Za-z]"
EVENTS: list[Event] = [
    StageStarted("prepare"),
    Progress("prepare", 10, 20, "files"),
    Warned(HOSTILE),
    StageDone("prepare", f"20 kept of {HOSTILE}", Spent(wall_s=1.5, peak_rss_bytes=2**20)),
    StageStarted("train"),
    Resumed(3),
    *(StepDone(step, 20, step / 10, 1.0 / step, 0.1, 0.5, 640.0, 0.1) for step in range(4, 21)),
    Evaluated(20, 2.0, {"accuracy": 0.975, "loss": 0.1}, True, 0.1, 0.2),
    StageDone("train", "all 20 steps done", Spent(wall_s=61.0)),
]


def shown(events: list[Event], *, terminal: bool, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    with LiveView(console) as show:
        for event in events:
            show(event)
            show.bar.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_it_prints_whole_lines() -> None:
    lines = [line.strip() for line in shown(EVENTS, terminal=False).splitlines()]
    assert lines == [
        f"! {HOSTILE}",
        f"✓ prepare        1.5 s    1.0 MiB  20 kept of {HOSTILE}",
        "going on from step 3",
        "step 20, epoch 2.00: accuracy 0.975, loss 0.1, the best",
        "✓ train         1m 01s        0 B  all 20 steps done",
    ]


@pytest.mark.parametrize("width", [60, 80, 110])
def test_in_a_terminal_the_bar_says_what_there_is_width_for(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100.0, 1e-6)
    monkeypatch.setattr("thrifty.report.live.time.perf_counter", lambda: next(clock))
    # what is left goes towards nothing within these few steps: its money alone would be too short to tell
    train = [StageStarted("train"), EVENTS[-2], *(each for each in EVENTS if isinstance(each, StepDone))]
    text = shown([Planned(make_plan(), make_device()), *train], terminal=True, width=width)
    bars = [line for line in re.split(CONTROL, text) if "loss 0." in line]
    assert bars and all(len(bar.rstrip()) <= width and "…" not in bar for bar in bars)
    kept = {"loss": 60, " left": 60, "val 0.975 best": 80, "640 samples/s": 110, "% of peak": 110}
    for part, least in kept.items():
        assert all(part in bar for bar in bars) == (width >= least), part


def test_in_a_terminal_a_long_line_goes_on_below_its_text() -> None:
    reason = "CUDA out of memory. " * 6
    text = shown([Narrowed(148, "training", 64, 32, reason)], terminal=True, width=80)
    told = [line for line in re.split(CONTROL, text) if line]
    assert told[0].startswith("  ! training at step 148: 32") and told[0].endswith("until now: CUDA")
    assert all(line.startswith("    ") and len(line) <= 80 for line in told[1:]) and len(told) == 3
    done = StageDone("train", "all 276 steps done; for memory 16 samples at once, not 64", Spent(wall_s=61.0))
    below = [line for line in shown([done], terminal=True, width=80).splitlines() if line.endswith("not 64")]
    assert below == [f"{' ' * 37}at once, not 64"]


def test_a_stage_that_left_something_else_than_wanted_is_marked() -> None:
    says = "the loss of step 27 is nan, after 2 roll-backs"
    for trouble, mark in ((False, "✓"), (True, "!")):
        text = shown([StageDone("train", says, Spent(wall_s=61.0), trouble)], terminal=False, width=120)
        assert text.strip().startswith(f"{mark} train") and says in text
