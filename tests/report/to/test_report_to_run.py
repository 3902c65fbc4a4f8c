"""A real run is told to a writer, and leaves its mistakes and its trace, which its page shows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from thrifty import api
from thrifty.errors import MissingExtraError
from thrifty.pipeline import run_key
from thrifty.runs import RunFolder
from thrifty.spec import load_job
from thrifty.spec.beside import Beside
from thrifty.spec.events import Event, Warned
from thrifty.spec.mistakes import Mistakes
from thrifty.spec.traced import Traced


def write_job(folder: Path, digits: Path, **changes: object) -> Path:
    job = {
        "name": "told", "data": {"kind": "image", "path": str(digits)}, "model": "mlp-small",
        "train": {"epochs": 1, "batch": 32},
        "plan": {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "compile": "none"},
        **changes,
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return path


def test_who_is_told_makes_no_other_run(tmp_path: Path, digits: Path) -> None:
    plain = run_key(load_job(write_job(tmp_path, digits)))
    assert run_key(load_job(write_job(tmp_path, digits, report_to=["wandb"]))) == plain


def test_a_package_that_is_missing_is_told_before_anything_runs(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else real(name))
    job = write_job(tmp_path, digits, report_to=["mlflow"])
    with pytest.raises(MissingExtraError, match=r"report_to: mlflow needs .* pip install 'thrifty\[mlflow\]'"):
        api.run(job, runs=tmp_path / "runs")
    assert not (tmp_path / "runs" / "told").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_leaves_what_its_page_shows(tmp_path: Path, digits: Path) -> None:
    told = importlib.util.find_spec("tensorboard") is not None
    job = write_job(tmp_path, digits, **({"report_to": ["tensorboard"]} if told else {}))
    events: list[Event] = []
    outcome = api.run(job, runs=tmp_path / "runs", emit=events.append)
    assert not [event for event in events if isinstance(event, Warned) and "reporting" in event.message]
    folder = RunFolder(outcome.folder)
    assert any((folder.reported / "tensorboard").glob("events.out.*")) is told

    mistakes, traced = folder.find("mistakes", Mistakes), folder.find("traced", Traced)
    assert mistakes is not None and traced is not None
    wrong = sum(cell for at, row in enumerate(outcome.result.confusion) for to, cell in enumerate(row) if at != to)
    assert mistakes.wrong == wrong and len(mistakes.worst) == min(12, wrong)
    assert (folder.folder / "mistakes.json").stat().st_size < 200_000
    assert traced.holds["weights"] > 0 and sum(traced.seconds_by_op.values()) > 0 and traced.timeline.at
    assert abs(sum(traced.seconds_by_module.values()) / sum(traced.seconds_by_op.values()) - 1) < 1e-9

    page = folder.page.read_text(encoding="utf-8")
    for part in ("mistakes", "calibration", "step"):
        assert f'id="{part}"' in page

    state = {"global_step": 9, "log_history": [{"step": 9, "loss": 1.5, "eval_accuracy": 0.5}]}
    theirs = tmp_path / "peer" / "trainer_state.json"
    theirs.parent.mkdir()
    theirs.write_text(json.dumps(state), encoding="utf-8")
    again = api.report(outcome.folder, language="zh", beside=theirs, runs=tmp_path / "runs").read_text(encoding="utf-8")
    assert 'data-language="zh"' in again and "beside it: peer" in again
    assert folder.find("beside", Beside) is not None
    assert "beside it: peer" in api.report(outcome.folder, runs=tmp_path / "runs").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_broke_off_before_its_plan_has_a_page_too(tmp_path: Path, digits: Path) -> None:
    from contextlib import closing

    from thrifty.hardware import catalogue_clusters

    path = write_job(tmp_path, digits)
    job, folder = load_job(path), RunFolder(tmp_path / "runs" / "told")
    folder.claim("key", job, path.read_text(encoding="utf-8"), course="course")
    (folder.folder / "events.jsonl").write_text(
        '{"event": "Warned", "message": "<b>odd", "details": {}}\n{"event": "St'
    )
    with closing(api.open_ledger(tmp_path / "runs")) as ledger:
        device = catalogue_clusters()[0].device
        run = ledger.begin(name="told", key="course", folder=folder.folder, job="{}", device=device, code="c", pid=1)
        ledger.finish(run, status="failed", metrics={}, reason="the disk is full")
    page = api.report(folder.folder, runs=tmp_path / "runs").read_text(encoding="utf-8")
    for said in ("the disk is full", "It ended before there was a plan", "mlp-small", "&lt;b&gt;odd", 'id="bill"'):
        assert said in page, said
    assert 'id="decisions"' not in page and 'id="data"' not in page and 'id="curves"' not in page
