"""What a notebook shows is a fragment of HTML: every figure of the terminal's tables, no script, nothing unescaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from made_runs import make_entry

from thrifty.report.cell import proposal_cell, run_cell, tuning_cell
from thrifty.report.rows import Aside
from thrifty.spec.cost import Cost, Interval
from thrifty.spec.plan import Decision
from thrifty.spec.proposal import Offer, Proposal
from thrifty.spec.tuning import Trial

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") or name == "src" for name, _ in attrs)


def whole(html: str) -> str:
    assert Tags(html).found <= {"div", "style", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl",
                                "dt", "dd"}  # fmt: skip
    assert html.lstrip().startswith('<div class="thrifty-cell">') and html.rstrip().endswith("</div>")
    return html


def interval(value: float) -> Interval:
    return Interval.around(value, 0.1, HOSTILE)


def offered() -> Proposal:
    cost = Cost(
        seconds=interval(3600),
        peak_bytes=interval(2**33),
        joules=interval(9e5),
        usd=interval(2.5),
        flops=interval(1e15),
    )
    offer = Offer(says=f"bf16 {HOSTILE}", settings={}, cost=cost, step_seconds=0.5, mark="chosen")
    why = (Decision(field="precision", value="bf16", reason=HOSTILE, source="search"),)
    return Proposal(
        job="digits", model="resnet8", where="this machine", parameters=78_042, steps=1_350, batch=32, length=0,
        offers=(offer,), front=(), why=why, time_goes={"matmul": 1.0}, memory_holds={}, limits=(), candidates=9,
        priced=3, planning_seconds=0.2,
    )  # fmt: skip


def test_a_plan() -> None:
    html = whole(proposal_cell(offered()))
    for said in ("1h 00m", "8.0 GiB", "±10 %", "$2.50", "why this one", "100 % matmul", "&lt;script&gt;"):
        assert said in html, said


def test_a_run(tmp_path: Path) -> None:
    metrics = {"accuracy": 0.9861, "accuracy_low": 0.95, "accuracy_high": 0.99, "loss": 0.05, "samples": 180.0}
    entry = make_entry(name=HOSTILE, reason=HOSTILE)
    html = whole(run_cell(entry, Aside(wasted_s=9.73), metrics=metrics, page=tmp_path / "report.html"))
    for said in ("accuracy 0.9861 (0.9500 to 0.9900)", "1m 37s", "wasted", "1m 22s – 1m 45s", "report.html"):
        assert said in html, said
    assert "failed" in whole(run_cell(make_entry(status="failed", metrics={}, predicted=None, stages=())))


def test_a_search() -> None:
    trials = [Trial(number=at, settings={"rate": 0.1 / (at + 1)}, status="done", value=0.9, seconds=3) for at in (0, 1)]
    html = whole(tuning_cell("accuracy", trials, 1, HOSTILE))
    assert html.count("<tr>") == 3 and "90.0 %" in html and "▸" in html and "2 trials" in html
