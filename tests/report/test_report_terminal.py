"""Where no terminal is, tables and the live view hold no control codes, and tables no line over 80 columns."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from made_runs import make_dataset, make_device, make_entry, make_plan
from rich.console import Console, RenderableType

from thrifty.report import (
    bill,
    catalogue_table,
    cleaning_table,
    hardware_table,
    ledger_table,
    plan_table,
    tuning_view,
)
from thrifty.report.live import LiveView
from thrifty.spec import Spent
from thrifty.spec.events import Evaluated, Planned, Progress, StageDone, StageStarted, StepDone, Warned
from thrifty.spec.tuning import Trial

TRIALS = [
    Trial(number=at, settings={"learning_rate": 1e-3, "schedule": "cosine", "batch": 32}, status="done", value=0.9,
          seconds=61.0)
    for at in range(3)
]  # fmt: skip
TABLES: dict[str, Callable[[], RenderableType]] = {
    "bill": lambda: bill(make_entry()),
    "plan": lambda: plan_table(make_plan()),
    "ledger": lambda: ledger_table([make_entry(), make_entry(status="failed")]),
    "hardware": lambda: hardware_table(make_device()),
    "catalogue": catalogue_table,
    "cleaning": lambda: cleaning_table(make_dataset()),
    "tuning": lambda: tuning_view("accuracy", TRIALS, 1, Spent(wall_s=183.0)),
}


def printed(show: Callable[[Console], None], **options: bool) -> str:
    file = io.StringIO()
    show(Console(file=file, width=80, **options))  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("terminal", [False, True], ids=["file", "no-color"])
def test_a_table_is_plain_text(name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = printed(lambda console: console.print(TABLES[name]()), force_terminal=terminal)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text), "a colour"
    if not terminal:
        assert "\x1b" not in text
        assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert text.strip()


def test_the_live_view_writes_whole_lines_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show(console: Console) -> None:
        with LiveView(console) as view:
            view(StageStarted("train"))
            view(Planned(make_plan(), make_device()))
            for number in range(1, 200):
                view(StepDone(number, 200, number / 50, 0.5, 1e-3, 1.0, 640.0, 0.05))
                view(Progress("train", number, 200, "steps"))
            view(Evaluated(200, 4.0, {"accuracy": 0.9}, True, 1e-3, 0.1))
            view(Warned("words " * 60))
            view(StageDone("train", "done", Spent(wall_s=10)))

    text = printed(show, force_terminal=False)
    assert "\x1b" not in text and "\r" not in text
    assert len(text.splitlines()) == 3, "a line an event that lasts, however long: whoever reads a file wraps it"
