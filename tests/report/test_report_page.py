"""The page: whole, self-contained, escaped; and drawn without fault by a real browser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_dataset, make_entry, make_steps

from thrifty.errors import StorageError
from thrifty.ledger import StageEntry
from thrifty.optim import SCHEDULES, Schedule
from thrifty.report import write_page
from thrifty.report.figures import MOST_MARKS, MOST_POINTS, curves, log_axis, smooth, stages, thin
from thrifty.report.happened import Mark, marks
from thrifty.report.rows import Aside
from thrifty.report.words import Pair
from thrifty.spec import Decision, Sound, Spent
from thrifty.spec.events import (
    Checkpointed,
    Compiled,
    Evaluated,
    Initialised,
    Narrowed,
    RateLowered,
    Resumed,
    RolledBack,
    Skipped,
    StepDone,
    Stopped,
    Warned,
)
from thrifty.spec.table import Table

DRAWN = "!document.querySelector('.plot:not([data-drawn])')"
RECTANGLES = "all => all.map(each => each.getBoundingClientRect().toJSON())"
FOLLOWED = """[...document.querySelectorAll('.plot')].every(
    each => Math.abs(each.querySelector('svg.main-svg').getBoundingClientRect().width - each.clientWidth) < 2)"""
HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(2)>"'&amp;</pre></title>{{ 7*7 }}\u2028\udcff"""


def english(page: Path) -> str:
    """What a page holds for a reader of English."""
    html = page.read_text(encoding="utf-8")
    return re.sub(r'<span class="en">(.*?)</span><span class="zh" lang="zh-Hans">.*?</span>', r"\1", html)


class Seen(HTMLParser):
    """The elements and the text of a page, as a browser's parser takes them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.last = ""
        self.text: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.last = tag

    def handle_data(self, data: str) -> None:
        self.text[self.last] = self.text.get(self.last, "") + data


def language_run(run: dict[str, Any]) -> dict[str, Any]:
    plan = run["plan"]
    stop = plan.stop.model_copy(update={"metric": "bits_per_byte", "higher_is_better": False, "target": -math.inf})
    figures = {"bits_per_byte": 1.8345, "loss": 3.21}
    entry = make_entry(name="shakespeare", metrics=figures, reason="all 1,350 steps taken")
    return run | {
        "entry": entry,
        "plan": plan.model_copy(update={"task": "language", "stop": stop}),
        "dataset": make_dataset(
            kind="language", labels=(), label_counts={}, shape=(256,), mean=(), std=(), vocabulary=4096,
            tokens={"train": 301_966, "validation": 16_100, "test": 15_800},
        ),
        "evaluations": [
            Evaluated(e.step, e.epoch, {"bits_per_byte": 4 - 2.2 * e.metrics["accuracy"], "loss": 3.0}, e.best, 1e-3, 1)
            for e in run["evaluations"]
        ],
        "confusion": (), "rejects": [],
        "prompt": "KING RICHARD:\nWhat says", "completion": " the duke?\n\nBUCKINGHAM:\nMy lord, I come <anon>.\n",
    }  # fmt: skip


def troubled_run(run: dict[str, Any]) -> dict[str, Any]:
    """One that the guard, a lack of memory and a kill met, with enough to tell for the page to fold it up."""
    skipped = [Skipped(step, math.nan, math.inf, 4.2, 0.083) for step in range(300, 330, 5)]
    narrowed = [Narrowed(400, "training", 32, 16, HOSTILE), Narrowed(401, "training", 16, 8, "memory is full")]
    others = [
        *skipped, RateLowered(310, 438, 0.5, math.nan, math.inf, 0.25),
        RolledBack(325, 290, 0.5, math.nan, math.inf, 2.5), *narrowed, Narrowed(405, "validation", 256, 64, "full"),
        Compiled(1, 3, 41.0), Resumed(600), Warned(HOSTILE), Checkpointed(700, 10, 1.0), Stopped(1125, "done"),
        Initialised(8, ("conv1", "layer1.0.conv1", "fc"), (0.9, 1.4, 0.7), (2e-3, 1e-3, 0.1)),
    ]  # fmt: skip
    return run | {"others": others, "aside": Aside(wasted_s=3.0, rank_bytes=(2**29, 2**29)), "kept": 1080}


def test_what_happened_on_the_way_is_on_the_page(tmp_path: Path, run: dict[str, Any]) -> None:
    html = english(write_page(tmp_path / "report.html", **troubled_run(run)))
    body = " ".join(html[: html.index('<script type="application/json"')].split())
    for said in (
        "6 steps were skipped, the rate was lowered once and weights were rolled back once: 3.0 s of training wasted.",
        "For memory, training took 8 samples at once in the end, not 32. For memory, validation took 64 samples",
        "Step 300 was skipped: loss nan, gradient norm inf, at most 4.2 was expected</bdi></td><td class=\"n\">83 ms",
        "back to the weights of step 290, at 0.5 of the learning rate</bdi></td><td class=\"n\">2.5 s",
        "training at step 401: 8 samples at once from here on, 16 until now: memory is full".capitalize(),
        "Compiled 3 blocks in 41.0 s, at step 1", "Going on from step 600", "14 things are told",
        "keeps the weights of step 1,080, the best", "2 ranks of 512 MiB", '<th scope="row">wasted</th>',
    ):  # fmt: skip
        assert said in body, said
    assert HOSTILE[:10] not in body and "Checkpointed" not in body
    plain = english(write_page(tmp_path / "plain.html", **run))
    assert 'id="happened"' not in plain and "wasted" not in plain[: plain.index('<script type="application/json"')]


def test_steps_at_which_something_happened_are_marked(run: dict[str, Any]) -> None:
    run = troubled_run(run)
    by_name = {each.id: each for each in curves(run["plan"], run["steps"], [], marks(run["others"]))}
    at = {name: sorted({shape["x0"] for shape in each.layout.get("shapes", ())}) for name, each in by_name.items()}
    assert at == {
        "loss": [300, 305, 310, 315, 320, 325, 600], "learning-rate": [310, 325], "throughput": [1, 400, 401, 600],
    }  # fmt: skip
    loss = by_name["loss"]
    assert [label for label, _, _ in loss.key[2:]] == ["skipped, 6 times", "rolled back", "gone on"]
    assert isinstance(loss.says, Pair) and "skipped at step 300 and 5 more" in loss.says.en
    assert "第 300 步" in loss.says.zh
    assert loss.data[0]["y"][299] is None, "what was skipped is no point of the curve"


def test_many_marks_are_drawn_thinned(run: dict[str, Any]) -> None:
    many = [Mark(step, "skipped") for step in range(1, 900)]
    shapes = next(each for each in curves(run["plan"], run["steps"], [], many) if each.id == "loss").layout["shapes"]
    assert len(shapes) == MOST_MARKS and (shapes[0]["x0"], shapes[-1]["x0"]) == (1, 899)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_picture_of_the_schedule_has_axes_with_names(run: dict[str, Any], schedule: str) -> None:
    plan = run["plan"].model_copy(update={"optim": run["plan"].optim.model_copy(update={"schedule": schedule})})
    (figure,) = curves(plan, [], [])
    assert (figure.title, figure.layout["xaxis"]["title"]["text"]) == ("Learning rate", "step")
    assert figure.layout["yaxis"]["tickformat"] == "~g", "a rate is 0.0005, never 500µ"
    assert schedule in figure.says[0] and figure.key == ((f"as planned: {schedule}", figure.key[0][1], "dash"),)


def test_the_page_stands_alone(tmp_path: Path, run: dict[str, Any]) -> None:
    path = write_page(tmp_path / "deep" / "report.html", **run)
    html = path.read_text(encoding="utf-8")
    seen = Seen(html)
    assert [tag for tag, attrs in seen.tags if "src" in attrs] == []
    links = [attrs["href"] for tag, attrs in seen.tags if tag in {"link", "a"}]
    assert links == ["data:,"]
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline'" not in policy.split(";")[1]
    assert [tag for tag, _ in seen.tags if tag == "script"] == ["script"] * 4
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", path]  # no half-written file left


def test_the_page_says_what_was_asked_in_order(tmp_path: Path, run: dict[str, Any]) -> None:
    html = english(write_page(tmp_path / "report.html", **run))
    headings = re.findall(r"<h2 id=\"(\w+)\"", html)
    assert headings == ["predicted", "curves", "went", "bill", "decisions", "data", "confusion", "hardware", "job"]
    body = " ".join(html[: html.index('<script type="application/json"')].split())
    for said in (
        "98.6 %", "on 180 held-out test images", "reached at step 1,125 of 1,350", "<strong>1m 47s</strong>",
        "predicted 1m 33s", "551 – 673 MiB", "no energy counter", "convolutions ran 1.3 times faster",
        "digits/7/Thumbs.db", "2 of 180 test samples were given a wrong label", "Intel ARK", "schedule: cosine",
    ):  # fmt: skip
        assert said in body, said


def test_hostile_text_stays_text(tmp_path: Path, run: dict[str, Any]) -> None:
    labels = (HOSTILE, *run["dataset"].labels[1:])
    counts = dict.fromkeys(labels, 140)
    hostile = Decision(field=HOSTILE, value=HOSTILE, reason=HOSTILE, source="job")
    stages = (*run["entry"].stages, StageEntry(stage=HOSTILE, attempt=1, spent=Spent(wall_s=3)))
    run |= {
        "entry": make_entry(name=HOSTILE, reason=HOSTILE, folder=HOSTILE, stages=stages, device=HOSTILE),
        "dataset": make_dataset(labels=labels, label_counts=counts),
        "plan": run["plan"].model_copy(update={"why": (hostile,)}),
        "rejects": [{"path": HOSTILE, "reason": HOSTILE}],
        "prompt": HOSTILE, "completion": HOSTILE, "job_text": HOSTILE,
    }  # fmt: skip
    seen = Seen(english(write_page(tmp_path / "report.html", **run)))
    tags = [tag for tag, _ in seen.tags]
    assert tags.count("script") == 4 and "img" not in tags
    assert not any(name.startswith("on") for _, attrs in seen.tags for name in attrs)
    assert seen.text["pre"].rstrip("\n") == HOSTILE.replace("\udcff", "?")
    figures = json.loads(Seen(english(write_page(tmp_path / "a.html", **run))).text["script"].split("\n")[0])
    shown = next(figure for figure in figures if figure["id"] == "stage-time")["data"][0]["y"][-1]
    assert "<" not in shown and shown.startswith("&lt;script")


@pytest.mark.slow
def test_a_long_run_is_drawn_thinned_and_says_so(tmp_path: Path, run: dict[str, Any]) -> None:
    steps = make_steps(30_000)
    steps[12_345] = StepDone(**(vars(steps[12_345]) | {"loss": 99.0}))
    figures = curves(run["plan"], steps, run["evaluations"])
    for figure in figures:
        assert all(len(line["x"]) <= MOST_POINTS for line in figure.data)
    assert 99.0 in figures[0].data[0]["y"]
    html = english(write_page(tmp_path / "report.html", **(run | {"steps": steps})))
    assert "30,000 steps are drawn as at most 2,000 points" in html


def test_many_rejects_and_labels_are_capped_with_their_count(tmp_path: Path, run: dict[str, Any]) -> None:
    labels = tuple(f"label {number}" for number in range(120))
    confusion = tuple(tuple(5 if a == b else int((a, b) == (3, 7)) for b in range(120)) for a in range(120))
    counts = {label: 1000 - number for number, label in enumerate(labels)}
    rejects = [{"path": f"{number}.png", "reason": "truncated"} for number in range(1_234)]
    run |= {"dataset": make_dataset(labels=labels, label_counts=counts), "confusion": confusion, "rejects": rejects}
    html = english(write_page(tmp_path / "report.html", **run))
    assert "1,234 inputs were not used" in html and "and 1,034 more" in html and html.count(".png</bdi>") == 200 + 3
    assert "96 labels between them are left out" in html
    assert "Most often confused" in html and 'class="confusion"' not in html
    assert re.search(r"label 3</bdi></td><td><bdi>label 7</bdi></td><td class=\"n\">1<", html)


@pytest.mark.parametrize(
    ("symbols", "says"),
    [((" ", "a", "b"), "Characters of training transcripts"), (("one", "two"), "Words of training transcripts")],
    ids=["characters", "words"],
)
def test_what_transcripts_hold_is_named(tmp_path: Path, run: dict[str, Any], symbols: Sequence[str], says: str) -> None:
    dataset = make_dataset(
        kind="audio", task="transcribe", labels=symbols, label_counts=dict.fromkeys(symbols, 70), shape=(64, 40),
        tokens={"train": 300}, sound=Sound(rate=8000, bands=40),
    )  # fmt: skip
    html = english(write_page(tmp_path / "r.html", **{**run, "dataset": dataset, "confusion": ()}))
    assert says in html
    assert f'<th scope="row">{says.split()[0].lower()}</th><td class="n">{len(symbols)}</td>' in html
    assert ('<th scope="row"><bdi>␣</bdi></th>' in html) == (" " in symbols)
    assert ">labels<" not in html


def test_several_labels_have_a_row_each(tmp_path: Path, run: dict[str, Any]) -> None:
    labels = (HOSTILE, *(f"label {number}" for number in range(1, 40)))
    counts = [(number, 40, 1_500) for number in range(40)]
    run |= {"dataset": make_dataset(labels=labels, label_counts={}), "confusion": (), "by_label": counts}
    html = english(write_page(tmp_path / "report.html", **run))
    rows = re.findall(r"<tr>.*</tr>", html[html.index("How well each label was told") :].split("</table>")[0])
    assert len(rows) == 24 + 1 and "16 labels between them are left out" in html
    cells = re.sub(r"<[^>]+>", " ", rows[1]).split()
    assert cells == ["label", "39", "0.051", "2.6", "%", "98", "%", "1,500", "40"]
    assert "&lt;script&gt;" in rows[-1] and "<script" not in rows[-1]


def test_an_interval_stands_by_its_figure(tmp_path: Path, run: dict[str, Any]) -> None:
    figures = {"accuracy": 0.9861, "accuracy_low": 0.951, "accuracy_high": 0.9962, "auc": 0.9975, "loss": 0.05}
    run |= {"entry": make_entry(metrics=figures)}
    said = english(write_page(tmp_path / "a.html", **run))
    assert "test split: 95 % interval 95.1 % to 99.6 %, area under the ROC curve 0.9975, loss 0.05." in said
    plan = run["plan"]
    stop = plan.stop.model_copy(update={"metric": "auc", "target": -math.inf})
    run |= {"plan": plan.model_copy(update={"stop": stop})}
    said = english(write_page(tmp_path / "b.html", **run))
    assert "test split: accuracy 98.6 % (95 % interval 95.1 % to 99.6 %), loss 0.05." in said


def test_an_error_is_one_of_what_is_told(tmp_path: Path, run: dict[str, Any]) -> None:
    plan = run["plan"]
    stop = plan.stop.model_copy(update={"metric": "rmse", "target": -math.inf, "higher_is_better": False})
    table = Table(columns=(), target="price")
    run |= {
        "plan": plan.model_copy(update={"stop": stop}), "entry": make_entry(metrics={"rmse": 64_542.2}),
        "dataset": make_dataset(kind="table", labels=(), label_counts={}, table=table, shape=(1,)), "confusion": (),
    }  # fmt: skip
    html = english(write_page(tmp_path / "a.html", **run))
    assert "root mean squared error of price on 180 held-out test rows" in html


def test_hidden_words_are_counted(tmp_path: Path, run: dict[str, Any]) -> None:
    figures = {"loss": 6.34, "accuracy": 0.033, "perplexity": 568.4, "words": 8_410.0}
    stop = run["plan"].stop.model_copy(update={"metric": "loss", "target": -math.inf, "higher_is_better": False})
    run |= {"entry": make_entry(metrics=figures), "plan": run["plan"].model_copy(update={"stop": stop})}
    html = english(write_page(tmp_path / "a.html", **run))
    assert "loss on 8,410 hidden words of 180 held-out test" in html
    assert "test split: accuracy 3.3 %, perplexity 568.4." in html


def test_what_was_never_found_is_none_and_many_are_grouped(tmp_path: Path, run: dict[str, Any]) -> None:
    run |= {"dataset": make_dataset(labels=("a", "b"), label_counts={}), "confusion": ((11_614, 0), (4, 0))}
    html = english(write_page(tmp_path / "a.html", **run))
    assert ">11,614</td>" in html
    assert re.findall(r'class="found">([^<]+)<', html) == ["100 %", "0 %"]


def test_many_notes_are_folded_up(tmp_path: Path, run: dict[str, Any]) -> None:
    notes = tuple(f"column {number} is a number" for number in range(20))
    cleaning = run["dataset"].cleaning.model_copy(update={"notes": notes})
    html = english(write_page(tmp_path / "a.html", **(run | {"dataset": make_dataset(cleaning=cleaning)})))
    assert all(f"<li>{note}</li>" in html for note in notes) and "and 14 more" in html


def test_a_single_evaluation_has_an_axis_that_says_something(run: dict[str, Any]) -> None:
    def axis(metric: str, *values: float) -> dict[str, Any]:
        plan = run["plan"]
        stop = plan.stop.model_copy(update={"metric": metric, "target": -math.inf})
        plan = plan.model_copy(update={"stop": stop})
        evaluations = [Evaluated(9, 1.0, {metric: value}, True, 1e-3, 1) for value in values]
        return curves(plan, run["steps"], evaluations)[1].layout["yaxis"]

    assert axis("rmse", 64_542.2)["rangemode"] == "tozero" and "rangemode" not in axis("rmse", 64_542.2, 60_000.0)
    assert axis("auc", 0.88)["maxallowed"] == axis("macro_f1", 0.2, 0.3)["maxallowed"] == pytest.approx(1.02)
    assert "maxallowed" not in axis("rmse", 0.5) and axis("rmse", 0.5)["separatethousands"]


def test_a_run_with_little_to_say_still_has_a_page(tmp_path: Path, run: dict[str, Any]) -> None:
    entry = make_entry(status="failed", metrics={}, stages=(), predicted=None, total=Spent(), reason="the disk is full")
    run |= {"entry": entry, "steps": [], "evaluations": [], "confusion": (), "rejects": [], "job_text": ""}
    html = english(write_page(tmp_path / "report.html", **run))
    assert "no result" in html and "the disk is full" in html
    assert html.count('class="plot"') == 1, "the rate as planned, and nothing that was done"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_is_drawn_as_planned_and_as_it_was(run: dict[str, Any], schedule: str) -> None:
    optim = run["plan"].optim.model_copy(update={"schedule": schedule, "cooldown_steps": 200})
    plan, rate = run["plan"].model_copy(update={"optim": optim}), Schedule(optim).rate
    taken = [StepDone(**(vars(step) | {"learning_rate": rate(step.step - 1)})) for step in run["steps"]]
    (figure,) = (figure for figure in curves(plan, taken, []) if figure.id == "learning-rate")
    was, planned = figure.data
    assert planned["x"] == [float(step) for step in range(1, 1_351)]
    assert planned["y"][: len(was["y"])] == was["y"]
    assert f"as planned: {schedule}" in [label for label, _, _ in figure.key] and schedule in figure.says[0]
    (alone,) = (figure for figure in curves(plan, [], []) if figure.id == "learning-rate")
    assert alone.data == [planned]


def test_losses_that_are_no_numbers_are_gaps(run: dict[str, Any]) -> None:
    steps = [StepDone(**(vars(step) | {"loss": math.nan if step.step >= 50 else step.loss})) for step in make_steps(90)]
    loss = curves(run["plan"], steps, [])[0].data[0]["y"]
    assert loss[48] is not None and loss[49:] == [None] * 41


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, run: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the report"):
        write_page(tmp_path / "file" / "report.html", **run)


@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_ends_order_and_extremes(ys: list[float], most: int) -> None:
    xs = [float(number) for number in range(len(ys))]
    kept_x, kept_y = thin(xs, ys, most)
    assert len(kept_x) == len(kept_y) <= max(most, 4)
    assert kept_x == sorted(set(kept_x)) and (kept_x[0], kept_x[-1]) == (xs[0], xs[-1])
    finite = [y for y in ys if math.isfinite(y)]
    if finite:
        assert {min(finite), max(finite)} <= set(kept_y)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(1, 100))
def test_smoothing_stays_within_what_it_averages(values: list[float], span: float) -> None:
    even = smooth(values, span)
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert len(even) == len(values) and even[0] == pytest.approx(values[0])
    assert all(min(values) - slack <= value <= max(values) + slack for value in even)


@given(st.floats(1e-9, 1e22), st.floats(1.0, 1e22))
def test_an_axis_of_decades_has_labels_that_can_be_read(low: float, times: float) -> None:
    axis = log_axis(low, low * times)
    assert 1 <= len(axis["tickvals"]) == len(axis["ticktext"]) <= 15
    assert times < 1.1 or sum(low * 0.94 <= tick <= low * times * 1.06 for tick in axis["tickvals"]) >= 2
    assert len(set(axis["ticktext"])) == len(axis["ticktext"])


def test_every_attribute_of_the_figures_is_one_of_plotlys(run: dict[str, Any]) -> None:
    import plotly.graph_objects as go

    run = troubled_run(run)
    drawn = curves(run["plan"], run["steps"], run["evaluations"], marks(run["others"]))
    for figure in [*drawn, *stages(run["entry"])]:
        go.Figure(data=figure.data, layout=figure.layout)  # raises on a name or value that plotly does not know


def until(page: Any, expression: str) -> None:
    # playwright's own wait evaluates text in the page, which the page's content policy forbids
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never true: {expression}")


def hostile_run(run: dict[str, Any]) -> dict[str, Any]:
    labels = (HOSTILE, "w" * 300, *run["dataset"].labels[2:])
    stages = (*run["entry"].stages, StageEntry(stage=HOSTILE, attempt=1, spent=Spent(wall_s=9)))
    return run | {
        "dataset": make_dataset(labels=labels, label_counts=dict.fromkeys(labels, 9)),
        "rejects": [{"path": "w" * 500 + HOSTILE, "reason": HOSTILE}],
        "entry": make_entry(name=HOSTILE, stages=stages),
        "job_text": HOSTILE + "w" * 400,
    }


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [dict, language_run, hostile_run, troubled_run], ids=["classify", "language", "hostile", "troubled"]
)
def test_a_browser_draws_it(
    tmp_path: Path, run: dict[str, Any], chromium: Any, kind: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    page_file = write_page(tmp_path / "report.html", **kind(run))
    page = chromium.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark")):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        until(page, DRAWN)
        until(page, FOLLOWED)  # a figure takes the width of its column after a moment
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.eval_on_selector_all(".plot svg.main-svg:first-child", RECTANGLES)
        assert len(sizes) == (8 if kind is troubled_run else 6)
        assert all(size["width"] > 250 and size["height"] > 150 for size in sizes)
        assert all(page.eval_on_selector_all(".plot", "all => all.map(each => each.querySelector('.trace path'))"))
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)")
    if kind is troubled_run:
        # the wide page comes last; each mark is a line within its plot
        assert page.eval_on_selector_all("#loss .shapelayer path", "all => all.length") == 8
        assert page.eval_on_selector_all("#learning-rate .shapelayer path", "all => all.length") == 2
        assert not page.evaluate("document.querySelector('#happened').parentElement.querySelector('details').open")
        page.click("#happened ~ details summary")
        assert page.is_visible("text=Going on from step 600")
    for axis in ("xtitle", "xtick", "ytick"):
        assert page.text_content(f"#learning-rate .{axis} text" if axis != "xtitle" else "#learning-rate .xtitle")
    assert all(page.eval_on_selector_all("[role=img]", "all => all.map(each => each.getAttribute('aria-label'))"))
    assert complaints == []
    assert requests == [page_file.as_uri()]
    page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_it_prints_light_and_within_the_paper(tmp_path: Path, run: dict[str, Any], chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(write_page(tmp_path / "report.html", **run).as_uri())
    until(page, DRAWN)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 900})  # what A4 leaves between its margins
    page.screenshot(path=tmp_path / "print.png", full_page=True)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    context.close()
