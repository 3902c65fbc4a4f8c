"""The worst mistakes are shown by their kind, escaped, and the reliability diagram says what was counted."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_left, make_mistakes, make_sound

from thrifty.report import write_page
from thrifty.report.mistakes import calibration_figures, calibration_shown, mistakes_shown
from thrifty.spec.mistakes import Calibration, Mistake

HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(tmp_path: Path, run: dict[str, Any], *worst: Mistake, **changes: Any) -> str:
    left = make_left(mistakes=make_mistakes(worst=worst, **changes), beside=None)
    return write_page(tmp_path / "r.html", **run, left=left).read_text(encoding="utf-8")


def test_a_picture_stands_in_the_page_itself(tmp_path: Path, run: dict[str, Any]) -> None:
    html = page(tmp_path, run, *make_mistakes().worst)
    images = [attrs for tag, attrs in Tags(html).found if tag == "img"]
    assert len(images) == 2 and images[0]["alt"] == "test sample 0"
    source = images[0]["src"] or ""
    assert source.startswith("data:image/png;base64,") and base64.b64decode(source.split(",")[1])[1:4] == b"PNG"
    assert "2 of 180 test samples were answered wrongly; here are the 2 of the greatest loss." in html
    assert "said <b><bdi>1</bdi></b>, and it is <b><bdi>8</bdi></b>" in html and "sure to 97 %" in html


def test_sounds_texts_and_rows_are_shown_as_they_are(tmp_path: Path, run: dict[str, Any]) -> None:
    sound = Mistake(sample=3, loss=1.5, wanted="seven", said="nine", wav=make_sound(), name="7_theo_1.wav")
    text = Mistake(sample=4, loss=2.5, wanted="good", said="bad", text="not bad at all")
    row = Mistake(sample=5, loss=3.5, wanted="1,200", said="90", row={"age": "45", "job": "clerk"})
    html = page(tmp_path, run, sound)
    (player,) = (attrs for tag, attrs in Tags(html).found if tag == "audio")
    assert base64.b64decode((player["src"] or "").split(",")[1])[:4] == b"RIFF" and player["preload"] == "metadata"
    assert "media-src data:" in html and "<blockquote><bdi>not bad at all" in page(tmp_path, run, text)
    shown = page(tmp_path, run, row, calibration=None)
    assert "<dt><bdi>age</bdi></dt><dd><bdi>45</bdi></dd>" in shown and "missed the farthest" in shown


def test_hostile_samples_are_text(tmp_path: Path, run: dict[str, Any]) -> None:
    worst = Mistake(
        sample=1, loss=float("inf"), wanted=HOSTILE, said=HOSTILE, name=HOSTILE, text=HOSTILE, row={HOSTILE: HOSTILE},
        png=HOSTILE, wav=HOSTILE,
    )  # fmt: skip
    found = Tags(page(tmp_path, run, worst)).found
    assert sum(tag == "script" for tag, _ in found) == 4
    assert not any(name.startswith("on") for _, attrs in found for name in attrs)
    sources = [attrs["src"] or "" for tag, attrs in found if "src" in attrs]
    assert len(sources) == 2 and all(each.startswith("data:") for each in sources)


def test_nothing_wrong_is_said() -> None:
    shown = mistakes_shown(make_mistakes(worst=(), wrong=0))
    assert shown["says"].en == "All of the 180 test samples were answered rightly." and shown["worst"] == []


@pytest.mark.parametrize(
    ("right", "says"),
    [(0.5, "It is surer than it is right."), (0.9, "It is right more often"), (0.75, "It is as sure as it is right.")],
)
def test_which_way_confidence_leans(right: float, says: str) -> None:
    found = Calibration(counts=(0, 8), sure=(0.0, 0.75), right=(0.0, right), error=abs(right - 0.75))
    assert calibration_shown(found)["says"].startswith(says)


def test_the_diagram_shows_bins_that_hold_something() -> None:
    calibration = make_mistakes().calibration
    assert calibration is not None
    reliability, counts = calibration_figures(calibration)
    assert len(reliability.data[0]["x"]) == 6 and counts.data[0]["y"] == list(calibration.counts)
    assert "97% sure: 93% right of 110" in reliability.says[0]


def test_every_attribute_is_one_of_plotlys() -> None:
    import plotly.graph_objects as go

    from thrifty.report.answering import answering_figures
    from thrifty.report.traced import traced_figures

    left, calibration = make_left(), make_mistakes().calibration
    assert calibration is not None and left.traced is not None
    for each in (*calibration_figures(calibration), *traced_figures(left.traced), *answering_figures(left.answerings)):
        go.Figure(data=each.data, layout=each.layout)
