"""The live view: whole lines where there is no terminal, a bar where there is one, users' text never as markup."""

from __future__ import annotations

import io

import pytest
from made_runs import make_device, make_plan
from rich.console import Console

from thrifty.report.live import LiveView
from thrifty.spec import Spent
from thrifty.spec.events import (
    Evaluated,
    Event,
    Planned,
    Progress,
    Resumed,
    StageDone,
    StageStarted,
    StepDone,
    Warned,
)

HOSTILE = "[red]not red[/] [/nothing]"
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
        "step 20, epoch 2.00: accuracy 0.975, loss 0.1",
        "✓ train         1m 01s        0 B  all 20 steps done",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_in_a_terminal_the_bar_says_loss_speed_and_what_is_left(width: int) -> None:
    plan = make_plan()
    text = shown([Planned(plan, make_device()), *EVENTS], terminal=True, width=width)
    assert "loss 0.0" in text
    if width >= 80:
        for part in ("640/s", "% of peak", "left"):
            assert part in text
