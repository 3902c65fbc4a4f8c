"""What a budget should buy as shown: the terminal at 80 columns, the page, a notebook's cell; hostile names escaped."""

from __future__ import annotations

import io
import math
import sys
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console
from two_languages import english_left

sys.path.insert(0, str(Path(__file__).parent.parent / "scale"))
from made_curves import DATA, SIZES, points

from thrifty.api.notebook import html_of
from thrifty.report.scale_figures import scale_figures
from thrifty.report.scale_page import write_scaled
from thrifty.report.scale_tables import scale_view
from thrifty.report.words import chinese, english, figure_words
from thrifty.scale import fit
from thrifty.scale.notes import notes_of
from thrifty.spec import Interval, Spent
from thrifty.spec.scaling import Buy, Carried, Purse, Scaled, Size, SmallRun

HOSTILE = "<img src=x onerror=alert(1)>"


def size(parameters: int) -> Size:
    width = 16 * round(math.sqrt(parameters / 48) / 16)
    return Size(
        model=f"gpt-nano@4x{width}x{width // 16}",
        layers=4,
        width=width,
        parameters=parameters,
        whole=parameters,
        flops=1e6,
    )


@cache
def scaled(*, determined: bool = True, name: str = "tiny") -> Scaled:
    curve = fit(points(), 1e6, draws=10)
    spent = Spent(wall_s=3.0, joules=50.0, usd=1e-4)
    runs = [
        SmallRun(
            size=size(point.parameters),
            use="curve",
            steps=int(point.data / 1000),
            batch=16,
            data=point.data,
            learning_rate=2e-3,
            loss=point.loss,
            spent=spent,
            fresh=point.data > DATA[0],
            folder="",
        )
        for point in points()
    ]
    runs += [
        runs[at].model_copy(update={"use": "rate", "learning_rate": 4e-3, "loss": 1.01 * runs[at].loss})
        for at in (0, 9)
    ]
    offers = [
        Buy(
            size=size(parameters),
            steps=4000,
            batch=16,
            data=4e6,
            epochs=4.0,
            learning_rate=2e-3,
            loss=curve.loss(parameters, 4e6),
            flops=1e13,
            share=0.5,
        )
        for parameters in (*SIZES, 2_000_000)
    ]
    return Scaled(
        job=name,
        unit="tokens",
        budget=Purse(quantity="flops", amount=1e14),
        left=Purse(quantity="flops", amount=9e13),
        where="this machine: test",
        runs=tuple(runs),
        carried=Carried(how="mup", rate=2e-3, width=32, power=0.0, init="mup", says=f"muP says {HOSTILE}"),
        curve=curve,
        offers=tuple(offers),
        best=3,
        parameters=Interval(low=1e5, value=350_000, high=2e6, method=""),
        determined=determined,
        foreseen=Interval.around(60.0, 0.5, ""),
        spent=spent,
        reused=spent,
        fit=spent,
        notes=(f"mind {HOSTILE}",),
        best_job="runs/tiny-scale/best.yaml",
        page="runs/tiny-scale/scale.html",
    )


def terminal(found: Scaled) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(scale_view(found))
    return file.getvalue()


def test_the_terminal_has_what_to_buy_and_the_bill_at_80_columns() -> None:
    shown = terminal(scaled())
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    assert f"▸ {scaled().offers[3].size.model}" in shown
    said = " ".join(shown.split())
    assert "8 small runs took" in said and "6 had run before" in said and "90.0 TFLOP of 100.0 TFLOP are left" in said


def test_what_is_not_determined_is_shown_as_an_interval_without_a_point() -> None:
    found = scaled(determined=False)
    shown = terminal(found)
    assert "not determined; between 100.0 k and 2.0 M parameters" in " ".join(shown.split())
    assert "▸" not in shown
    valley = scale_figures(found)[0]
    assert "not determined" in english(valley.says) and len(valley.data) == 2


@pytest.mark.parametrize("determined", [True, False], ids=["determined", "open"])
def test_the_page_stands_alone_and_escapes_what_users_name(tmp_path: Path, determined: bool) -> None:
    page = write_scaled(tmp_path / "scale.html", scaled(determined=determined, name=HOSTILE)).read_text()
    assert HOSTILE not in page
    assert "&lt;img src=x" in page
    head = page.partition("<style>")[0]
    assert "default-src &#39;none&#39;" in head and not any(each in head for each in ("stylesheet", "<script", "<img"))
    for figure in ("valley", "curves", "rates"):
        assert f'id="{figure}"' in page


@pytest.mark.parametrize("determined", [True, False], ids=["determined", "open"])
def test_its_chinese_leaves_no_english_but_names(tmp_path: Path, determined: bool) -> None:
    found = scaled(determined=determined)
    page = write_scaled(tmp_path / "scale.html", found).read_text()
    assert (
        english_left(page.partition('<script type="application/json"')[0], HOSTILE, "says", "mind", "test", "tiny")
        == []
    )
    figures = [figure._asdict() for figure in scale_figures(found)]
    words = figure_words(figures, whole=True)
    for figure in figures:
        assert figure["title"] in words and all(label in words for label, _, _ in figure["key"]), figure["key"]


def test_the_notes_of_an_answer_are_said_in_chinese() -> None:
    best = scaled().offers[3]
    offers = tuple(each.model_copy(update={"flops": 1e13 * (at + 1)}) for at, each in enumerate(scaled().offers))
    far = best.model_copy(update={"data": 1e9, "data_bound": True, "batch": 64})
    undetermined = scaled(determined=False)
    cases = (
        scaled(),
        undetermined,
        *(
            undetermined.model_copy(
                update={
                    "parameters": Interval(low=1e5, value=2e5, high=3e5, method=""),
                    "curve": undetermined.curve.model_copy(update={"bounds": bounds}),
                }
            )
            for bounds in (("size power",), ("floor", "data power"))
        ),
        scaled().model_copy(update={"offers": (*offers[:3], far, *offers[4:]), "unit": "samples"}),
        scaled().model_copy(update={"best": len(offers) - 1}),
    )
    notes = [note for found in cases for note in notes_of(found, 16, on=True)]
    assert len(set(notes)) >= 8
    left = [note for note in notes if chinese(note) == note]
    assert left == []


def test_a_notebook_shows_it() -> None:
    html = html_of(scaled(name=HOSTILE))
    assert HOSTILE not in html and "<script" not in html
    assert scaled().offers[3].size.model in html and "the bill" in html
