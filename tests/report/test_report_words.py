"""Two languages: every word of the page is in both, nothing of the template is left out, and a button changes them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_beside, make_left
from markupsafe import Markup
from two_languages import Bare, constants

from thrifty.report import write_page
from thrifty.report.chinese import CHINESE
from thrifty.report.words import (
    Pair,
    both,
    chinese,
    figure_words,
    in_parts,
    joined,
    labelled,
    option,
    pair,
    same,
    titled,
)

TEMPLATES = {
    name: files("thrifty.report").joinpath(name).read_text(encoding="utf-8")
    for name in ("page.html", "plan_page.html", "scale_page.html", "plot.html")
}
# what is the same in both languages
NAMES = {"thrifty", "UTF", "F1", "English", "中文"}
PLACEHOLDER = re.compile(r"\{\w+\}")


def test_every_text_is_in_both_languages() -> None:
    for english, other in CHINESE.items():
        assert english.strip() and other.strip(), english
        assert sorted(set(PLACEHOLDER.findall(english))) == sorted(set(PLACEHOLDER.findall(other))), english
        bare = PLACEHOLDER.sub("", other)
        assert english in {"softmax"} or re.search(r"[\u3000-\u9fff\uff00-\uffef·]", bare), (english, other)
        assert not re.search(r"[\u4e00-\u9fff]", english), english


@pytest.mark.parametrize(
    ("name", "least"), [("page.html", 90), ("plan_page.html", 25), ("scale_page.html", 10), ("plot.html", 0)]
)
def test_every_text_of_a_template_is_in_the_table(name: str, least: int) -> None:
    said = constants(TEMPLATES[name])
    assert len(said) >= least
    assert not [text for text in said if text and chinese(text) == text]


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_of_a_template_stands_outside_of_it(name: str) -> None:
    left = Bare(TEMPLATES[name]).words
    assert left <= NAMES, sorted(left - NAMES)


def test_what_varies_is_filled_in_and_said_too() -> None:
    assert chinese("Step 300 was skipped: loss nan, gradient norm inf, at most 4.2 was expected").startswith(
        "第 300 步"
    )
    assert chinese("rejected: truncated") == "拒绝：truncated"
    assert chinese("predicted time at 99 W") == "predicted time at 99 W", "a sentence is not said by halves"
    assert chinese("it did (accuracy reached 0.9); more") == "it did (accuracy reached 0.9); more"
    assert chinese("train 2") == "训练 2"
    assert chinese("it will do so far") == "it will do so far", "what counts has a figure in it"
    assert chinese("Validation accuracy") == "验证集准确率"
    assert pair("drop of {metric}", metric="loss") == Pair("drop of loss", "损失的下降")
    assert joined(["bf16", pair("{count} at once", count=4)]) == Pair("bf16, 4 at once", "bf16，每次 4 个")


@pytest.mark.parametrize("text", ["", " ", "resnet8", "reaches 3 of 4", "<b>", "a{b}c", "{0}", "train", "2 % of"])
def test_what_is_not_known_stays(text: str) -> None:
    assert chinese(text) == ("训练" if text == "train" else text)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_what_is_filled_in_cannot_break_out(text: str, value: str) -> None:
    for made in (both(text), both("predicted {due}", due=value), labelled("predicted {due}", due=value)):
        assert isinstance(made, Markup)
        bare = re.sub(r'<span class="(en|zh)"( lang="zh-Hans")?>|</span>', "", made)
        assert "<" not in bare and ">" not in bare
    assert labelled("predicted {due}", due=value).count('"') == 4


def test_figures_bring_their_words() -> None:
    figure = {
        "data": [{"name": "each step", "y": ["train", "mine", 3.0], "text": ["3 s"]}],
        "layout": {"xaxis": {"title": {"text": "step"}}},
    }
    assert figure_words([figure]) == {"each step": "每一步", "train": "训练", "step": "步"}


def test_the_page_opens_in_the_language_that_is_asked_for(tmp_path: Path, run: dict[str, Any]) -> None:
    english = write_page(tmp_path / "en.html", **run).read_text(encoding="utf-8")
    other = write_page(tmp_path / "zh.html", **run, language="zh").read_text(encoding="utf-8")
    assert '<html lang="en" data-language="en">' in english
    assert '<html lang="zh-Hans" data-language="zh">' in other
    for html in (english, other):
        assert '<span class="en">The bill</span><span class="zh" lang="zh-Hans">账单</span>' in html
    assert 'aria-label="the bill by stage" data-other-aria-label="各阶段的账单"' in english
    assert 'aria-label="各阶段的账单" data-other-aria-label="the bill by stage"' in other


@pytest.mark.browser
@pytest.mark.slow
def test_a_button_changes_the_language(tmp_path: Path, run: dict[str, Any], chromium: Any) -> None:
    run |= {"left": make_left()}
    page_file = write_page(tmp_path / "report.html", **run)
    page = chromium.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())

    def wait_for(expression: str) -> None:
        for _ in range(500):
            if page.evaluate(expression):
                return
            page.wait_for_timeout(20)
        pytest.fail(f"never true: {expression}")

    title, name = "document.querySelector('#learning-rate .xtitle')?.textContent", "#bill ~ .wide"
    wait_for(f"{title} === 'step'")
    assert page.inner_text("#bill") == "The bill"
    assert page.get_attribute(name, "aria-label") == "the bill by stage"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for(f"{title} === '步'")
    assert page.inner_text("#bill") == "账单"
    assert page.get_attribute(name, "aria-label") == "各阶段的账单"
    assert page.get_attribute("html", "lang") == "zh-Hans"
    visible = page.inner_text("main")
    assert "Training: measured" not in visible and "训练：实测与预测" in visible
    assert "digits/7/Thumbs.db" in visible, "names stay"
    page.set_viewport_size({"width": 390, "height": 800})
    wait_for("document.documentElement.scrollWidth <= 390")  # a figure takes the width of its column after a moment
    page.click("#language")
    wait_for(f"{title} === 'step'")
    assert page.inner_text("#bill") == "The bill"
    assert complaints == []
    page.close()


def test_another_trainers_sentence_is_in_both(tmp_path: Path, run: dict[str, Any]) -> None:
    run |= {"left": make_left(beside=make_beside(name="<b>theirs"))}
    html = write_page(tmp_path / "r.html", **run).read_text(encoding="utf-8")
    assert "Dashed, beside it: &lt;b&gt;theirs, by transformers.Trainer: 300 steps of 16 samples" in html
    assert "虚线为对照：&lt;b&gt;theirs" in html


def test_a_table_of_words_says_what_differs_part_by_part() -> None:
    assert in_parts("bf16 · tensor 8 x data 2 · checkpointed, 4 at once").zh == (
        "bf16 · 张量 8 x 数据 2 · 重算激活，每次 4 个"
    )
    assert option("<", "done") == '<option value="&lt;" data-other-text="完成">done</option>'
    assert titled("The bill", "zh") == '<title data-other-text="The bill">账单</title>'
    assert titled(same("<b>")) == '<title data-other-text="&lt;b&gt;">&lt;b&gt;</title>'


def test_every_picture_says_itself_in_both(tmp_path: Path, run: dict[str, Any]) -> None:
    run |= {"left": make_left(beside=make_beside())}
    html = write_page(tmp_path / "r.html", **run).read_text(encoding="utf-8")
    says = re.findall(r'class="plot".*?aria-label="([^"]+)" data-other-aria-label="([^"]+)"', html)
    assert len(says) >= 8
    assert [english for english, other in says if not re.search("[一-鿿]", other)] == []
