"""Scales by depth are drawn by kind of layer; what was not measured is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from thrifty.report import write_page
from thrifty.report.scales import COLORS, scales
from thrifty.report.words import english
from thrifty.spec.events import Event, Initialised, Resumed

LAYERS = ("wte", *(f"h.{n}.{part}" for n in range(3) for part in ("attn", "mlp")), "head")


def seen(activations: list[float] | None = None, layers: tuple[str, ...] = LAYERS) -> Initialised:
    sizes = tuple(activations or [0.1 * 1.5**n for n in range(len(layers))])
    return Initialised(8, layers, sizes, tuple(1e-4 / (n + 1) for n in range(len(layers))))


def test_each_kind_of_layer_is_a_line_and_what_comes_once_is_grey() -> None:
    first, second = scales([seen()])
    assert [trace["name"] for trace in first.data] == ["h.*.attn", "h.*.mlp", "others"]
    assert first.data[0]["x"] == [2, 4, 6] and first.data[2]["x"] == [1, 8]
    assert first.data[1]["text"] == ["h.0.mlp", "h.1.mlp", "h.2.mlp"]
    assert [key[:2] for key in first.key[:2]] == [("h.*.attn", COLORS[0]), ("h.*.mlp", COLORS[1])]
    assert first.layout["yaxis"]["type"] == "log" and first.layout["xaxis"]["title"]["text"] == "layer"
    assert english(second.says).startswith(
        "Gradients by depth: root mean square of 8 layers in order of computation, from 1.25e-05"
    )


def test_zeros_and_what_is_no_number_are_told_and_left_out() -> None:
    first, _ = scales([seen([0.0, 1.0, math.nan, 2.0, math.inf, 4.0, 0.0, 1.0])])
    assert "from 1 to 4, and 0 in 2, and no numbers in 2." in english(first.says)
    assert [value for trace in first.data for value in trace["y"]].count(None) == 4
    nothing, _ = scales([seen([0.0] * 8)])
    assert "type" not in nothing.layout["yaxis"]


def test_layers_are_counted_in_whole_numbers() -> None:
    few, _ = scales([seen(layers=("embed", "head"))])
    assert few.layout["xaxis"]["dtick"] == 1
    many, _ = scales([seen()])
    assert "dtick" not in many.layout["xaxis"]


def test_more_kinds_than_colours_are_grey() -> None:
    layers = tuple(f"h.{n}.{part}" for n in range(2) for part in "abcdefgh")
    first, _ = scales([seen(layers=layers)])
    assert len(first.data) == len(COLORS) + 1 and len(first.data[-1]["x"]) == 4


@pytest.mark.parametrize("events", [[], [Resumed(3)], [Initialised(8, (), (), ())]], ids=["none", "other", "no layers"])
def test_nothing_is_drawn_of_nothing(events: list[Event]) -> None:
    assert scales(events) == []


def test_the_last_attempt_counts_and_plotly_knows_every_attribute() -> None:
    import plotly.graph_objects as go

    figures = scales([seen([9.0] * 8), seen()])
    assert figures[0].data[0]["y"][0] == pytest.approx(0.15)
    for figure in figures:
        go.Figure(data=figure.data, layout=figure.layout)


def test_they_are_on_the_page(tmp_path: Path, run: dict[str, Any]) -> None:
    hostile = "<img src=x>.0"
    html = write_page(tmp_path / "a.html", **run, others=[seen(layers=(hostile, *LAYERS[1:]))]).read_text()
    assert "Before the first step" in html and "over 8 samples:" in html and hostile not in html
    assert "Before the first step" not in write_page(tmp_path / "b.html", **run).read_text()
