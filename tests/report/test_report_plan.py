"""A proposal for a reader: 80 columns in the terminal, one self-contained page, drawn by a real browser."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from two_languages import english_left

from thrifty.report import proposal_view, write_proposal
from thrifty.report.plan_figures import proposal_figures
from thrifty.report.plan_tables import limit_text, paragraphs, shares_text
from thrifty.report.words import figure_words
from thrifty.spec import Cost, Decision, Interval
from thrifty.spec.proposal import Doubling, Limit, Machine, Offer, Probing, Proposal, Timeline

HOSTILE = """<script>alert(1)</script>"'&amp;</pre>{{ 7*7 }}"""


def offer(says: str, seconds: float, gib: float, mark: str = "front", usd: float = 5.0) -> Offer:
    def q(value: float, share: float = 0.1) -> Interval:
        return Interval.around(value, share, f"predicted {HOSTILE}")

    cost = Cost(seconds=q(seconds), peak_bytes=q(gib * 2**30), joules=q(seconds * 300), usd=q(usd), flops=q(1e15))
    return Offer.model_validate(
        {"says": says, "settings": {"tensor": 2}, "cost": cost, "step_seconds": seconds / 100, "mark": mark}
    )


def proposal(**changes: object) -> Proposal:
    chosen = offer("bf16 · tensor 8 x pipeline 16 x data 8 · checkpointed · micro-batch 4", 90_000, 60, "chosen")
    usual = offer("bf16 · ZeRO-3", 150_000, 40, "usual").model_copy(update={"remark": "as most people run it"})
    front = (chosen, offer("the same, offload", 120_000, 30), offer("the same, ZeRO-3", 200_000, 12))
    return Proposal(
        job="a_long_name_of_a_job", model="gpt3-175b", where="a100-80g:8x128: 1,024 x A100 SXM 80 GB",
        parameters=174_600_000_000, steps=95_368, batch=1536, length=2048, offers=(*front, usual), front=front,
        why=(
            Decision(field="tensor", value="8", reason="with 4 it is slower", source="search", doubt="by 5 %"),
            Decision(field=HOSTILE, value=HOSTILE, reason=HOSTILE, source="search"),
        ),
        time_goes={"matrix products": 0.7, "pipeline bubble": 0.3},
        memory_holds={"weights": 2.0**34, "activations": 2.0**35},
        limits=(Limit(quantity="peak_bytes", limit=2.0**36, predicted=2.0**35, high=2.0**35.5, says="the device"),),
        limited_by=(Doubling(number="arithmetic", seconds=50_000, speedup=1.8),),
        cheaper_still=("fp8 would save 30 %",), notes=("outside what was calibrated",),
        timeline=Timeline(says="memory", axis="operators", at=(0, 1, 2), held={"weights": (1e9, 1e9, 1e9)}),
        probed=(Probing(says="bf16", predicted_step_s=1.0, measured_step_s=1.2, steps=5),),
        candidates=5120, priced=300, planning_seconds=2.5,
    ).model_copy(update=changes)  # fmt: skip


def surveyed() -> Proposal:
    rows = tuple(
        Machine(
            name=f"h100:8x{count}", device="H100 SXM", devices=8 * count, offer=offer("bf16", 1e6 / count, 60, usd=usd),
            speedup_of_doubling=1.9 if count > 1 else 0.0, pays=count < 8, on_front=count < 8,
        )
        for count, usd in ((1, 1000.0), (4, 1200.0), (8, 0.0))
    )  # fmt: skip
    return proposal(offers=(), machines=rows, limits=(), time_goes={}, memory_holds={}, timeline=None, limited_by=())


def shown(said: Proposal, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(proposal_view(said))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal_and_says_all(width: int) -> None:
    text = shown(proposal(), width)
    assert max(map(len, text.splitlines())) <= width
    for said in (
        "▸",
        "why this one",
        "doubt",
        "where time goes",
        "your limits",
        "what limits it",
        "cheaper still",
        "mind",
    ):
        assert said in text
    assert "as most people run it" in " ".join(text.split())


def test_machines_are_listed_the_cheapest_first_and_those_without_a_price_say_so() -> None:
    text = shown(surveyed())
    assert text.index("h100:8x1 ") < text.index("h100:8x4")
    assert "no price" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("source", ["rule", "probe", "job"])
def test_how_often_it_is_validated_is_said_once_whatever_decided_it(source: str) -> None:
    reason = "a validation takes 400 ms, a step 140 ms"
    looks = Decision.model_validate({"field": "evaluate_every", "value": "54", "reason": reason, "source": source})
    said = paragraphs(proposal(why=(*proposal().why, looks)))
    assert [line for line in said if reason in line[1]] == [("validated", f"every 54 steps: {reason}")]
    assert "validated" not in dict(paragraphs(proposal()))


def test_nothing_fits_is_said_with_what_would() -> None:
    empty = proposal(offers=(), front=(), limits=(), would_fit=("memory a device of 90 GiB instead of 80 GiB",))
    assert not empty.fits
    assert ("nothing fits" in shown(empty)) and ("90 GiB instead of 80 GiB" in shown(empty))
    assert dict(paragraphs(empty))["what would fit"].startswith("memory a device")


def test_texts() -> None:
    assert shares_text({"a": 1.0, "attention": 1.0}) == ("50 % a · 50 % attention", "a：50 % · 注意力：50 %")
    tight = Limit(quantity="seconds", limit=60, predicted=50, high=70, says="your budget")
    assert limit_text(tight) == ("time 1m 00s ✓ tight", "时间：1m 00s ✓ 勉强")
    assert limit_text(tight.model_copy(update={"predicted": 65})).en == "time 1m 00s ✗"


@pytest.mark.parametrize("said", [proposal(), surveyed(), proposal(offers=(), front=(), timeline=None)])
def test_the_page_stands_alone_and_escapes(said: Proposal, tmp_path: Path) -> None:
    html = write_proposal(tmp_path / "plan.html", said).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in html
    assert "{{ 7*7 }}" in html or "49" not in html
    assert "src=" not in html.split("<script")[0]
    assert len({figure.id for figure in proposal_figures(said)}) == len(proposal_figures(said))


@pytest.mark.parametrize("said", [proposal(), surveyed(), proposal(offers=(), front=(), timeline=None)])
def test_its_chinese_leaves_no_english_but_names_and_the_planners_own_words(said: Proposal, tmp_path: Path) -> None:
    html = write_proposal(tmp_path / "plan.html", said).read_text(encoding="utf-8")
    assert english_left(html.partition('<script type="application/json"')[0], proposal().job) == []
    words = figure_words([figure._asdict() for figure in proposal_figures(said)], whole=True)
    for figure in proposal_figures(said):
        for label, _, _ in figure.key:
            assert label in words, label


@pytest.mark.browser
@pytest.mark.slow
def test_a_button_changes_its_language(tmp_path: Path, chromium: Any) -> None:
    page_file = write_proposal(tmp_path / "plan.html", proposal())
    faults: list[str] = []
    page = chromium.new_page()
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_function("!document.querySelector('.plot:not([data-drawn])')")
    assert page.title() == "a_long_name_of_a_job: the plan, 25h 00m"
    page.get_by_role("button", name="中文").click()
    page.wait_for_function("document.querySelector('#front .xtitle')?.textContent === '每个设备的内存，GiB'")
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.inner_text("#ways") == "有哪些方案"
    assert page.get_by_role("region", name="方案", exact=True).count() == 1
    assert str(page.get_attribute("#front", "aria-label")).startswith("3 种不被胜过的方案")
    assert page.title() == "a_long_name_of_a_job：计划，25h 00m"
    assert "with 4 it is slower" in page.inner_text("main"), "the planner's own words stay"
    page.get_by_role("button", name="English").click()
    assert page.inner_text("#ways") == "The ways there are" and page.get_attribute("html", "lang") == "en"
    page.goto(f"{page_file.as_uri()}#zh")
    page.reload()
    assert page.inner_text("#ways") == "有哪些方案", "the address can ask for a language"
    page.close()
    assert faults == []


@pytest.mark.browser
@pytest.mark.parametrize("said", [proposal(), surveyed()])
def test_a_browser_draws_it_without_fault(said: Proposal, tmp_path: Path, chromium: Any) -> None:
    page_file = write_proposal(tmp_path / "plan.html", said)
    faults: list[str] = []
    page = chromium.new_page(viewport={"width": 400, "height": 800})
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_function("!document.querySelector('.plot:not([data-drawn])')")
    wide = page.evaluate("document.documentElement.scrollWidth")
    reasons = page.eval_on_selector_all(".why td.long:nth-child(3)", "all => all.map(each => each.clientWidth)")
    page.close()
    assert faults == []
    assert wide <= 400, "a phone need not scroll sideways"
    assert min(reasons) > 300, "a reason has the width of the phone, not a column of three letters"
