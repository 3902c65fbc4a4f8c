"""Inside a step: what holds memory at the peak and where time goes, as it was traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_runs import make_left, make_traced

from thrifty.report import write_page
from thrifty.report.traced import traced_figures, traced_shown


def test_each_figure_shows_what_was_traced() -> None:
    traced = make_traced()
    by_name = {each.id: each for each in traced_figures(traced)}
    assert list(by_name) == ["traced-memory", "traced-holds", "traced-modules", "traced-by-module", "traced-by-op"]
    assert by_name["traced-by-op"].data[0]["text"] == ["72 %", "16 %", "12 %"]
    assert traced_shown(traced)["place"] == "backward · layer1.0.conv1 · convolution_backward"


def test_what_was_not_told_is_left_out() -> None:
    traced = make_traced()
    bare = traced.model_copy(
        update={"modules": {}, "timeline": traced.timeline.model_copy(update={"at": (), "held": {}})}
    )
    assert [each.id for each in traced_figures(bare)] == ["traced-holds", "traced-by-module", "traced-by-op"]


def test_long_paths_keep_their_ends() -> None:
    names = {f"model{at}.encoder.layers.attention.output.dense": 1.0 for at in range(2)}
    traced = make_traced().model_copy(update={"modules": names})
    (figure,) = (each for each in traced_figures(traced) if each.id == "traced-modules")
    assert figure.data[0]["y"] == ["…yers.attention.output.dense"] and figure.data[0]["x"] == [2.0]


def test_the_page_says_that_nothing_of_it_ran(tmp_path: Path, run: dict[str, Any]) -> None:
    html = write_page(tmp_path / "r.html", **run, left=make_left()).read_text(encoding="utf-8")
    assert "Predicted from the trace of one micro-batch, of which nothing was computed: 612 MiB at the peak" in html
    assert "<code>backward · layer1.0.conv1 · convolution_backward</code>" in html
    assert 'id="served"' in html and "on 2 cores, measured while it was idle" in html
