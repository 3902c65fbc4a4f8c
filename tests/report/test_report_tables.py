"""Terminal tables: every figure is there, at 80 columns as at 110, and users' text is never markup."""

from __future__ import annotations

import io

import pytest
from made_runs import make_dataset, make_device, make_entry, make_plan
from rich.console import Console, RenderableType

from thrifty import hardware
from thrifty.report import bill, cleaning_table, hardware_table, ledger_table, plan_table
from thrifty.report.rows import Aside, ranks_text, share_text
from thrifty.spec import Budget, Cleaning


def shown(renderable: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", [80, 110])
def test_the_bill(width: int) -> None:
    text = shown(bill(make_entry()), width)
    assert "…" not in text  # nothing had to be cut
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for figure in ("1m 37s", "3m 08s", "588 MiB", "3.2 MiB", "8.2 TFLOP", "9.4 %", "2.7 Wh", "$0.0024"):
        assert figure in lines["train"]
    for figure in ("1m 47s", "2.9 Wh", "$0.0026"):
        assert figure in lines["total"]
    for figure in ("1m 52s", "1m 33s", "1m 22s – 1m 45s", "1m 37s", "+4 %", "✓"):
        assert figure in lines["time"]
    for note in ("no energy counter", "c7i.large", "5 probed steps", "83 % of the planned work"):
        assert note in " ".join(text.split())


def test_what_training_wasted_stands_in_the_bill_and_in_no_sum() -> None:
    plain, wasted = shown(bill(make_entry()), 80), shown(bill(make_entry(), Aside(wasted_s=9.73)), 80)
    lines = [line.split() for line in wasted.splitlines()]
    at = next(number for number, line in enumerate(lines) if line[:1] == ["train"])
    # a tenth of the time of training, and so of its energy and money
    assert lines[at + 1] == ["wasted", "9.7", "s", *["–"] * 5, "963", "J", "$0.0002"]
    assert "wasted" not in plain and lines[at + 4] == next(
        line.split() for line in plain.splitlines() if line.startswith("  total")
    )
    assert "rolled back; energy and money by their share" in " ".join(wasted.split())


@pytest.mark.parametrize(("share", "waits"), [(0.012, False), (0.14, True)])
def test_what_batches_took_is_in_the_bill(share: float, waits: bool) -> None:
    text = " ".join(shown(bill(make_entry(), Aside(loading_share=share)), 80).split())
    assert f"time of train {share_text(share)} of it waited for batches" in text
    assert ("training waits for its data" in text) is waits
    assert "waited for batches" not in shown(bill(make_entry()), 80)


def test_ranks_are_in_the_bill() -> None:
    ranks = (600 * 2**20, 580 * 2**20)
    text = " ".join(shown(bill(make_entry(), Aside(rank_bytes=ranks)), 80).split())
    assert "memory of train 2 ranks of 580 to 600 MiB, and what the process that started them" in text
    assert ranks_text((2**30, 2**30, 2**30)) == "3 ranks of 1.0 GiB"
    assert ranks_text((2**30, 2**29)) == "2 ranks of 512 MiB to 1.0 GiB"


def test_a_miss_is_marked() -> None:
    entry = make_entry()
    train = next(each for each in entry.stages if each.stage == "train")
    slow = train.model_copy(update={"spent": train.spent.model_copy(update={"wall_s": 400.0})})
    text = shown(bill(entry.model_copy(update={"stages": (slow,)})), 80)
    time = next(line for line in text.splitlines() if line.startswith("  time"))
    assert "×4.3" in time and "✗" in time


def test_a_bill_without_a_plan_or_stages_is_still_one() -> None:
    text = shown(bill(make_entry(predicted=None, stages=())), 80)
    assert "total" in text and "predicted" not in text


@pytest.mark.parametrize("width", [80, 110])
def test_a_plan(width: int) -> None:
    budget = Budget.model_validate({"memory": "4GiB", "time": "115s", "energy": "1Wh"})
    text = shown(plan_table(make_plan(), budget), width)
    assert "…" not in text
    flat = " ".join(text.split())
    assert "digits · resnet8 · 1,350 steps of 32 · bf16 on cpu" in text
    for decision in make_plan().why:
        assert decision.field in text and decision.reason.split()[0] in flat
    for line in ("551 – 673 MiB", "4.0 GiB 612 MiB ✓", "1m 55s 1m 52s ✓ tight", "1.0 Wh 3.1 Wh ✗ over"):
        assert line in flat


def test_the_ledger() -> None:
    entries = [
        make_entry(),
        make_entry(folder="/r/b", status="interrupted", predicted=None, stages=(), metrics={}),
    ]
    lines = shown(ledger_table(entries), 80).splitlines()
    assert lines[1].split()[:5] == ["✓", "digits", "2026-11-23", "1m", "52s"]
    assert "+4 %" in lines[1] and "98.6 %" in lines[1]
    assert lines[2].split()[:4] == ["‖", "b", "2026-11-23", "–"]
    assert "‖ interrupted: its job goes on when run again" in lines[3]
    assert "thrifty run" in shown(ledger_table([]), 80)


@pytest.mark.parametrize("width", [80, 110])
def test_hardware(width: int) -> None:
    device = make_device()
    text = shown(hardware_table(device, hardware.comparison(device)), width)
    assert text == shown(hardware_table(device), width)
    for figure in ("168.0 GFLOP/s", "4.9 TFLOP/s", "21 %", "27.1 GB/s", "120 W", "amx_bf16", "L2 4.0 MiB"):
        assert figure in text


def test_cleaning() -> None:
    text = shown(cleaning_table(make_dataset()), 80)
    for figure in ("1,437 images", "8 × 8 pixels, gray", "rejected: truncated", "1,801", "8 139", "! label '8'"):
        assert figure in text


def test_users_text_is_never_markup() -> None:
    hostile = "[red]not red [link=x.test]"
    labels = {hostile: 3, "b": 2}
    cleaning = Cleaning(seen=1, kept=1, rejected={hostile: 1}, duplicates=0, across_splits=0, notes=(hostile,))
    dataset = make_dataset(labels=tuple(labels), label_counts=labels, cleaning=cleaning)
    assert shown(cleaning_table(dataset), 110).count(hostile) == 3
    assert hostile in shown(ledger_table([make_entry(folder=f"/runs/{hostile}")]), 160)
    assert hostile.split()[0] in shown(bill(make_entry(reason=hostile)), 110)
