"""The whole way: on a tiny text with tiny models, again after a kill, and with losses of a known law in their place."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from made_curves import LAW

import forked
from made_devices import device
from thrifty import api, hardware
from thrifty.errors import BudgetError, DataError, JobError
from thrifty.report.cell import scale_cell
from thrifty.report.scale_tables import scale_view
from thrifty.scale import Family, Ran, scale
from thrifty.scale.price import longer
from thrifty.scale.small import Runner
from thrifty.spec import Budget, Job, Pins, Spent, load_job, parse_job
from thrifty.spec.events import Emit, Event, StageDone
from thrifty.spec.scaling import Scaled, parse_purse

LENGTH = 16
JOB: dict[str, Any] = {
    "name": "tiny",
    "data": {"kind": "language", "path": "sources", "files": "json/*.py", "vocabulary": 260, "length": LENGTH},
    "model": "gpt-nano@2x32x2",
    "train": {"batch": 2},
    # one way to price, and no thread that waits for another
    "plan": {"precision": "fp32", "micro_batch": 2, "threads": 1},
}


def test_a_limit_of_memory_holds_while_sizes_are_priced() -> None:
    job = parse_job({**JOB, "budget": {"memory": "4GiB", "time": "1h"}})
    assert longer(job, "gpt-nano", 2, Pins()).budget == Budget.model_validate({"memory": "4GiB"})


def write(folder: Path, sources: Path, **more: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**JOB, **more, "data": {**JOB["data"], "path": str(sources)}}))
    return path


class Played:
    """Gives each small run the loss that a known law says, and remembers what was asked."""

    def __init__(self, noise: float = 0.001, best: float = 2e-3) -> None:
        self.noise, self.best, self.jobs = noise, best, list[Job]()
        self.parameters: dict[str, int] = {}

    def __call__(self, job: Job, emit: Emit) -> Ran:
        self.jobs.append(job)
        assert job.train.learning_rate is not None and job.train.steps is not None
        assert isinstance(job.train.batch, int)
        layers, width = map(int, job.model.partition("@")[2].split("x")[:2])
        loss = LAW.loss(12 * layers * width**2, job.train.steps * job.train.batch * LENGTH)
        off = math.log(job.train.learning_rate / self.best)
        wobble = self.noise * math.sin(37 * len(self.jobs))
        return Ran(loss * math.exp(0.01 * off**2 + wobble), Spent(wall_s=5.0, joules=100.0, usd=1e-4), job.name, True)


@pytest.fixture
def made_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose rates are known, in place of this machine's, which would have to be measured."""
    monkeypatch.setattr(hardware, "here", lambda *, kind: device())


def played(path: Path, runner: Runner, budget: str = "1e14flop", **more: Any) -> tuple[Scaled, list[Event]]:
    events: list[Event] = []
    asked = {"limit": parse_purse("2e11flop"), **more}
    scaled = scale(
        load_job(path), parse_purse(budget), key="k", run=runner, runs=path.parent / "runs", emit=events.append, **asked
    )
    return scaled, events


@pytest.mark.slow
@pytest.mark.usefixtures("made_device")
def test_with_losses_of_a_known_law_what_it_would_buy_is_bought(tmp_path: Path, sources: Path) -> None:
    path = write(tmp_path, sources)
    runner = Played()
    scaled, events = played(path, runner)
    assert scaled.carried.how == "mup"
    assert scaled.carried.rate == pytest.approx(2e-3, rel=0.5)
    assert all(job.train.init == "mup" and job.target is None and job.train.evaluations == 1 for job in runner.jobs)
    assert len({(job.model, job.train.steps, job.train.batch, job.train.learning_rate) for job in runner.jobs}) == len(
        runner.jobs
    )
    curve = [run for run in scaled.runs if run.use == "curve"]
    assert len({run.size.model for run in curve}) == 4 and len({run.data for run in curve}) == 3
    large = 8 * max(run.size.parameters for run in curve)
    data = max(run.data for run in curve)
    said = scaled.curve.loss(large, data)
    assert said.value == pytest.approx(LAW.loss(large, data), rel=0.03)
    assert sum(isinstance(event, StageDone) and event.stage.startswith("run ") for event in events) == len(scaled.runs)

    folder = tmp_path / "runs" / "tiny-scale"
    assert Scaled.model_validate_json((folder / "scale.json").read_text()) == scaled
    html = (folder / "scale.html").read_text()
    assert "Content-Security-Policy" in html and "http" not in html.partition("<script")[0].replace("http-equiv", "")
    best = load_job(folder / "best.yaml")
    assert best.model == scaled.offers[scaled.best].size.model
    assert best.train.steps == scaled.offers[scaled.best].steps

    (console := Console(file=io.StringIO(), width=80)).print(scale_view(scaled))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in shown.splitlines()) and "…" not in shown
    assert "▸ gpt-nano@" in shown and "the bill" in shown and "muP" in shown
    assert "▸  gpt-nano@" in scale_cell(scaled), "a notebook shows it too"

    again, _ = played(path, other := Played())
    assert [job.name for job in other.jobs] == [job.name for job in runner.jobs]
    assert again.offers == scaled.offers


@pytest.mark.slow
@pytest.mark.usefixtures("made_device")
def test_a_budget_of_another_machine_is_priced_there_and_runs_here_are_not_part_of_it(
    tmp_path: Path, sources: Path
) -> None:
    scaled, _ = played(write(tmp_path, sources), Played(), "0.002USD", on="h100")
    assert "1 x" in scaled.where
    assert scaled.left == scaled.budget
    assert any("not part of the budget" in note for note in scaled.notes)
    for offer in scaled.offers:
        assert 0 < offer.usd <= 0.002
    with pytest.raises(JobError, match=r"steps of 2 samples on h100:8.*a multiple of its 8 devices"):
        played(tmp_path / "tiny.yaml", Played(), "0.5USD", on="h100:8")


@pytest.mark.slow
@pytest.mark.usefixtures("made_device")
def test_a_budget_of_time_is_spent_here_and_the_small_runs_are_part_of_it(tmp_path: Path, sources: Path) -> None:
    scaled, _ = played(write(tmp_path, sources), Played(), "8min", limit=None)
    assert scaled.left.quantity == "seconds"
    # what pricing the sizes took is known when they are priced
    runs_over = 480 - scaled.spent.wall_s
    assert runs_over - scaled.fit.wall_s <= scaled.left.amount <= runs_over
    # a quarter of it, as foreseen
    assert scaled.foreseen.value <= 120
    for offer in scaled.offers:
        assert 0 < offer.seconds <= scaled.left.amount and offer.joules > 0 and offer.usd > 0
        assert offer.epochs <= 4


@pytest.mark.slow
@pytest.mark.usefixtures("made_device")
def test_where_widths_disagree_rates_go_by_the_width(tmp_path: Path, sources: Path) -> None:
    path = write(tmp_path, sources, train={"batch": 2, "init": "default"})

    class Falling(Played):
        def __call__(self, job: Job, emit: Emit) -> Ran:
            width = int(job.model.partition("@")[2].split("x")[1])
            self.best = 8e-3 * (32 / width) ** 1.5
            return super().__call__(job, emit)

    scaled, _ = played(path, Falling())
    assert scaled.carried.how == "rule" and "train.init is default" in scaled.carried.says
    assert scaled.carried.power == pytest.approx(-1.5, abs=0.3)


def test_what_cannot_be_scaled_is_told_before_anything_runs(tmp_path: Path, sources: Path) -> None:
    with pytest.raises(JobError, match="cannot be had at other sizes"):
        api.scale(write(tmp_path, sources, model="hf:gpt2"), budget="1h", runs=tmp_path / "runs")
    with pytest.raises(JobError, match="no amount of FLOPs, time, energy or money"):
        api.scale(write(tmp_path, sources), budget="5 apples", runs=tmp_path / "runs")
    assert not (tmp_path / "runs" / "tiny-scale").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("made_device")
def test_budgets_and_data_that_are_too_small_are_told(tmp_path: Path, sources: Path) -> None:
    path = write(tmp_path, sources)
    with pytest.raises(BudgetError, match=r"too little for the small runs: one of the smallest \(gpt-nano@2x32x2"):
        api.scale(path, budget="10s", runs=tmp_path / "runs")
    (tmp_path / "short" / "json").mkdir(parents=True)
    (tmp_path / "short" / "json" / "a.py").write_text("a few words, again and again. " * 200)
    with pytest.raises(DataError, match=r"samples are too few for a curve.*Set train\.batch"):
        api.scale(write(tmp_path, tmp_path / "short", train={"batch": 64}), budget="10h", runs=tmp_path / "runs")


@pytest.mark.slow
def test_a_family_counts_its_sizes(tmp_path: Path, sources: Path) -> None:
    from thrifty.data import prepare
    from thrifty.spec import raw_data
    from thrifty.spec.folders import cache_folder

    job = load_job(write(tmp_path, sources))
    store = prepare(raw_data(job), seed=0, cache=cache_folder(), emit=lambda event: None)
    sizes = [size for size, _ in zip(Family(job, store.dataset), range(6), strict=False)]
    assert [size.width for size in sizes] == sorted(size.width for size in sizes)
    for size in sizes:
        blocks = 12 * size.layers * size.width**2
        assert blocks < size.parameters < 1.2 * blocks
        assert size.whole - size.parameters == (store.dataset.vocabulary + LENGTH) * size.width
        assert size.flops > 6 * blocks * LENGTH


@pytest.mark.slow
def test_the_whole_way_and_again_after_a_kill(tmp_path: Path, sources: Path) -> None:
    write(tmp_path, sources)
    # the least small runs that tell a curve, however fast the machine seems
    command = ["-m", "thrifty", "scale", "tiny.yaml", "--budget", "1e13flop", "--fit", "7e10flop", "--json"]
    small = tmp_path / "runs" / "tiny-scale" / "small"
    with forked.start(command, tmp_path) as first:
        until = time.monotonic() + 240
        while len(list(small.glob("*/result.json"))) < 3:
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        first.kill()
    done = forked.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    scaled = json.loads(done.stdout)
    assert [run["fresh"] for run in scaled["runs"][:3]] == [False] * 3
    assert all(run["fresh"] for run in scaled["runs"][4:])
    assert all(0 < run["loss"] < 7 for run in scaled["runs"])
    assert (tmp_path / "runs" / "tiny-scale" / "scale.html").is_file()
    assert scaled["spent"]["wall_s"] > 0 and scaled["reused"]["wall_s"] > 0
