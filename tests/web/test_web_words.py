"""Two languages on every page: templates and scripts say what the table has, and its Chinese leaves no English."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from made_site import Shown
from test_web_plan_page import proposal
from test_web_studies import HOSTILE, make_study
from two_languages import Bare, constants, english_left

from thrifty.report.words import chinese, words_of
from thrifty.web.plan_page import told
from thrifty.web.render import PAGES, SCRIPTS, texts_of
from thrifty.web.served_page import _texts

TEMPLATES = {each.name: each.read_text("utf-8") for each in files("thrifty.web").joinpath("pages").iterdir()}
SOURCES = {name: files("thrifty.web").joinpath("static", name).read_text("utf-8") for name in SCRIPTS}
# what is the same in both languages, and the look of a body
NAMES = {"thrifty", "English", "中文", "full"}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_text_of_a_template_is_in_the_table_and_none_stands_outside_of_it(name: str) -> None:
    said = constants(TEMPLATES[name])
    assert [text for text in said if chinese(text) == text] == []
    assert Bare(TEMPLATES[name]).words <= NAMES


def test_the_pages_have_names() -> None:
    assert all(chinese(says) != says for _, _, says in PAGES)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_text_of_a_script_is_in_the_table_and_none_stands_outside_of_it(name: str) -> None:
    script = re.sub(r"//.*", "", SOURCES[name])
    said = texts_of(script)
    assert [text for text in said if text != "{what} · {where}" and chinese(text) == text] == []
    rest = re.sub(r'\bt\(\s*"(?:[^"\\]|\\.)*"', "t(", script)
    texts = [each[1:-1] for each in LITERAL.findall(rest)]
    assert [text for text in texts if READ.search(text) and text not in KEPT] == []


LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|`(?:\\.|[^`\\])*`')
# what people read are words one after the other, or a word with a capital
READ = re.compile(r"[A-Za-z]{3,}[,;]? [a-z]{3,}|^[A-Z][a-z]{2,}[.!?]?$")
# what names a look, or elements
KEPT = {"dot pale", "status not-done", "button, input"}


@pytest.mark.slow
def test_the_chinese_of_a_page_leaves_no_english_but_names(
    shared: Shown, numbers: dict[str, int], tmp_path: Path
) -> None:
    two = f"run={numbers['digits']}&run={numbers['wider']}"
    paths = ["/", "/?q=zebra", f"/compare?{two}", "/ledger", "/studies", "/served", "/plan", "/runs/999"]
    paths += [f"/runs/{number}" for number in numbers.values()] + [f"/runs/{numbers['digits']}?course=1"]
    # errors are told in English, and so is what the made runs say
    names = ("resnet8", "Intel Xeon Platinum", "train.batch", "The disk is full", "All steps done")
    for path in paths:
        html = re.sub(r'<script type="application/json".*?</script>', "", shared.client.get(path).text, flags=re.DOTALL)
        assert english_left(html, *numbers, *names) == [], path


@pytest.mark.slow
def test_what_a_study_says_is_in_both(site: Shown, runs: Path) -> None:
    make_study(runs / "digits-tune")
    html = re.sub(r'<script type="application/json".*?</script>', "", site.client.get("/studies").text, flags=re.DOTALL)
    settings = (HOSTILE, "digits-tune", "learning_rate", "schedule", "batch", "cosine", "fixed")
    assert "5 次试验：完成 2 个，剪掉 1 个" in html and english_left(html, *settings) == []


def test_what_is_planned_is_told_in_both() -> None:
    said = told(proposal())
    assert said["what"].zh == "digits · resnet8，78.0 k 个参数 · 1,350 步，每步 32 个"
    assert said["ways"][0]["name"].zh == "bf16 · 每次 32 个" and said["ways"][2]["remark"].en == ""
    labels = dict(said["said"])
    assert labels[("searched", "搜索过")].zh.startswith("9 种方案，其中 4 种标了价")


def test_what_a_server_says_is_looked_for_and_no_deeper_than_it_should() -> None:
    deep: object = "Requests"
    for _ in range(40):
        deep = [deep]
    answer = {"cards": {"models": [{"versions": [{"does": "goes on with a text"}]}]}, "bill": deep}
    assert words_of(_texts(answer)) == {"goes on with a text": "续写文本"}
    assert words_of(_texts({"tiles": {"a:1": [{"more": "median; 99 in 100: 20.0 ms"}]}})) == {
        "median; 99 in 100: 20.0 ms": "中位数；百分之九十九：20.0 ms"
    }
