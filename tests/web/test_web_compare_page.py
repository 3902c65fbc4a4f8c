"""Runs beside one another: what differed, what it changed, what it cost."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_site import Shown

from thrifty.web.compare_page import differences, flat

pytestmark = pytest.mark.slow

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=12,
)


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def figures(html: str) -> dict[str, Any]:
    data = re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    return {each["id"]: each for each in json.loads(data[1])}


def test_two_runs_are_told_in_three_sentences(shared: Shown, numbers: dict[str, int]) -> None:
    html = shared.client.get(f"/compare?run={numbers['digits']}&run={numbers['wider']}").text
    said = text(html)
    assert "What differed: train.batch 32 → 64." in said
    assert "What it changed: accuracy 98.6 % → 97.2 %" in said
    assert "What it cost, against the first: time +36 %" in said
    assert "−1.4 points" in said
    rows = re.findall(r"<code>([\w.]+)</code></th><td class=\"soft\"><span class=\"en\">(\w+)", html)
    assert rows == [("train.batch", "asked"), ("batch.size", "planned"), ("batch.micro", "planned")]
    drawn = figures(html)
    assert set(drawn) == {"loss", "validation-accuracy"}
    assert [line["name"] for line in drawn["loss"]["data"]] == ["digits", "wider"]


def test_what_has_no_result_yet_is_compared_all_the_same(shared: Shown, numbers: dict[str, int]) -> None:
    html = shared.client.get(f"/compare?run={numbers['digits']}&run={numbers['now']}&run={numbers['killed']}").text
    assert "3 runs compared" in html and "What differed:" not in html, "sentences are of two"
    assert "Nothing in what was asked and planned" in html
    assert text(html).count("98.6 %") == 1


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "0 runs are chosen"),
        ("run=1", 400, "1 runs are chosen"),
        ("run=1&run=1", 400, "1 runs are chosen"),
        ("&".join(f"run={n}" for n in range(1, 9)), 400, "8 runs are chosen"),
        ("run=1&run=<b>", 400, "&lt;b&gt;&#39; is no number"),
        ("run=1&run=777", 404, "the ledger knows no run 777"),
        (f"run=1&run={10**30}", 404, "knows no run"),
    ],
    ids=["none", "one", "one twice", "eight", "no number", "unknown", "huge"],
)
def test_what_cannot_be_compared_is_told(
    shared: Shown, numbers: dict[str, int], query: str, status: int, says: str
) -> None:
    reply = shared.client.get(f"/compare?{query}")
    assert reply.status_code == status and says in reply.text


@given(VALUES)
def test_settings_of_any_form_are_written_flat(value: Any) -> None:
    for name, each in flat({"setting": value}).items():
        assert name.startswith("setting") and isinstance(each, str)


def test_what_is_the_same_is_left_out_and_what_is_lacking_is_a_dash() -> None:
    rows = differences([flat({"a": 1, "b": 2.0, "name": "x"}), flat({"a": 1, "b": 2.5, "c": None, "name": "y"})])
    assert [(row.what, row.cells) for row in rows] == [("b", ("2", "2.5"))]
    (row,) = differences([flat({"a": [1, {"b": 2}]}), {}])
    assert row.cells == ('1, {"b": 2}', "–")
