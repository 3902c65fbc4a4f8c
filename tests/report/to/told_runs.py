"""A run as writers hear it: an attempt that was killed, and one that went on from a checkpoint before that."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from made_runs import make_plan

from thrifty.report.to import open_writers
from thrifty.spec import Spent
from thrifty.spec.events import Ended, Evaluated, Event, Planned, StageStarted, StepDone, Warned

SPENT = Spent(wall_s=12.5, cpu_s=20.0, joules=900.0, usd=0.002, peak_rss_bytes=2**28, flops=1e12)
ENDED = Ended("done", "all 30 steps done", {"accuracy": 0.75, "loss": math.inf}, SPENT)


def step(number: int) -> StepDone:
    return StepDone(number, 30, number / 10, 1.0 / number, 0.1, math.nan, 640.0, 0.05)


def steps(first: int, last: int) -> list[Event]:
    """Steps, a validation after each tenth."""
    told: list[Event] = []
    for number in range(first, last + 1):
        told.append(step(number))
        if number % 10 == 0:
            told.append(Evaluated(number, number / 10, {"accuracy": number / 40, "loss": 0.5}, True, 0.1, 0.2))
    return told


def device_and_plan() -> Planned:
    from made_runs import make_device

    return Planned(make_plan(), make_device())


def tell(name: str, folder: Path, events: list[Event], *, seconds: float = 60.0) -> list[str]:
    """Tell one attempt to a writer; return what it warned of."""
    warned: list[Event] = []
    writers = open_writers([name], name="digits", folder=folder)
    for event in [StageStarted("train"), device_and_plan(), *events]:
        writers(event, warned.append)
    writers.close(warned.append, seconds)
    return [event.message for event in warned if isinstance(event, Warned)]


def tell_two_attempts(name: str, folder: Path) -> list[str]:
    """The first ends without a word after step 25; the second goes on after the checkpoint of step 18."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*tell(name, folder, steps(1, 25)), *tell(name, folder, [*steps(19, 30), ENDED])]


def check(read: Callable[[str], list[tuple[int, float]]]) -> None:
    """Hold what was read back, a figure's steps and values by its name, to what was told."""
    losses = read("train/loss")
    assert [number for number, _ in losses] == list(range(1, 31)), "each step once"
    assert all(abs(value - 1 / number) < 1e-6 for number, value in losses)
    assert [number for number, _ in read("train/learning_rate")] == list(range(1, 31))
    assert [(number, round(value, 4)) for number, value in read("validation/accuracy")] == [
        (10, 0.25), (20, 0.5), (30, 0.75)
    ]  # fmt: skip
    assert [value for _, value in read("test/accuracy")] == [0.75]
    assert [value for _, value in read("bill/joules")] == [900.0]
    assert read("train/gradient_norm") == [] and read("test/loss") == [], "what is no number is left out"
